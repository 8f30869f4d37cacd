#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"
#include "circuit/model/activation.hpp"
#include "circuit/model/gradient.hpp"

namespace circuit {

/// How much of a gated neuron's activation act(gate) * linear is read through each of its factors:
/// `of_linear * linear + of_gate * gate`.
struct GateShare {
  at::Tensor of_linear;  ///< [n]
  at::Tensor of_gate;    ///< [n], or undefined: nothing
};

/// Splits a gated neuron between its factors, at a run.
template <class G>
concept GateRule = requires(const G& g, const at::Tensor& x) {
  { g.template share<activation::Silu>(x, x) } -> std::same_as<GateShare>;
};

/// What stands for the nonlinearity of an ungated neuron at a run: d activation / d pre-activation, or another factor.
template <class S>
concept SlopeRule = requires(const S& s, const at::Tensor& pre) {
  { s.template of<activation::Gelu>(pre) } -> std::same_as<at::Tensor>;
};

namespace gate {

/// The gate's activation is a frozen factor: the neuron reads through its linear branch alone. Complete.
struct Frozen {
  template <MlpActivation Act>
  [[nodiscard]] GateShare share(const at::Tensor& gate, const at::Tensor& /*linear*/) const {
    return {Act::apply(gate), {}};
  }
};

/// Both factors at half weight, the activation by its ratio act(gate) / gate. Complete.
struct Half {
  template <RatioActivation Act>
  [[nodiscard]] GateShare share(const at::Tensor& gate, const at::Tensor& linear) const {
    const auto ratio = Act::ratio(gate);
    return {gate.mul(ratio).mul(0.5), linear.mul(ratio).mul(0.5)};
  }
};

}  // namespace gate

namespace slope {

/// The derivative act'(pre): exact to first order, not complete.
struct Derivative {
  template <MlpActivation Act>
  [[nodiscard]] at::Tensor of(const at::Tensor& pre) const {
    const c10::AutoGradMode with_gradient{true};
    const auto leaf = pre.detach().requires_grad_(true);
    return gradient_of(Act::apply(leaf).sum(), {leaf})[0];
  }
};

/// act(pre) / pre: complete, so that attributions sum to the activation.
struct Ratio {
  template <RatioActivation Act>
  [[nodiscard]] at::Tensor of(const at::Tensor& pre) const {
    return Act::ratio(pre);
  }
};

}  // namespace slope
}  // namespace circuit
