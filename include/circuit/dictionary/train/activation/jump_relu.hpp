#pragma once

#include "circuit/dictionary/train/activation.hpp"

namespace circuit::train {

/// pre where it is over the feature's threshold, else 0; an active feature pays 1 (L0). Thresholds are trained through
/// the rectangle kernel of width `bandwidth`: neither the jump nor the count has a gradient of its own.
/// source  Rajamanoharan et al. 2024, section 3 and appendix on pseudo-derivatives
struct JumpRelu {
  Price price{.price = 1e-3};
  double bandwidth = 0.05;  ///< in units in which inputs have mean squared length 1
  double initial_threshold = 0.1;
  at::Tensor log_threshold{};  ///< [d_sae]  a parameter

  static constexpr bool rescales = true;
  static constexpr double initial_bias = 0.0;

  void start(std::int64_t d_sae, const at::Tensor& like) {
    detail::check_number(price.price, "price");
    detail::check_number(bandwidth, "bandwidth", /*zero_allowed=*/false);
    detail::check_number(initial_threshold, "initial_threshold", /*zero_allowed=*/false);
    log_threshold = make::full({d_sae}, initial_threshold, like.options()).log_();
  }
  [[nodiscard]] at::Tensor activate(const at::Tensor& pre) const {
    return pre.masked_fill(pre.le(log_threshold.exp()), 0.0);
  }

  [[nodiscard]] Pull pull_back(const Backward& b) {
    const auto each = price.price * b.price_scale / static_cast<double>(b.acts.size(0));
    const auto threshold = log_threshold.exp();
    // d activation / d threshold = -(threshold / bandwidth) near, d count / d threshold = -(1 / bandwidth) near
    const auto near = b.pre.sub(threshold).abs_().lt(bandwidth / 2).flatten().nonzero().squeeze(-1);  // few
    const auto features = near.remainder(b.pre.size(1));
    const auto through =
        b.grad_acts.flatten().index_select(0, near).mul_(threshold.index_select(0, features)).add_(each);
    auto grad = make::zeros_like(threshold).index_add_(0, features, through).mul_(-1.0 / bandwidth);
    Pull pull;
    pull.price = each * b.active * static_cast<double>(b.acts.size(0));
    pull.grads = {grad.mul_(threshold)};
    pull.grad_pre = detail::where_positive(b.grad_acts, b.acts);
    price.follow(b.active);
    return pull;
  }
  [[nodiscard]] std::vector<at::Tensor> params() const { return {log_threshold}; }
  [[nodiscard]] activation::Any finish(const at::Tensor& kept, const at::Tensor& scale) const {
    return {activation::JumpRelu{log_threshold.exp().index_select(0, kept).mul(scale)}};
  }
  template <class Use>
  void visit_state(Use&& use) {
    use("price", price.price);
  }
};

}  // namespace circuit::train
