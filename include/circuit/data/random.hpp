#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "circuit/core/error.hpp"

namespace circuit::data {

/// Random choices that come out the same on every platform. The standard's engines are specified bit for bit, its
/// distributions are not, so the bounded draws are our own.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_{seed} {}

  /// A number in [0, bound), every one equally likely.
  /// throws  ValueError  when bound is 0
  [[nodiscard]] std::size_t below(std::size_t bound) {
    if (bound == 0)
      throw ValueError{{.tensor = "bound", .problem = "nothing to choose from", .expected = "at least 1"}};
    const std::uint64_t wide = bound;
    const std::uint64_t unfair = (0 - wide) % wide;  // 2^64 mod bound: draws below it would favour small numbers
    std::uint64_t draw = engine_();
    while (draw < unfair) draw = engine_();
    return static_cast<std::size_t>(draw % wide);
  }

  /// True with probability numerator / denominator.
  [[nodiscard]] bool chance(std::size_t numerator, std::size_t denominator) { return below(denominator) < numerator; }

  /// One of `choices`, an array or vector that outlives the answer.
  template <class Choices>
  [[nodiscard]] const typename Choices::value_type& pick(const Choices& choices) {
    return choices[below(choices.size())];
  }

  /// `count` different numbers in [0, bound), in random order.
  /// throws  ValueError  when there are fewer than `count`
  [[nodiscard]] std::vector<std::size_t> distinct(std::size_t count, std::size_t bound) {
    if (count > bound) {
      throw ValueError{{.tensor = "count",
                        .problem = "not enough to choose from",
                        .expected = "at most " + std::to_string(bound),
                        .got = std::to_string(count)}};
    }
    std::vector<std::size_t> chosen;
    while (chosen.size() < count) {
      const std::size_t next = below(bound);
      bool fresh = true;
      for (const std::size_t old : chosen) fresh = fresh && old != next;
      if (fresh) chosen.push_back(next);
    }
    return chosen;
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace circuit::data
