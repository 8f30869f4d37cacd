#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/prompt_set.hpp"
#include "circuit/io/json_rows.hpp"

namespace circuit {

/// Reads a prompt file as load_contrast_batch does, of prompts that need not line up. A role in `word_idxs` is one
/// index for all prompts or a list of one for each; a prompt may bring `word_idxs` of its own. throws  FileError,
/// FormatError, ConfigError  when `path` cannot be read or is not such a file throws  ValueError no prompts left, and
/// what Unfit::refuse refuses throws  IndexError                           a role outside its prompt
[[nodiscard]] inline PromptSet load_prompt_set(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                               const PromptSetOptions& options = {});

/// Reads the agreement files of feature-circuits: rows {"clean_prefix", "patch_prefix", "clean_answer",
/// "patch_answer"}. The role "end" is each prompt's last token. source  github.com/saprmarks/feature-circuits, data/
/// throws  as load_prompt_set
[[nodiscard]] inline PromptSet load_feature_circuits_prompts(const std::filesystem::path& path,
                                                             const Tokenizer& tokenizer,
                                                             const PromptSetOptions& options = {});

/// Reads MIB's tasks: rows {"prompt", "choices", "answerKey", COUNTERFACTUAL: {"prompt", ...}}, as `datasets` writes
/// them to JSON. Choices are texts or {"label": [texts]}; the chosen one answers, the others are wrong. counterfactual
/// which of a row's counterfactuals is the corrupt prompt, such as "s2_io_flip_counterfactual" throws  as
/// load_prompt_set
[[nodiscard]] inline PromptSet load_mib_prompts(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                                std::string_view counterfactual, const PromptSetOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

/// Texts of one pair, before they are tokens.
struct PromptTexts {
  std::string clean{};
  std::string corrupt{};
  std::vector<std::string> answers{};
  std::vector<std::string> wrong_answers{};
  std::vector<std::pair<std::string, std::int32_t>> roles{};  ///< indices without a BOS
};

[[nodiscard]] inline RolePrompt to_prompt(const PromptTexts& texts, const Tokenizer& tokenizer, Bos bos,
                                          const std::filesystem::path& path, std::size_t number) {
  const auto encode = [&](const std::string& text, std::string_view part) {
    return read_at(path, number, part, [&] { return tokenizer.encode(text, bos); });
  };
  RolePrompt prompt{.clean = encode(texts.clean, "clean"),
                    .corrupt = encode(texts.corrupt, "corrupt"),
                    .answers = single_tokens(tokenizer, path, number, "answers", texts.answers),
                    .wrong_answers = single_tokens(tokenizer, path, number, "wrong_answers", texts.wrong_answers)};
  for (const auto& [role, index] : texts.roles) {
    prompt.roles.emplace(role, Position{index + (bos == Bos::prepend ? 1 : 0)});
  }
  if (!prompt.clean.empty()) {
    prompt.roles.try_emplace("end", Position{static_cast<std::int32_t>(prompt.clean.size()) - 1});
  }
  prompt.tokens = token_texts(tokenizer, prompt.clean);
  check_prompt(prompt, path, number);
  return prompt;
}

/// A set of what `texts(row, number)` reads of each row.
template <class Texts>
[[nodiscard]] PromptSet read_prompt_set(const std::vector<nlohmann::json>& rows, const Tokenizer& tokenizer,
                                        const PromptSetOptions& options, const std::filesystem::path& path,
                                        Texts&& texts) {
  PromptSet set;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const PromptTexts read = texts(rows[i], i);
    add_prompt(set, options.unfit, [&] { return to_prompt(read, tokenizer, options.bos, path, i); });
  }
  check_any(set, path);
  return set;
}

/// The index that `word_idxs` gives a role in one prompt.
[[nodiscard]] inline std::int32_t role_index(const nlohmann::json& words, const std::string& role, std::size_t number,
                                             const std::filesystem::path& path) {
  constexpr std::int32_t most = 1 << 24;
  const auto& value = require_field(words, role, path);
  auto index = std::int32_t{-1};
  if (value.is_array()) {
    const auto each = require<std::vector<std::int32_t>>(words, role, path);
    if (number < each.size()) index = each[number];
  } else {
    index = require<std::int32_t>(words, role, path);
  }
  if (index >= 0 && index <= most) return index;
  throw IndexError{prompt_error(path, number, role, "the role is no position")};
}

inline void read_word_idxs(const nlohmann::json& object, std::size_t number, const std::filesystem::path& path,
                           PromptTexts& texts) {
  if (!object.contains("word_idxs")) return;
  const auto& words = object.at("word_idxs");
  if (!words.is_object()) {
    throw FormatError{
        {.file = path, .tensor = "word_idxs", .expected = "an object of positions", .got = words.type_name()}};
  }
  for (const auto& [role, value] : words.items()) texts.roles.emplace_back(role, role_index(words, role, number, path));
}

/// The texts of MIB's choices, each continuing its prompt.
[[nodiscard]] inline std::vector<std::string> mib_choices(const nlohmann::json& row,
                                                          const std::filesystem::path& path) {
  const auto& field = require_field(row, "choices", path);
  auto choices = field.is_object() ? require<std::vector<std::string>>(field, "label", path)
                                   : require<std::vector<std::string>>(row, "choices", path);
  for (auto& choice : choices) {
    if (!choice.starts_with(' ')) choice.insert(0, 1, ' ');
  }
  return choices;
}

}  // namespace circuit::detail

inline circuit::PromptSet circuit::load_prompt_set(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                                   const PromptSetOptions& options) {
  const auto root = read_json(path);
  const auto texts = [&](const nlohmann::json& row, std::size_t i) {
    detail::PromptTexts out{
        .clean = detail::prompt_part<std::string>(row, "clean", path, i),
        .corrupt = detail::prompt_part<std::string>(row, "corrupt", path, i),
        .answers = detail::prompt_part<std::vector<std::string>>(row, "answers", path, i),
        .wrong_answers = detail::prompt_part<std::vector<std::string>>(row, "wrong_answers", path, i)};
    detail::read_word_idxs(row, i, path, out);
    detail::read_word_idxs(root, i, path, out);
    return out;
  };
  return detail::read_prompt_set(detail::read_prompts(root, path), tokenizer, options, path, texts);
}

inline circuit::PromptSet circuit::load_feature_circuits_prompts(const std::filesystem::path& path,
                                                                 const Tokenizer& tokenizer,
                                                                 const PromptSetOptions& options) {
  return detail::read_prompt_set(
      read_json_rows(path), tokenizer, options, path, [&](const nlohmann::json& row, std::size_t i) {
        const auto part = [&](const char* name) { return detail::prompt_part<std::string>(row, name, path, i); };
        return detail::PromptTexts{.clean = part("clean_prefix"),
                                   .corrupt = part("patch_prefix"),
                                   .answers = {part("clean_answer")},
                                   .wrong_answers = {part("patch_answer")}};
      });
}

inline circuit::PromptSet circuit::load_mib_prompts(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                                    std::string_view counterfactual, const PromptSetOptions& options) {
  return detail::read_prompt_set(
      read_json_rows(path), tokenizer, options, path, [&](const nlohmann::json& row, std::size_t i) {
        const auto& other = require_field(row, std::string{counterfactual}, path);
        detail::PromptTexts out{.clean = detail::prompt_part<std::string>(row, "prompt", path, i),
                                .corrupt = detail::prompt_part<std::string>(other, "prompt", path, i)};
        const auto choices = detail::mib_choices(row, path);
        const auto key = require<std::size_t>(row, "answerKey", path);
        if (key >= choices.size()) {
          auto details = detail::prompt_error(path, i, "answerKey", "is no choice");
          details.expected = "0 to " + std::to_string(choices.size()) + ", not included";
          details.got = std::to_string(key);
          throw IndexError{std::move(details)};
        }
        for (std::size_t c = 0; c < choices.size(); ++c) {
          (c == key ? out.answers : out.wrong_answers).push_back(choices[c]);
        }
        return out;
      });
}
