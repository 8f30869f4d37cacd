#pragma once

#include <algorithm>
#include <cmath>

#include "circuit/search/edge_scores.hpp"

namespace circuit::keep {

/// Edges whose own attribution is over the threshold in at least a share of the prompts.
struct ShareOfPrompts {
  static constexpr bool counts_prompts = true;

  double threshold = 0.0;
  double share = 0.5;  ///< 0 asks for any one prompt

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const {
    const auto needed = std::max(1.0, std::ceil(share * static_cast<double>(scores.prompts) - 1e-9));
    return {scores.passed.ge(needed)};
  }
  [[nodiscard]] bool passes(double score) const { return std::abs(score) > threshold; }
};

/// Edges that pass in at least one prompt.
struct AnyPrompt {
  static constexpr bool counts_prompts = true;

  double threshold = 0.0;

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const { return {scores.passed.ge(1)}; }
  [[nodiscard]] bool passes(double score) const { return std::abs(score) > threshold; }
};

}  // namespace circuit::keep
