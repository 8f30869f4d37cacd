#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/compiled.hpp"
#include "circuit/core/error.hpp"
#include "circuit/core/id.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/io/json.hpp"
#include "circuit/text/tokenizer.hpp"

namespace circuit {

using TokenId = std::int32_t;

/// Prompts in pairs: a clean one, and a corrupt one of the same length in which the answer cannot be known. All prompts
/// of a batch have one length and the same roles at the same positions, so a position means the same in each.
struct ContrastBatch {
  std::vector<std::vector<TokenId>> clean{};             ///< [batch][pos], the BOS first where there is one
  std::vector<std::vector<TokenId>> corrupt{};           ///< [batch][pos]
  std::vector<std::vector<TokenId>> answers{};           ///< [batch][one or more]: right next tokens
  std::vector<std::vector<TokenId>> wrong_answers{};     ///< [batch][any number]
  std::map<std::string, Position, std::less<>> roles{};  ///< such as "S2"; counted as in `clean`, so behind the BOS
  std::vector<std::vector<std::string>>
      tokens{};  ///< [batch][pos]: the clean tokens as text; empty without a tokenizer

  [[nodiscard]] std::size_t size() const noexcept { return clean.size(); }
  /// Positions of each prompt, BOS included.
  [[nodiscard]] std::size_t length() const noexcept { return clean.empty() ? 0 : clean.front().size(); }

  /// throws  NameError  listing the roles there are
  [[nodiscard]] Position role(std::string_view name) const;

  /// Prompts [first, first + count) as a batch of their own.
  /// throws  IndexError  when there are not so many; ValueError when `count` is 0
  [[nodiscard]] ContrastBatch slice(std::size_t first, std::size_t count) const;
};

/// Which prompts of a file to take, and how.
struct ContrastBatchOptions {
  std::size_t first = 0;   ///< number of the first prompt, from 0
  std::size_t size = 0;    ///< how many; 0 for all from `first` on
  Bos bos = Bos::prepend;  ///< prepend shifts every role by one: files count without a BOS
};

/// Reads a prompt file: {"word_idxs": {role: index without BOS}, "prompts": [{"clean": text, "corrupt": text,
/// "answers": [text], "wrong_answers": [text]}]}. Each answer must be one token.
/// throws  FileError, FormatError  when `path` cannot be read or is not such a file
/// throws  ValueError              no prompts, prompts that do not line up, an answer of several tokens
/// throws  IndexError              a role outside the prompt, or fewer prompts than asked for
[[nodiscard]] ContrastBatch load_contrast_batch(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                                const ContrastBatchOptions& options = {});

namespace detail {

[[nodiscard]] inline ErrorDetails prompt_error(const std::filesystem::path& file, std::size_t prompt,
                                               std::string_view part, std::string problem) {
  return {.file = file,
          .tensor = "prompts[" + std::to_string(prompt) + "]" + (part.empty() ? "" : "." + std::string{part}),
          .problem = std::move(problem)};
}

/// Checks every promise of ContrastBatch; `first` is the number of its first prompt in `file`.
inline void check_batch(const ContrastBatch& batch, const std::filesystem::path& file, std::size_t first) {
  if (batch.clean.empty()) {
    throw ValueError{
        {.file = file, .tensor = "prompts", .problem = "the batch is empty", .expected = "at least one prompt"}};
  }
  const std::size_t length = batch.length();
  const auto check_length = [&](const std::vector<TokenId>& ids, std::size_t prompt, std::string_view part) {
    auto details = prompt_error(file, first + prompt, part, "the prompts do not line up");
    if (ids.size() == length && length > 0) return;
    details.expected = length == 0 ? "at least one token" : std::to_string(length) + " tokens, as the first prompt";
    details.got = std::to_string(ids.size());
    details.hint = "batch only prompts of one template, whose words are one token each";
    throw ValueError{std::move(details)};
  };
  for (std::size_t b = 0; b < batch.size(); ++b) {
    check_length(batch.clean[b], b, "clean");
    check_length(batch.corrupt[b], b, "corrupt");
    if (batch.answers[b].empty()) {
      throw ValueError{prompt_error(file, first + b, "answers", "there is no answer")};
    }
    for (const auto* const ids : {&batch.clean[b], &batch.corrupt[b], &batch.answers[b], &batch.wrong_answers[b]}) {
      for (const TokenId id : *ids) {
        if (id >= 0) continue;
        auto details = prompt_error(file, first + b, "", "a token id is negative");
        details.got = std::to_string(id);
        throw IndexError{std::move(details)};
      }
    }
  }
  for (const auto& [name, position] : batch.roles) {
    if (position.value >= 0 && static_cast<std::size_t>(position.value) < length) continue;
    throw IndexError{{.file = file,
                      .tensor = name,
                      .problem = "the role lies outside the prompt",
                      .expected = "a position from 0 to " + std::to_string(length - 1),
                      .got = std::to_string(position.value)}};
  }
}

/// The numbers [first, first + size) with size 0 meaning all that remain.
[[nodiscard]] inline std::pair<std::size_t, std::size_t> chosen_prompts(const ContrastBatchOptions& options,
                                                                        std::size_t available,
                                                                        const std::filesystem::path& file) {
  if (options.first < available && options.size <= available - options.first) {
    return {options.first, options.size == 0 ? available : options.first + options.size};
  }
  if (available == 0) {
    throw ValueError{
        {.file = file, .tensor = "prompts", .problem = "the batch is empty", .expected = "at least one prompt"}};
  }
  throw IndexError{{.file = file,
                    .tensor = "prompts",
                    .problem = "not so many prompts",
                    .expected = "prompts within the first " + std::to_string(available),
                    .got = std::to_string(options.size) + " from number " + std::to_string(options.first)}};
}

/// Runs `read`, and adds where it happened to an error that does not know.
template <class Read>
[[nodiscard]] auto read_at(const std::filesystem::path& file, std::size_t prompt, std::string_view part, Read&& read) {
  try {
    return read();
  } catch (const ValueError& error) {
    auto details = error.details();
    details.file = file;
    details.problem = prompt_error(file, prompt, part, "").tensor + " " + details.problem;
    throw ValueError{std::move(details)};
  }
}

[[nodiscard]] inline std::vector<std::string> token_texts(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::vector<std::string> texts;
  for (const TokenId id : ids) texts.push_back(tokenizer.token_text(id));
  return texts;
}

[[nodiscard]] inline std::vector<TokenId> single_tokens(const Tokenizer& tokenizer, const std::filesystem::path& file,
                                                        std::size_t prompt, std::string_view part,
                                                        std::span<const std::string> texts) {
  std::vector<TokenId> ids;
  for (const auto& text : texts) {
    ids.push_back(read_at(file, prompt, part, [&] { return tokenizer.single_token(text); }));
  }
  return ids;
}

/// `word_idxs` with `shift` added to each.
[[nodiscard]] inline std::map<std::string, Position, std::less<>> read_roles(const nlohmann::json& root,
                                                                             const std::filesystem::path& file,
                                                                             std::int32_t shift) {
  const auto& words = require_field(root, "word_idxs", file);
  if (!words.is_object()) {
    throw FormatError{
        {.file = file, .tensor = "word_idxs", .expected = "an object of positions", .got = words.type_name()}};
  }
  std::map<std::string, Position, std::less<>> roles;
  for (const auto& [name, index] : members(words)) {
    const auto value = require<std::int32_t>(words, name, file);
    if (value < 0 || value > (1 << 24)) {
      throw IndexError{
          {.file = file, .tensor = name, .problem = "the role is no position", .got = std::to_string(value)}};
    }
    roles.emplace(name, Position{value + shift});
  }
  return roles;
}

[[nodiscard]] inline const nlohmann::json::array_t& read_prompts(const nlohmann::json& root,
                                                                 const std::filesystem::path& file) {
  const auto& prompts = require_field(root, "prompts", file);
  if (!prompts.is_array()) {
    throw FormatError{{.file = file, .tensor = "prompts", .expected = "a list", .got = prompts.type_name()}};
  }
  return items(prompts);
}

template <class T>
[[nodiscard]] T prompt_part(const nlohmann::json& prompt, const char* part, const std::filesystem::path& file,
                            std::size_t number) {
  if (!prompt.is_object()) {
    auto details = prompt_error(file, number, "", "is no prompt");
    details.expected = "an object";
    details.got = prompt.type_name();
    throw FormatError{std::move(details)};
  }
  return require<T>(prompt, part, file);
}

}  // namespace detail

inline Position ContrastBatch::role(std::string_view name) const {
  if (const auto found = roles.find(name); found != roles.end()) return found->second;
  std::string known;
  for (const auto& [other, position] : roles) known += (known.empty() ? "" : ", ") + other;
  throw NameError{{.tensor = std::string{name},
                   .problem = "there is no such role",
                   .expected = known.empty() ? "no name: this batch has no roles" : "one of " + known}};
}

inline ContrastBatch ContrastBatch::slice(std::size_t first, std::size_t count) const {
  if (count == 0)
    throw ValueError{{.tensor = "count", .problem = "the batch is empty", .expected = "at least one prompt"}};
  const auto [begin, end] = detail::chosen_prompts({.first = first, .size = count}, size(), {});
  ContrastBatch part{.roles = roles};
  for (std::size_t b = begin; b < end; ++b) {
    part.clean.push_back(clean[b]);
    part.corrupt.push_back(corrupt[b]);
    part.answers.push_back(answers[b]);
    part.wrong_answers.push_back(wrong_answers[b]);
    if (!tokens.empty()) part.tokens.push_back(tokens[b]);
  }
  return part;
}

#ifdef CIRCUIT_DEFINE
CIRCUIT_DEFINE ContrastBatch load_contrast_batch(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                                 const ContrastBatchOptions& options) {
  const auto root = read_json(path);
  const auto& prompts = detail::read_prompts(root, path);
  const auto [begin, end] = detail::chosen_prompts(options, prompts.size(), path);
  ContrastBatch batch{.roles = detail::read_roles(root, path, options.bos == Bos::prepend ? 1 : 0)};
  for (std::size_t i = begin; i < end; ++i) {
    const auto text = [&](const char* part) {
      const auto words = detail::prompt_part<std::string>(prompts[i], part, path, i);
      return detail::read_at(path, i, part, [&] { return tokenizer.encode(words, options.bos); });
    };
    const auto answers = [&](const char* part) {
      const auto words = detail::prompt_part<std::vector<std::string>>(prompts[i], part, path, i);
      return detail::single_tokens(tokenizer, path, i, part, words);
    };
    batch.clean.push_back(text("clean"));
    batch.corrupt.push_back(text("corrupt"));
    batch.answers.push_back(answers("answers"));
    batch.wrong_answers.push_back(answers("wrong_answers"));
    batch.tokens.push_back(detail::token_texts(tokenizer, batch.clean.back()));
  }
  detail::check_batch(batch, path, begin);
  return batch;
}
#endif

/// Reads a prompt file that holds token ids instead of texts, so that no tokenizer is needed. Its ids and word_idxs
/// count the BOS already; `options.bos` is not used.
/// throws  as load_contrast_batch
[[nodiscard]] inline ContrastBatch load_contrast_batch_ids(const std::filesystem::path& path,
                                                           const ContrastBatchOptions& options = {}) {
  const auto root = read_json(path);
  const auto& prompts = detail::read_prompts(root, path);
  const auto [begin, end] = detail::chosen_prompts(options, prompts.size(), path);
  ContrastBatch batch{.roles = detail::read_roles(root, path, 0)};
  for (std::size_t i = begin; i < end; ++i) {
    const auto ids = [&](const char* part) {
      return detail::prompt_part<std::vector<TokenId>>(prompts[i], part, path, i);
    };
    batch.clean.push_back(ids("clean"));
    batch.corrupt.push_back(ids("corrupt"));
    batch.answers.push_back(ids("answers"));
    batch.wrong_answers.push_back(ids("wrong_answers"));
  }
  detail::check_batch(batch, path, begin);
  return batch;
}

/// A batch of generated prompts; they must come from one template, so that they line up.
/// throws  ValueError  no prompts, prompts or roles that do not line up, a piece that is not one token
[[nodiscard]] inline ContrastBatch make_contrast_batch(std::span<const data::TaskPrompt> prompts,
                                                       const Tokenizer& tokenizer, Bos bos = Bos::prepend) {
  ContrastBatch batch;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto ids = [&](const char* part, const std::vector<std::string>& pieces) {
      auto encoded = tokenizer.encode(data::text_of(pieces), bos);
      if (encoded.size() == pieces.size() + (bos == Bos::prepend ? 1 : 0)) return encoded;
      auto details = detail::prompt_error({}, i, part, "a word is not one token");
      details.expected = std::to_string(pieces.size()) + " tokens";
      details.got = std::to_string(encoded.size());
      throw ValueError{std::move(details)};
    };
    batch.clean.push_back(ids("clean", prompts[i].clean));
    batch.corrupt.push_back(ids("corrupt", prompts[i].corrupt));
    batch.answers.push_back(detail::single_tokens(tokenizer, {}, i, "answers", prompts[i].answers));
    batch.wrong_answers.push_back(detail::single_tokens(tokenizer, {}, i, "wrong_answers", prompts[i].wrong_answers));
    batch.tokens.push_back(detail::token_texts(tokenizer, batch.clean.back()));
    if (prompts[i].roles != prompts[0].roles) {
      throw ValueError{detail::prompt_error({}, i, "roles", "the roles do not line up with the first prompt's")};
    }
  }
  detail::check_batch(batch, {}, 0);
  const std::int32_t shift = bos == Bos::prepend ? 1 : 0;
  for (const auto& [name, index] : prompts[0].roles) {
    batch.roles.emplace(name, Position{static_cast<std::int32_t>(index) + shift});
  }
  return batch;
}

/// Writes generated prompts of one template in the format that load_contrast_batch reads.
/// throws  ValueError  no prompts, or roles that do not line up; FileError when `path` cannot be written
inline void save_prompts(const std::filesystem::path& path, std::span<const data::TaskPrompt> prompts) {
  if (prompts.empty()) throw ValueError{{.file = path, .tensor = "prompts", .problem = "the batch is empty"}};
  nlohmann::json root;
  for (const auto& [name, index] : prompts[0].roles) root["word_idxs"][name] = index;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].roles != prompts[0].roles || prompts[i].clean.size() != prompts[0].clean.size()) {
      throw ValueError{detail::prompt_error(path, i, "roles", "the roles do not line up with the first prompt's")};
    }
    root["prompts"].push_back({{"clean", data::text_of(prompts[i].clean)},
                               {"corrupt", data::text_of(prompts[i].corrupt)},
                               {"answers", prompts[i].answers},
                               {"wrong_answers", prompts[i].wrong_answers}});
  }
  write_file(path, root.dump(1) + "\n");
}

}  // namespace circuit
