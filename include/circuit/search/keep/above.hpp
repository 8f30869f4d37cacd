#pragma once

#include <cmath>

#include "circuit/search/edge_scores.hpp"

namespace circuit::keep {

/// throws  ValueError  for NaN, over which nothing is
inline void check_threshold(double threshold) {
  if (std::isnan(threshold)) throw ValueError{{.tensor = "threshold", .expected = "a number", .got = "NaN"}};
}

/// Edges whose mean attribution is larger than a threshold, whatever its sign.
struct Above {
  double threshold = 0.0;  ///< units of the score: the metric's for chained scores

  /// throws  as check_threshold
  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const {
    check_threshold(threshold);
    return {scores.magnitude().gt(threshold)};
  }
  [[nodiscard]] bool passes(double score) const { return std::abs(score) > threshold; }
};

/// Edges whose mean attribution is positive and larger than a threshold, as the Python seed has it.
struct PositiveAbove {
  double threshold = 0.0;

  /// throws  as check_threshold
  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const {
    check_threshold(threshold);
    return {scores.mean.gt(threshold)};
  }
  [[nodiscard]] bool passes(double score) const { return score > threshold; }
};

}  // namespace circuit::keep
