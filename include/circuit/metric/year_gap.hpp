#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/metric/probability.hpp"
#include "circuit/text/tokenizer.hpp"

namespace circuit {

/// The tokens with which a year may go on once its century is written.
struct YearTokens {
  std::vector<std::int64_t> ids{};  ///< of "00" to "99", or of "0" to "9", by number
  int digits = 0;                   ///< how many digits a token has: 2 or 1

  /// throws  ValueError  when the tokenizer writes neither two digits nor one as one token
  [[nodiscard]] static YearTokens of(const Tokenizer& tokenizer) {
    const auto all = [&](int width) {
      std::vector<std::int64_t> numbers;
      for (int number = 0; number < (width == 2 ? 100 : 10); ++number) {
        const auto text = (width == 2 && number < 10 ? "0" : "") + std::to_string(number);
        const auto encoded = tokenizer.encode(text);
        if (encoded.size() != 1) return std::vector<std::int64_t>{};
        numbers.push_back(encoded.front());
      }
      return numbers;
    };
    for (const int digits : {2, 1}) {
      if (auto ids = all(digits); !ids.empty()) return {std::move(ids), digits};
    }
    throw ValueError{{.tensor = "tokenizer", .expected = "one token for each two digits, or for each digit"}};
  }
};

/// Greater-than's year gap: the probability that a year goes on above a start, minus the probability that it goes on at
/// or below it. Of a tokenizer that writes digit by digit the next token is the tens digit; there the start's own tens,
/// with which both can be, count on neither side.
/// starts  [batch] last two digits of each prompt's first year, 0 to 99
/// throws  ValueError  for no prompts, or a start on one side of which no token is
/// source  Hanna et al. 2023, arXiv 2305.00586
[[nodiscard]] inline ProbabilityDifference year_gap(const YearTokens& tokens, std::span<const int> starts,
                                                    Reading reading = {}) {
  std::vector<std::vector<std::int64_t>> above;
  std::vector<std::vector<std::int64_t>> below;
  for (std::size_t b = 0; b < starts.size(); ++b) {
    const auto start = static_cast<std::size_t>(starts[b] < 0 || starts[b] > 99 ? 100 : starts[b]);
    const bool whole = tokens.digits == 2;
    const auto pivot = whole ? start : start / 10;
    auto& right = above.emplace_back();
    auto& wrong = below.emplace_back();
    for (std::size_t number = 0; number < tokens.ids.size(); ++number) {
      if (number > pivot) right.push_back(tokens.ids[number]);
      if (number < pivot || (whole && number == pivot)) wrong.push_back(tokens.ids[number]);
    }
    if (right.empty() || wrong.empty()) {
      throw ValueError{{.tensor = "start of prompt " + std::to_string(b),
                        .problem = "years on both sides of it must have tokens",
                        .expected = whole ? "0 to 98" : "10 to 89",
                        .got = std::to_string(starts[b])}};
    }
  }
  return {std::move(above), std::move(below), std::move(reading)};
}

}  // namespace circuit
