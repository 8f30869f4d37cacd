#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/threshold_ops.h>

#include "circuit/dictionary/train/activation.hpp"

namespace circuit::train {

/// The n k largest pre-activations of a batch of n tokens, where over 0: a token takes as many features as it needs.
/// The trained dictionary is a JumpReLU at the running mean of the least activation that was kept.
/// source  Bussmann et al. 2024
struct BatchTopK {
  std::int64_t k = 32;      ///< mean number of features per token
  double momentum = 0.9;    ///< of the running mean
  double threshold = -1.0;  ///< the running mean so far; below 0: none yet

  static constexpr bool rescales = false;
  static constexpr double initial_bias = 0.0;

  void start(std::int64_t d_sae, const at::Tensor& /*like*/) const { detail::check_k(k, d_sae); }

  [[nodiscard]] at::Tensor activate(const at::Tensor& pre) {
    const auto bar = bar_of(pre, k * pre.size(0));
    auto acts = at::_ops::threshold::call(pre, bar, 0.0);
    const auto least = bar > 0.0 ? bar : 0.0;
    threshold = threshold < 0.0 ? least : momentum * threshold + (1.0 - momentum) * least;
    return acts;
  }
  [[nodiscard]] Pull pull_back(const Backward& b) const {
    return {.grad_pre = detail::where_positive(b.grad_acts, b.acts)};
  }
  [[nodiscard]] std::vector<at::Tensor> params() const { return {}; }
  [[nodiscard]] activation::Any finish(const at::Tensor& /*kept*/, const at::Tensor& scale) const {
    return {activation::JumpRelu{scale.mul(std::max(threshold, 0.0))}};
  }
  template <class Use>
  void visit_state(Use&& use) {
    use("threshold", threshold);
  }

 private:
  /// What the `count` largest are over, at least 0. Few are near the running mean, and only those are put in order.
  [[nodiscard]] double bar_of(const at::Tensor& pre, std::int64_t count) const {
    auto candidates = pre.masked_select(pre.gt(std::max(threshold * 0.5, 0.0)));
    if (candidates.numel() <= count) candidates = pre.masked_select(pre.gt(0.0));
    if (candidates.numel() <= count) return 0.0;
    const auto largest = std::get<0>(candidates.topk(count + 1, 0, /*largest=*/true, /*sorted=*/false));
    return largest.min().template item<double>();
  }
};

}  // namespace circuit::train
