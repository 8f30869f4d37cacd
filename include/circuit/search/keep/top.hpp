#pragma once

#include <cstdint>

#include "circuit/core/make.hpp"
#include "circuit/search/edge_scores.hpp"

namespace circuit::keep {

/// The n edges of largest magnitude in each layer and of each type.
struct TopPerLayer {
  std::int64_t n = 10;

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const { return top_n(scores.magnitude(), n); }
  [[nodiscard]] bool passes(double score) const { return score != 0.0; }
};

/// The n edges of largest magnitude into each target, of each type.
struct TopPerTarget {
  std::int64_t n = 10;

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const { return top_n_per_target(scores.magnitude(), n); }
  [[nodiscard]] bool passes(double score) const { return score != 0.0; }
};

/// For each target and type, the fewest edges that together hold a share of the magnitude.
struct CumulativeShare {
  double share = 0.8;

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const;
  [[nodiscard]] bool passes(double score) const { return score != 0.0; }
};

/// Every edge there is.
struct All {
  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const {
    return {make::ones(scores.mean.sizes(), scores.mean.options().dtype(at::kBool))};
  }
  [[nodiscard]] bool passes(double /*score*/) const { return true; }
};

}  // namespace circuit::keep

namespace circuit {

inline EdgeMask keep::CumulativeShare::keep(const EdgeScores& scores) const {
  const auto [sorted, order] = scores.magnitude().sort(-1, /*descending=*/true);
  const auto before = sorted.cumsum(-1).sub(sorted);  // what the larger ones hold already
  const auto wanted = before.lt(sorted.sum(-1, /*keepdim=*/true).mul(share)).logical_and(sorted.gt(0));
  auto kept = make::zeros(wanted.sizes(), wanted.options());
  return {kept.scatter(-1, order, wanted)};
}

}  // namespace circuit
