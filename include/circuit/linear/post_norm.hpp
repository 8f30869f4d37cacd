#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/linear/dictionaries.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// Whether what MLP features write passes the layer's post-norm on its way into the stream, as a neuron's does. Other
/// dictionaries of an MLP describe hook_mlp_out, which lies behind it.
template <Architecture A, Dictionaries Set>
inline constexpr bool mlp_writes_pass_post_norm = A::Wiring::post_norms && describes_own_units<Set>;

/// A constant of a module's output behind the module's post-norm, its scale held at a run.
/// constant  [d_model], or undefined   scale  [batch, pos, 1]
/// return    [batch, pos, d_model], since the scale is each position's own
template <Norm N>
[[nodiscard]] at::Tensor constant_behind(const NormWeights& norm, const at::Tensor& scale, const at::Tensor& constant) {
  if (!constant.defined()) return norm.bias;
  const auto linear = N::unscaled(constant, norm).div(scale);
  return norm.bias.defined() ? linear.add(norm.bias) : linear;
}

/// Gradients at hook_mlp_out of all prompts as gradients at what the set's MLP features write.
/// grads  [batch, pos, d_model]
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor at_mlp_writes(const HookedTransformer<A>& model, const Set& /*dictionaries*/,
                                       const FrozenRun& run, Layer layer, const at::Tensor& grads) {
  if constexpr (mlp_writes_pass_post_norm<A, Set>) {
    const auto& norm = model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2_post;
    return A::Norm::pull_back(grads, run.get<hook::ln2_post::scale>(layer), norm);
  } else {
    return grads;
  }
}

}  // namespace circuit
