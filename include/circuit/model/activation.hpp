#pragma once

#include <concepts>
#include <numbers>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// Pointwise nonlinearity of an MLP.
template <class A>
concept MlpActivation = requires(const at::Tensor& x) {
  { A::apply(x) } -> std::same_as<at::Tensor>;
};

/// One that is its input times a factor, known without dividing.
template <class A>
concept RatioActivation = MlpActivation<A> && requires(const at::Tensor& x) {
  { A::ratio(x) } -> std::same_as<at::Tensor>;
};

namespace activation {

/// GELU in GPT-2's tanh form (`gelu_new`): 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
struct GeluNew {
  static constexpr std::string_view name = "gelu_new";
  [[nodiscard]] static at::Tensor apply(const at::Tensor& x);
  [[nodiscard]] static at::Tensor ratio(const at::Tensor& x);
};

/// x times the Gaussian distribution function.
struct Gelu {
  static constexpr std::string_view name = "gelu";
  [[nodiscard]] static at::Tensor apply(const at::Tensor& x);
  [[nodiscard]] static at::Tensor ratio(const at::Tensor& x);
};

/// x times its sigmoid.
struct Silu {
  static constexpr std::string_view name = "silu";
  [[nodiscard]] static at::Tensor apply(const at::Tensor& x) { return x.mul(x.sigmoid()); }
  [[nodiscard]] static at::Tensor ratio(const at::Tensor& x) { return x.sigmoid(); }
};

}  // namespace activation
}  // namespace circuit

namespace circuit::activation {

inline at::Tensor GeluNew::apply(const at::Tensor& x) { return make::gelu(x, "tanh"); }
inline at::Tensor GeluNew::ratio(const at::Tensor& x) {
  const auto inner = x.pow(3).mul(0.044715).add(x).mul(std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
  return inner.tanh().add(1.0).mul(0.5);
}
inline at::Tensor Gelu::ratio(const at::Tensor& x) { return x.div(std::numbers::sqrt2).erf().add(1.0).mul(0.5); }
inline at::Tensor Gelu::apply(const at::Tensor& x) { return make::gelu(x, "none"); }

}  // namespace circuit::activation
