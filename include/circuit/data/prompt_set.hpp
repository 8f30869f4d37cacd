#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/contrast_batch.hpp"

namespace circuit {

/// A contrast pair on its own: clean and corrupt have one length, and the roles stand at the same places in both.
struct RolePrompt {
  std::vector<TokenId> clean{};
  std::vector<TokenId> corrupt{};
  std::vector<TokenId> answers{};                        ///< one or more
  std::vector<TokenId> wrong_answers{};                  ///< any number
  std::map<std::string, Position, std::less<>> roles{};  ///< the last token of what each role names
  std::vector<std::string> tokens{};                     ///< the clean tokens as text
};

/// Prompts of one length with roles at the same places, and which of a set they are.
struct PromptGroup {
  ContrastBatch batch{};
  std::vector<std::size_t> members{};
};

/// Prompts of any lengths, whose parts are addressed by role. They run padded, or group by group.
struct PromptSet {
  std::vector<RolePrompt> prompts{};
  std::size_t skipped = 0;  ///< how many a reader left out, where it was asked to

  [[nodiscard]] std::size_t size() const noexcept { return prompts.size(); }

  /// Where a role stands in each prompt: what metrics and interventions take as one position for each.
  /// throws  NameError  when a prompt has no such role
  [[nodiscard]] std::vector<Position> positions(std::string_view role) const {
    std::vector<Position> out;
    for (std::size_t i = 0; i < size(); ++i) {
      const auto found = prompts[i].roles.find(role);
      if (found == prompts[i].roles.end()) {
        throw NameError{{.tensor = std::string{role}, .problem = "prompt " + std::to_string(i) + " has no such role"}};
      }
      out.push_back(found->second);
    }
    return out;
  }
  [[nodiscard]] std::vector<std::int64_t> lengths() const {
    std::vector<std::int64_t> out;
    for (const auto& prompt : prompts) out.push_back(static_cast<std::int64_t>(prompt.clean.size()));
    return out;
  }
  /// Each prompt's last position, where its answer is read.
  [[nodiscard]] std::vector<Position> last() const {
    std::vector<Position> out;
    for (const auto length : lengths()) out.emplace_back(static_cast<std::int32_t>(length - 1));
    return out;
  }

  /// All prompts as one batch without roles, filled up on the right with any token there is. No mask is needed and none
  /// is approximate: a causal model's prompts do not see what stands behind them, and keep their positions. What is
  /// computed at the filling is read by nobody, as long as metrics read `last()` or up to `lengths()`.
  /// throws  ValueError  for no prompts
  [[nodiscard]] ContrastBatch padded(TokenId filler) const;

  /// The prompts by length and places of roles, in the order of each group's first.
  [[nodiscard]] std::vector<PromptGroup> groups() const;
};

/// What becomes of a pair that cannot be used: clean and corrupt of different lengths or with roles at different
/// places, or an answer of several tokens.
enum class Unfit : std::uint8_t { refuse, skip };

struct PromptSetOptions {
  Bos bos = Bos::prepend;
  Unfit unfit = Unfit::refuse;
};

/// Generated prompts as any tokenizer writes them: a piece may be several tokens.
/// throws  ValueError  no prompts left, and what Unfit::refuse refuses
[[nodiscard]] inline PromptSet make_prompt_set(std::span<const data::TaskPrompt> prompts, const Tokenizer& tokenizer,
                                               const PromptSetOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

/// For each piece the token that holds its last byte, counted in `encode(text, bos)`.
[[nodiscard]] inline std::vector<Position> last_tokens(const Tokenizer& tokenizer, Bos bos,
                                                       std::span<const std::string> pieces) {
  const auto encoding = tokenizer.encode_with_offsets(data::text_of(pieces), bos);
  std::vector<Position> out;
  std::size_t end = 0;
  std::size_t token = 0;
  for (const auto& piece : pieces) {
    end += piece.size();
    while (token + 1 < encoding.ids.size() && encoding.offsets[token].end < end) ++token;
    out.emplace_back(static_cast<std::int32_t>(token));
  }
  return out;
}

/// Adds what `make` gives, or counts it as skipped when it is unfit and that is wished.
template <class Make>
void add_prompt(PromptSet& set, Unfit unfit, Make&& make) {
  try {
    set.prompts.push_back(make());
  } catch (const ValueError&) {
    if (unfit == Unfit::refuse) throw;
    ++set.skipped;
  }
}

/// throws  ValueError  for a pair that does not line up or has no answer
inline void check_prompt(const RolePrompt& prompt, const std::filesystem::path& file, std::size_t number) {
  check_batch({.clean = {prompt.clean},
               .corrupt = {prompt.corrupt},
               .answers = {prompt.answers},
               .wrong_answers = {prompt.wrong_answers},
               .roles = prompt.roles},
              file, number);
}

inline void check_any(const PromptSet& set, const std::filesystem::path& file = {}) {
  if (set.size() > 0) return;
  throw ValueError{{.file = file,
                    .tensor = "prompts",
                    .problem = "the set is empty",
                    .expected = "at least one prompt",
                    .got = std::to_string(set.skipped) + " that were left out"}};
}

}  // namespace circuit::detail

inline circuit::ContrastBatch circuit::PromptSet::padded(TokenId filler) const {
  detail::check_any(*this);
  std::size_t length = 0;
  for (const auto& prompt : prompts) length = std::max(length, prompt.clean.size());
  ContrastBatch batch;
  for (const auto& prompt : prompts) {
    for (const auto& [from, to] : {std::pair{&prompt.clean, &batch.clean}, {&prompt.corrupt, &batch.corrupt}}) {
      to->push_back(*from);
      to->back().resize(length, filler);
    }
    batch.answers.push_back(prompt.answers);
    batch.wrong_answers.push_back(prompt.wrong_answers);
    batch.tokens.push_back(prompt.tokens);
    batch.tokens.back().resize(length);
  }
  detail::check_batch(batch, {}, 0);
  return batch;
}

inline std::vector<circuit::PromptGroup> circuit::PromptSet::groups() const {
  std::vector<PromptGroup> out;
  for (std::size_t i = 0; i < size(); ++i) {
    const auto& prompt = prompts[i];
    auto group = std::find_if(out.begin(), out.end(), [&](const PromptGroup& g) {
      return g.batch.length() == prompt.clean.size() && g.batch.roles == prompt.roles;
    });
    if (group == out.end()) group = out.insert(out.end(), PromptGroup{.batch = {.roles = prompt.roles}});
    group->batch.clean.push_back(prompt.clean);
    group->batch.corrupt.push_back(prompt.corrupt);
    group->batch.answers.push_back(prompt.answers);
    group->batch.wrong_answers.push_back(prompt.wrong_answers);
    group->batch.tokens.push_back(prompt.tokens);
    group->members.push_back(i);
  }
  return out;
}

inline circuit::PromptSet circuit::make_prompt_set(std::span<const data::TaskPrompt> prompts,
                                                   const Tokenizer& tokenizer, const PromptSetOptions& options) {
  PromptSet set;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    detail::add_prompt(set, options.unfit, [&] {
      const auto& from = prompts[i];
      RolePrompt to{.clean = tokenizer.encode(data::text_of(from.clean), options.bos),
                    .corrupt = tokenizer.encode(data::text_of(from.corrupt), options.bos),
                    .answers = detail::single_tokens(tokenizer, {}, i, "answers", from.answers),
                    .wrong_answers = detail::single_tokens(tokenizer, {}, i, "wrong_answers", from.wrong_answers)};
      const auto places = detail::last_tokens(tokenizer, options.bos, from.clean);
      const auto corrupt = detail::last_tokens(tokenizer, options.bos, from.corrupt);
      for (const auto& [role, piece] : from.roles) {
        if (places[piece] != corrupt[piece]) {
          throw ValueError{detail::prompt_error({}, i, "roles", "\"" + role + "\" stands elsewhere when corrupt")};
        }
        to.roles.emplace(role, places[piece]);
      }
      to.tokens = detail::token_texts(tokenizer, to.clean);
      detail::check_prompt(to, {}, i);
      return to;
    });
  }
  detail::check_any(set);
  return set;
}
