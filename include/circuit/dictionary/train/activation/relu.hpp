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
    const auto each = price.price * b.price_scale / static_cast<double>(b.acts.size(0));
    price.follow(b.active);
    auto grad = b.grad_acts;
    grad.add_(b.lengths, each);   // inactive features are left out below
    auto paying = b.acts.sum(0);  // [d_sae] activations that are paid for
    if (free > 0) {
      const auto strongest = std::get<1>(b.acts.mul(b.lengths).topk(free, -1, /*largest=*/true, /*sorted=*/false));
      const auto flat = strongest.flatten();
      grad.scatter_add_(-1, strongest, b.lengths.index_select(0, flat).mul_(-each).view(strongest.sizes()));
      paying.index_add_(0, flat, b.acts.gather(-1, strongest).flatten().neg_());
    }
    Pull pull;
    pull.grad_lengths = paying.mul_(each);
    pull.price = pull.grad_lengths.dot(b.lengths).template item<double>();
    pull.grad_pre = detail::where_positive(std::move(grad), b.acts);
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
