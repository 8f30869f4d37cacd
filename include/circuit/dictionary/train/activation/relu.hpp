#pragma once

#include "circuit/dictionary/train/activation.hpp"

namespace circuit::train {

/// max(0, pre), where an active feature pays its activation times the length of its decoder row (L1). The `free`
/// strongest features of a token pay nothing, so that what matters is not shrunk.
/// source  Bricken et al. 2023; the length as in Templeton et al. 2024
struct Relu {
  Price price{};
  std::int64_t free = 0;

  static constexpr bool rescales = true;
  static constexpr double initial_bias = -0.3;

  void start(std::int64_t d_sae, const at::Tensor& /*like*/) const {
    detail::check_number(price.price, "price");
    if (free != 0) detail::check_k(free, d_sae);
  }
  [[nodiscard]] at::Tensor activate(const at::Tensor& pre) const { return pre.relu(); }

  [[nodiscard]] Pull pull_back(const Backward& b) {
    const auto n = static_cast<double>(b.acts.size(0));
    const auto each = price.price * b.price_scale / n;
    auto paying = b.acts.gt(0);
    price.follow(paying.sum().template item<double>() / n);
    if (free > 0) {
      const auto priced = b.acts.mul(b.lengths);
      const auto strongest = std::get<0>(priced.topk(free, -1)).narrow(-1, free - 1, 1);
      paying.logical_and_(priced.lt(strongest));
    }
    const auto per_length = b.acts.mul(paying).sum(0).mul_(each);  // [d_sae]
    Pull pull;
    pull.price = per_length.mul(b.lengths).sum().template item<double>();
    pull.grad_lengths = per_length;
    auto grad = b.grad_acts;
    grad.add_(paying.to(b.acts.scalar_type()).mul_(b.lengths), each);
    pull.grad_pre = detail::where_positive(grad, b.acts);
    return pull;
  }
  [[nodiscard]] std::vector<at::Tensor> params() const { return {}; }
  [[nodiscard]] activation::Any finish(const at::Tensor& /*kept*/, const at::Tensor& /*scale*/) const { return {}; }
  template <class Use>
  void visit_state(Use&& use) {
    use("price", price.price);
  }
};

}  // namespace circuit::train
