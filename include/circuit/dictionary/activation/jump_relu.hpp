#pragma once

#include <cstdint>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation.hpp"

namespace circuit::activation {

/// max(0, pre) where pre is over the feature's threshold, else 0. What was trained as BatchTopK is this too, with one
/// threshold for all features; so is a gated SAE (activation/gated.hpp).
/// source  Rajamanoharan et al. 2024 (JumpReLU); Bussmann et al. 2024 (BatchTopK at inference)
struct JumpRelu {
  at::Tensor threshold;  ///< [d_sae]

  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const {
    return pre.relu().mul(pre.gt(threshold).to(pre.scalar_type()));
  }
  [[nodiscard]] JumpRelu of_features(const at::Tensor& features) const { return {threshold.index_select(0, features)}; }
  /// 1: the threshold is frozen, and so is which side of it a feature lies on.
  [[nodiscard]] at::Tensor slope(const at::Tensor& /*pre*/, const at::Tensor& act) const {
    return act.mul(0.0).add(1.0);
  }

  /// throws  ShapeError  unless there is one threshold per feature
  void check(std::int64_t d_sae) const { check_shape(threshold, {d_sae}, "threshold"); }
};

}  // namespace circuit::activation
