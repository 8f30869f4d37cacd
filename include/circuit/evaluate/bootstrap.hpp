#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/data/random.hpp"

namespace circuit {

/// An estimate and the interval in which it lies for most samples like the one at hand.
struct Interval {
  double estimate = 0;
  double low = 0;
  double high = 0;
};

struct BootstrapOptions {
  std::size_t draws = 1000;
  double level = 0.95;  ///< share of the draws inside the interval
  std::uint64_t seed = 0;
};

/// A number computed from some members of a sample, each named by its index.
template <class S>
concept SampleStatistic = requires(const S& statistic, std::span<const std::size_t> members) {
  { statistic(members) } -> std::convertible_to<double>;
};

/// A percentile interval: the statistic of samples of the same size, drawn with replacement.
/// n       how many members there are, prompts or seeds
/// throws  ValueError  for no members or draws, a level outside 0 to 1, or a statistic that is not finite
/// source  Efron 1979
template <SampleStatistic S>
[[nodiscard]] Interval bootstrap(std::size_t n, const S& statistic, const BootstrapOptions& options = {}) {
  if (n == 0 || options.draws == 0 || !(options.level > 0 && options.level < 1)) {
    throw ValueError{{.tensor = "bootstrap", .expected = "members, draws, and a level between 0 and 1"}};
  }
  const auto finite = [](double value) {
    if (std::isfinite(value)) return value;
    throw ValueError{
        {.tensor = "statistic", .expected = "a finite number of every sample", .got = std::to_string(value)}};
  };
  std::vector<std::size_t> members(n);
  std::iota(members.begin(), members.end(), std::size_t{0});
  Interval out{.estimate = finite(statistic(std::span<const std::size_t>{members}))};
  data::Random random{options.seed};
  std::vector<double> drawn;
  for (std::size_t i = 0; i < options.draws; ++i) {
    for (auto& member : members) member = random.below(n);
    drawn.push_back(finite(statistic(std::span<const std::size_t>{members})));
  }
  std::sort(drawn.begin(), drawn.end());
  // Between ranks by the straight line, as numpy's percentile.
  const auto quantile = [&](double share) {
    const auto place = share * static_cast<double>(drawn.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const auto above = std::min(below + 1, drawn.size() - 1);
    return drawn[below] + (place - static_cast<double>(below)) * (drawn[above] - drawn[below]);
  };
  out.low = quantile((1 - options.level) / 2);
  out.high = quantile((1 + options.level) / 2);
  return out;
}

/// The mean of some numbers, such as a metric of each prompt.
/// throws  as bootstrap
[[nodiscard]] inline Interval bootstrap_mean(std::span<const double> values, const BootstrapOptions& options = {}) {
  return bootstrap(
      values.size(),
      [&](std::span<const std::size_t> members) {
        double sum = 0;
        for (const auto member : members) sum += values[member];
        return sum / static_cast<double>(members.size());
      },
      options);
}

/// Faithfulness, from the metrics of each prompt on the whole model, with everything taken away and with the circuit
/// alone: an evaluation's `per_prompt` of all parts, of none and of the circuit. Means come first, then their share.
/// throws  ValueError  for other numbers of prompts, and as bootstrap, a sample whose ends are equal included
[[nodiscard]] inline Interval bootstrap_faithfulness(std::span<const double> full, std::span<const double> empty,
                                                     std::span<const double> circuit,
                                                     const BootstrapOptions& options = {}) {
  if (full.size() != empty.size() || full.size() != circuit.size()) {
    throw ValueError{{.tensor = "metrics",
                      .problem = "the prompts do not line up",
                      .expected = std::to_string(full.size()) + " prompts",
                      .got = std::to_string(empty.size()) + " and " + std::to_string(circuit.size())}};
  }
  return bootstrap(
      full.size(),
      [&](std::span<const std::size_t> members) {
        double range = 0;
        double reached = 0;
        for (const auto member : members) {
          range += full[member] - empty[member];
          reached += circuit[member] - empty[member];
        }
        return reached / range;
      },
      options);
}

}  // namespace circuit
