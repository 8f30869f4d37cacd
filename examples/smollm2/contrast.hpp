#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/contrast_batch.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/text/tokenizer.hpp"

namespace smollm2 {

/// Contrast pairs of one template, "When Alice and Bob got to the store, Bob gave a ring to" or with the two names the
/// other way round, every word one token, so that a position means the same in all of them. The corrupt prompt has
/// three names that are not in the clean one. throws  ValueError  when the tokenizer splits too many of the words
[[nodiscard]] inline circuit::ContrastBatch draw_contrast(const circuit::Tokenizer& tokenizer,
                                                          circuit::data::IoiOrder order, std::size_t count,
                                                          std::uint64_t seed) {
  using namespace circuit;
  data::Random random{seed};
  ContrastBatch batch;
  std::set<std::string> seen;
  for (std::size_t drawn = 0; batch.size() < count; ++drawn) {
    if (drawn > 1000 * count) {
      throw ValueError{{.tensor = "names", .problem = "this tokenizer splits nearly all of them"}};
    }
    const auto prompt = data::make_ioi(
        random, {.order = order, .distractor = data::IoiDistractor::none, .opening = 16, .action = 0, .aside = false});
    const auto text = data::text_of(prompt.clean);
    auto clean = tokenizer.encode(text, Bos::none);
    auto corrupt = tokenizer.encode(data::text_of(prompt.corrupt), Bos::none);
    const auto pieces = prompt.clean.size();
    if (clean.size() != pieces || corrupt.size() != pieces || !seen.insert(text).second) continue;
    const auto one = [&](const std::string& word) { return tokenizer.encode(word, Bos::none).size() == 1; };
    if (!one(prompt.answers.front()) || !one(prompt.wrong_answers.front())) continue;
    batch.clean.push_back(std::move(clean));
    batch.corrupt.push_back(std::move(corrupt));
    batch.answers.push_back({tokenizer.single_token(prompt.answers.front())});
    batch.wrong_answers.push_back({tokenizer.single_token(prompt.wrong_answers.front())});
    for (const auto& [role, piece] : prompt.roles) batch.roles[role] = Position{static_cast<std::int32_t>(piece)};
  }
  return batch;
}

}  // namespace smollm2
