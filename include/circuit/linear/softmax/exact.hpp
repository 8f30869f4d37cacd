#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// Carries a gradient on attention weights back to the scores.
template <class P>
concept SoftmaxJacobian = requires(const P& p, const at::Tensor& pattern, const at::Tensor& grad) {
  { p.pull_back(pattern, grad) } -> std::same_as<at::Tensor>;
};

namespace softmax {

/// The softmax's own derivative: s_k = p_k (g_k - sum_j p_j g_j).
struct Exact {
  /// pattern, grad  [..., key_pos]  return the same shape
  [[nodiscard]] at::Tensor pull_back(const at::Tensor& pattern, const at::Tensor& grad) const {
    const auto weighted = pattern.mul(grad);
    return weighted.sub(pattern.mul(weighted.sum(-1, /*keepdim=*/true)));
  }
};

}  // namespace softmax
}  // namespace circuit
