#pragma once

#include "circuit/dictionary/train/activation.hpp"

namespace circuit::train {

/// The k largest pre-activations of a token, where over 0.
/// source  Gao et al. 2024
struct TopK {
  std::int64_t k = 32;

  static constexpr bool rescales = false;
  static constexpr double initial_bias = 0.0;

  void start(std::int64_t d_sae, const at::Tensor& /*like*/) const { detail::check_k(k, d_sae); }
  [[nodiscard]] at::Tensor activate(const at::Tensor& pre) const {
    const auto [values, places] = pre.topk(k, -1, /*largest=*/true, /*sorted=*/false);
    return make::zeros_like(pre).scatter_(-1, places, values.relu());
  }
  [[nodiscard]] Pull pull_back(const Backward& b) const {
    return {.grad_pre = detail::where_positive(b.grad_acts, b.acts)};
  }
  [[nodiscard]] std::vector<at::Tensor> params() const { return {}; }
  [[nodiscard]] activation::Any finish(const at::Tensor& kept, const at::Tensor& /*scale*/) const {
    return {activation::TopK{.k = std::min(k, kept.size(0))}};
  }
  template <class Use>
  void visit_state(Use&& /*use*/) const {}
};

}  // namespace circuit::train
