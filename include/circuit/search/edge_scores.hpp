#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <tuple>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/edge.hpp"

namespace circuit {

/// How a chosen attribution of every candidate edge into some targets came out, for a policy to decide on.
/// Rows are the targets of one layer and edge type, columns upstream nodes; what a target cannot read is 0.
struct EdgeScores {
  EdgeType type{};
  at::Tensor mean;       ///< [targets, sources] float64  mean over prompts, with its sign
  at::Tensor passed;     ///< [targets, sources] int32  prompts that passed on their own; only where a rule counts them
  std::int64_t prompts;  ///< how many prompts the mean is over

  [[nodiscard]] at::Tensor magnitude() const { return mean.abs(); }
};

/// Which candidates are kept. `kept` has the scores' shape.
struct EdgeMask {
  at::Tensor kept;  ///< [targets, sources] bool
};

/// Decides which edges a circuit keeps, and whether one prompt's own attribution would pass.
template <class K>
concept KeepRule = requires(const K& k, const EdgeScores& scores, double score) {
  { k.keep(scores) } -> std::same_as<EdgeMask>;
  { k.passes(score) } -> std::same_as<bool>;
};

/// A rule that needs `EdgeScores::passed`.
template <class K>
concept CountsPrompts = KeepRule<K> && K::counts_prompts;

/// The n largest of each row, zeros left out.
[[nodiscard]] inline EdgeMask top_n_per_target(const at::Tensor& magnitude, std::int64_t n) {
  auto kept = make::zeros(magnitude.sizes(), magnitude.options().dtype(at::kBool));
  const auto count = std::min(n, magnitude.size(-1));
  if (count <= 0) return {kept};
  const auto best = std::get<1>(magnitude.topk(count, -1));
  kept.scatter_(-1, best, true);
  return {kept.logical_and(magnitude.gt(0))};
}

/// The n largest of all, zeros left out.
[[nodiscard]] inline EdgeMask top_n(const at::Tensor& magnitude, std::int64_t n) {
  return {top_n_per_target(magnitude.reshape({1, -1}), n).kept.view(magnitude.sizes())};
}

}  // namespace circuit
