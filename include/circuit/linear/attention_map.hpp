#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/linear/post_norm.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// What a layer's attention, its pattern and scale held at a recorded run, makes of another residual stream: the linear
/// part of its output, without constants.
/// run     of the layer's own pattern and scale
/// x       [batch, pos, d_model]  before the attention
/// return  [batch, pos, d_model]
template <Architecture A>
[[nodiscard]] at::Tensor attention_map(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer,
                                       const at::Tensor& x);

/// The rest of its output: what norm biases, value bias and output bias add at every position. [d_model], or
/// [batch, pos, d_model] behind a post-norm, or undefined
template <Architecture A>
[[nodiscard]] at::Tensor attention_map_constant(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer);

/// A constant of attention's output behind the post-norm, its scale held at a run; unchanged where there is no such norm.
/// constant  [d_model], or undefined
/// return    [batch, pos, d_model] behind a post-norm, since the scale is each position's own
template <Architecture A>
[[nodiscard]] at::Tensor behind_post_norm(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer,
                                          const at::Tensor& constant) {
  if constexpr (A::Wiring::post_norms) {
    const auto& norm = model.weights().blocks[static_cast<std::size_t>(layer.value)].ln1_post;
    const auto& scale = run.get<hook::ln1_post::scale>(layer);
    return constant_behind<typename A::Norm>(norm, scale, constant);
  } else {
    return constant;
  }
}

/// The residual stream before a layer of a recorded run. [batch, pos, d_model]
template <Architecture A>
[[nodiscard]] at::Tensor stream_before(const FrozenRun& run, Layer layer) {
  if (layer.value > 0) return run.get<hook::resid_post>(Layer{layer.value - 1});
  if constexpr (A::Positions::adds_embedding) return run.get<hook::embed>().add(run.get<hook::pos_embed>());
  return run.get<hook::embed>();
}

}  // namespace circuit

namespace circuit {

template <Architecture A>
at::Tensor attention_map(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer, const at::Tensor& x) {
  using Norm = typename A::Norm;
  const auto& config = model.config();
  const auto& w = model.weights().blocks[static_cast<std::size_t>(layer.value)];
  const NormWeights linear{w.ln1.gain, {}};
  const auto read = Norm::output(Norm::normalized(x, run.get<hook::ln1::scale>(layer), linear), linear);
  const auto v =
      detail::per_query_head(detail::split_heads(product(read, w.attn.W_V), config.n_key_value_heads), config.n_heads);
  const auto z = run.get<hook::attn::pattern>(layer).matmul(v).transpose(1, 2);
  const auto out = product(z.flatten(2), w.attn.W_O);
  if constexpr (A::Wiring::post_norms)
    return Norm::unscaled(out, w.ln1_post).div(run.get<hook::ln1_post::scale>(layer));
  return out;
}

template <Architecture A>
at::Tensor attention_map_constant(const HookedTransformer<A>& model, const FrozenRun& run, Layer layer) {
  const auto& config = model.config();
  const auto& w = model.weights().blocks[static_cast<std::size_t>(layer.value)];
  at::Tensor value = w.attn.b_V;
  if (w.ln1.bias.defined()) value = affine(w.ln1.bias.unsqueeze(0), w.attn.W_V, w.attn.b_V).squeeze(0);
  if (!value.defined()) return behind_post_norm(model, run, layer, w.attn.b_O);
  // A row of a pattern sums to 1, so every position receives the value's constant whole.
  const auto heads = detail::repeat_for_query_heads(value, config).unsqueeze(0);
  return behind_post_norm(model, run, layer, affine(heads, w.attn.W_O, w.attn.b_O).squeeze(0));
}

}  // namespace circuit
