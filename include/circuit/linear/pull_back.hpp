#pragma once

#include <concepts>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/linear/attention_map.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/linear/mlp_derivative.hpp"
#include "circuit/linear/softmax/exact.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// How readers see what lies before a module (or a part of one), and what they see of its constants.
struct Pulled {
  at::Tensor grad;         ///< d reader / d residual: [n, d_model] at the reader's position, or [n, pos, d_model]
  at::Tensor constant;     ///< [n]  what the module's own biases give the reader
  at::Tensor remainder{};  ///< [n]  what it reads of a module that is not linear, less what its derivative explains;
                           ///< undefined: nothing
};

/// Whether the scales of the norms before modules move with the stream that they normalise.
enum class Scales {
  frozen,  ///< held at the run, so that effects add up to what a target reads
  live,    ///< the true derivative
};

/// Gradients of readers with respect to the residual stream, on one prompt of a recorded run, everything but the
/// reader's own path frozen. A reader is a linear functional: of ln2.hook_normalized for MLP features, of hook_z (heads
/// concatenated) for attention features. All formulas are exact; `Softmax` gives the derivative of the pattern.
template <Architecture A, SoftmaxJacobian Softmax = softmax::Exact>
class PullBack {
 public:
  /// throws  ConfigError  for live scales where heads or outputs pass norms of their own
  PullBack(const HookedTransformer<A>& model, const FrozenRun& run, Softmax softmax = {},
           Scales scales = Scales::frozen)
      : model_{&model}, run_{&run}, softmax_{softmax}, scales_{scales} {
    const bool other_norms = A::Wiring::post_norms || model.weights().blocks.front().attn.q_gain.defined();
    if (other_norms && scales == Scales::live) {
      throw ConfigError{{.tensor = "Scales::live",
                         .problem = "is not there for models that normalise heads or outputs",
                         .hint = "use Scales::frozen"}};
    }
  }

  /// Through the norm before the MLP.
  /// readers    [n, d_model]  functionals of ln2.hook_normalized
  /// positions  [n] int64     where each stands
  /// return     grad [n, d_model]
  [[nodiscard]] Pulled mlp(Layer layer, Prompt prompt, const at::Tensor& readers, const at::Tensor& positions) const;

  /// Functionals of the stream itself, before the MLP.
  [[nodiscard]] Pulled stream(Layer /*layer*/, Prompt /*prompt*/, const at::Tensor& readers,
                              const at::Tensor& /*positions*/) const {
    return {readers, no_constant(readers)};
  }
  /// Through the MLP, by its derivative at the run, and the norm before it.
  /// readers  [n, d_model]  functionals of hook_mlp_out
  [[nodiscard]] Pulled mlp_output(Layer layer, Prompt prompt, const at::Tensor& readers,
                                  const at::Tensor& positions) const;

  using FromMlp = Pulled (PullBack::*)(Layer, Prompt, const at::Tensor&, const at::Tensor&) const;
  /// Which of the three a dictionary of an MLP needs.
  [[nodiscard]] static FromMlp from_mlp(MlpSite site) {
    if (site == MlpSite::normalized) return &PullBack::mlp;
    return site == MlpSite::resid_mid ? &PullBack::stream : &PullBack::mlp_output;
  }

  /// Through values, the pattern frozen.
  /// readers  [n, n_heads * d_head]  functionals of hook_z
  /// return   grad [n, pos, d_model] at every key position
  [[nodiscard]] Pulled values(Layer layer, Prompt prompt, const at::Tensor& readers, const at::Tensor& positions) const;

  /// Through queries and the softmax. return grad [n, d_model] at the reader's position
  [[nodiscard]] Pulled queries(Layer layer, Prompt prompt, const at::Tensor& readers,
                               const at::Tensor& positions) const;

  /// Through keys and the softmax. return grad [n, pos, d_model] at every key position
  [[nodiscard]] Pulled keys(Layer layer, Prompt prompt, const at::Tensor& readers, const at::Tensor& positions) const;

  /// d reader / d raw scaled score (before any cap), values frozen. return [n, n_heads, pos]
  [[nodiscard]] at::Tensor scores(Layer layer, Prompt prompt, const at::Tensor& readers,
                                  const at::Tensor& positions) const;

  /// Through a whole attention layer, its pattern and scale held: the transpose of attention_map.
  /// grad    [n, pos, d_model]  with respect to hook_attn_out at every position
  /// return  [n, pos, d_model]  with respect to the residual stream before the layer
  [[nodiscard]] at::Tensor attention(Layer layer, Prompt prompt, const at::Tensor& grad) const;

  /// Through a transcoder's skip path and the norm before the MLP, where the transcoder reads behind it.
  /// grad       [n, d_model] with respect to hook_mlp_out where each stands, or [n, pos, d_model] at every position
  /// positions  [n] int64; not read for the latter
  /// return     the same shape, with respect to the residual stream
  [[nodiscard]] at::Tensor skip(MlpSite site, Layer layer, Prompt prompt, const at::Tensor& W_skip,
                                const at::Tensor& grad, const at::Tensor& positions) const;

  /// Functionals of hook_attn_out as ones of hook_z. readers [n, d_model]  return grad [n, n_heads * d_head]
  [[nodiscard]] Pulled output(Layer layer, Prompt prompt, const at::Tensor& readers, const at::Tensor& positions) const;

  /// Gradients at hook_attn_out at every position of all prompts, as gradients at hook_z.
  /// grads  [batch, pos, d_model]  return [batch, pos, n_heads * d_head]
  [[nodiscard]] at::Tensor through_output(Layer layer, const at::Tensor& grads) const {
    if constexpr (A::Wiring::post_norms) {
      return through_output(layer, grads, run_->template get<hook::ln1_post::scale>(layer));
    } else {
      return through_output(layer, grads, {});
    }
  }

 private:
  using Norm = typename A::Norm;

  [[nodiscard]] const BlockWeights& block(Layer layer) const {
    return model_->weights().blocks[static_cast<std::size_t>(layer.value)];
  }
  [[nodiscard]] const ModelConfig& config() const { return model_->config(); }
  template <HookPoint P>
  [[nodiscard]] at::Tensor at_prompt(Layer layer, Prompt prompt) const {
    return run_->template get<P>(layer).select(0, prompt.value);
  }
  /// [n, heads * d_head] -> [heads, n, d_head]
  [[nodiscard]] static at::Tensor by_head(const at::Tensor& x, std::int64_t heads) {
    return x.reshape({x.size(0), heads, -1}).transpose(0, 1);
  }
  /// [pos, key_value_heads, d_head] -> [heads, pos, d_head]
  [[nodiscard]] at::Tensor per_head(const at::Tensor& x) const {
    const auto heads = x.transpose(0, 1);
    return config().group_size() == 1 ? heads : heads.repeat_interleave(config().group_size(), 0);
  }
  /// A reading matrix [d_model, key_value_heads * d_head] -> [heads, d_head, d_model]
  [[nodiscard]] at::Tensor matrix_per_head(const at::Tensor& W) const {
    return per_head(widened(W).view({W.size(0), config().n_key_value_heads, config().d_head})).transpose(1, 2);
  }
  /// Gradients [..., d_model] at hook_attn_out through the post-norm, where there is one with that scale, and W_O.
  [[nodiscard]] at::Tensor through_output(Layer layer, const at::Tensor& grads, const at::Tensor& post_scale) const {
    const auto& w = block(layer);
    if constexpr (A::Wiring::post_norms) {
      return product(Norm::pull_back(grads, post_scale, w.ln1_post), w.attn.W_O.t());
    } else {
      return product(grads, w.attn.W_O.t());
    }
  }
  /// What the moving scale of a norm takes from a gradient that was pulled back with the scale held.
  /// grad  [n, d_model] at `positions`, or [n, pos, d_model] at every position   x  [batch, pos, d_model]  what is
  /// normalised
  [[nodiscard]] at::Tensor with_scale(at::Tensor grad, const at::Tensor& x, const at::Tensor& scale, Prompt prompt,
                                      const at::Tensor& positions) const {
    if (scales_ == Scales::frozen || std::same_as<Norm, norm::None>) return grad;
    auto unit = Norm::normalized(x.select(0, prompt.value), scale.select(0, prompt.value), {});
    if (grad.dim() == 2) unit = unit.index_select(0, positions);
    const auto along = grad.mul(unit).sum(-1, /*keepdim=*/true).div(unit.size(-1));
    return grad.sub(along.mul(unit));  // since unit = x / s and s^2 = mean x^2 + eps
  }
  [[nodiscard]] at::Tensor before_attention(at::Tensor grad, Layer layer, Prompt prompt,
                                            const at::Tensor& positions) const {
    return with_scale(std::move(grad), stream_before<A>(*run_, layer), run_->template get<hook::ln1::scale>(layer),
                      prompt, positions);
  }
  [[nodiscard]] at::Tensor before_mlp(at::Tensor grad, Layer layer, Prompt prompt, const at::Tensor& positions) const {
    const auto before = stream_before<A>(*run_, layer);
    return with_scale(std::move(grad),
                      A::Wiring::parallel ? before : before.add(run_->template get<hook::attn_out>(layer)),
                      run_->template get<hook::ln2::scale>(layer), prompt, positions);
  }
  /// Gradients on normalised heads [..., heads, d_head] through their norm: gain g / scale, or g where there is no
  /// norm.
  template <HookPoint Scale>
  [[nodiscard]] at::Tensor through_head_norm(Layer layer, Prompt prompt, const at::Tensor& grad, const at::Tensor& gain,
                                             const at::Tensor& positions) const {
    if (!gain.defined()) return grad;
    return grad.mul(gain).div(at_prompt<Scale>(layer, prompt).index_select(0, positions));
  }
  /// The constant (norm bias) W + b that a reading matrix adds to every position; undefined if there is none.
  [[nodiscard]] static at::Tensor constant_of(const NormWeights& norm, const at::Tensor& W, const at::Tensor& b) {
    if (!norm.bias.defined()) return b;
    const auto through = product(norm.bias.unsqueeze(0), W).squeeze(0);
    return b.defined() ? through.add(b) : through;
  }
  [[nodiscard]] at::Tensor no_constant(const at::Tensor& readers) const {
    return make::zeros({readers.size(0)}, readers.options());
  }

  const HookedTransformer<A>* model_;
  const FrozenRun* run_;
  [[no_unique_address]] Softmax softmax_;
  Scales scales_;
};

}  // namespace circuit

namespace circuit {

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::mlp(Layer layer, Prompt prompt, const at::Tensor& readers,
                                 const at::Tensor& positions) const {
  const auto scale = at_prompt<hook::ln2::scale>(layer, prompt).index_select(0, positions);
  const auto& norm = block(layer).ln2;
  // hook_normalized holds the norm's bias only where it stands behind the gain (LayerNorm).
  return {before_mlp(Norm::pull_back_normalized(readers, scale, norm), layer, prompt, positions),
          norm.bias.defined() ? readers.matmul(norm.bias) : no_constant(readers)};
}

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::mlp_output(Layer layer, Prompt prompt, const at::Tensor& readers,
                                        const at::Tensor& positions) const {
  if constexpr (has_mlp<A>) {
    const auto read = at_prompt<hook::ln2::normalized>(layer, prompt).index_select(0, positions);
    const auto on_read = through_mlp(*model_, layer, read, readers);
    auto out = mlp(layer, prompt, on_read, positions);
    const auto value = readers.mul(at_prompt<hook::mlp_out>(layer, prompt).index_select(0, positions)).sum(-1);
    out.remainder = value.sub(on_read.mul(read).sum(-1));
    return out;
  } else {
    return {readers, no_constant(readers)};
  }
}

template <Architecture A, SoftmaxJacobian Softmax>
at::Tensor PullBack<A, Softmax>::skip(MlpSite site, Layer layer, Prompt prompt, const at::Tensor& W_skip,
                                      const at::Tensor& grad, const at::Tensor& positions) const {
  if (site == MlpSite::resid_mid) return grad.matmul(W_skip.t());
  auto scale = at_prompt<hook::ln2::scale>(layer, prompt);
  if (grad.dim() == 2) scale = scale.index_select(0, positions);
  return before_mlp(Norm::pull_back_normalized(grad.matmul(W_skip.t()), scale, block(layer).ln2), layer, prompt,
                    positions);
}

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::output(Layer layer, Prompt prompt, const at::Tensor& readers,
                                    const at::Tensor& positions) const {
  const auto& w = block(layer);
  auto before = readers;
  auto constant = no_constant(readers);
  if constexpr (A::Wiring::post_norms) {
    const auto scale = at_prompt<hook::ln1_post::scale>(layer, prompt).index_select(0, positions);
    before = Norm::pull_back(readers, scale, w.ln1_post);
    if (w.ln1_post.bias.defined()) constant = readers.matmul(w.ln1_post.bias);
  }
  if (w.attn.b_O.defined()) constant = constant.add(before.matmul(w.attn.b_O));
  return {product(before, w.attn.W_O.t()), constant};
}

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::values(Layer layer, Prompt prompt, const at::Tensor& readers,
                                    const at::Tensor& positions) const {
  const auto& w = block(layer);
  const auto heads = by_head(readers, config().n_heads);                                          // [H, n, e]
  const auto through_value = heads.matmul(matrix_per_head(w.attn.W_V));                           // [H, n, d]
  const auto pattern = at_prompt<hook::attn::pattern>(layer, prompt).index_select(1, positions);  // [H, n, k]
  const auto grad = pattern.permute({1, 2, 0}).matmul(through_value.transpose(0, 1));             // [n, k, d]
  const auto constant = constant_of(w.ln1, w.attn.W_V, w.attn.b_V);
  return {before_attention(Norm::pull_back(grad, at_prompt<hook::ln1::scale>(layer, prompt), w.ln1), layer, prompt,
                           positions),
          constant.defined() ? heads.mul(per_head(constant.view({1, config().n_key_value_heads, -1}))).sum(-1).sum(0)
                             : no_constant(readers)};
}

template <Architecture A, SoftmaxJacobian Softmax>
at::Tensor PullBack<A, Softmax>::attention(Layer layer, Prompt prompt, const at::Tensor& grad) const {
  const auto& w = block(layer);
  const auto n = grad.size(0);
  const auto length = grad.size(1);
  at::Tensor post_scale;
  if constexpr (A::Wiring::post_norms) post_scale = at_prompt<hook::ln1_post::scale>(layer, prompt);
  const auto on_z = through_output(layer, grad, post_scale)
                        .view({n, length, config().n_heads, config().d_head})
                        .permute({2, 0, 1, 3});                                        // [H, n, q, e]
  const auto pattern = at_prompt<hook::attn::pattern>(layer, prompt).transpose(1, 2);  // [H, k, q]
  const auto on_values = pattern.unsqueeze(1)
                             .matmul(on_z)  // [H, n, k, e]
                             .view({config().n_key_value_heads, config().group_size(), n, length, config().d_head})
                             .sum(1)
                             .permute({1, 2, 0, 3})
                             .flatten(2);  // [n, k, Hkv e]
  return before_attention(
      Norm::pull_back(product(on_values, w.attn.W_V.t()), at_prompt<hook::ln1::scale>(layer, prompt), w.ln1), layer,
      prompt, {});
}

template <Architecture A, SoftmaxJacobian Softmax>
at::Tensor PullBack<A, Softmax>::scores(Layer layer, Prompt prompt, const at::Tensor& readers,
                                        const at::Tensor& positions) const {
  const auto v = per_head(at_prompt<hook::attn::v>(layer, prompt));                               // [H, k, e]
  const auto on_pattern = by_head(readers, config().n_heads).matmul(v.transpose(1, 2));           // [H, n, k]
  const auto pattern = at_prompt<hook::attn::pattern>(layer, prompt).index_select(1, positions);  // [H, n, k]
  auto on_scores = softmax_.pull_back(pattern, on_pattern);
  if (const auto cap = config().score_soft_cap; cap > 0) {
    const auto capped = at_prompt<hook::attn::attn_scores>(layer, prompt).index_select(1, positions);
    const auto masked = capped.isinf();  // set to 0, never multiplied: 0 (1 - inf) is NaN
    on_scores = on_scores.mul(capped.div(cap).square().neg().add(1.0)).masked_fill(masked, 0.0);
  }
  return on_scores.transpose(0, 1);
}

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::queries(Layer layer, Prompt prompt, const at::Tensor& readers,
                                     const at::Tensor& positions) const {
  const auto& w = block(layer);
  const auto on_scores = scores(layer, prompt, readers, positions).transpose(0, 1).div(config().score_scale);
  const auto k = per_head(at_prompt<hook::attn::rot_k>(layer, prompt));  // [H, k, e]
  const auto on_rotated = on_scores.matmul(k).transpose(0, 1);           // [n, H, e]
  auto on_head = A::Positions::rotate_back(on_rotated, A::Positions::angles(positions, config(), on_rotated.options()));
  if constexpr (A::Attention::head_norms) {
    on_head = through_head_norm<hook::attn::q_norm::scale>(layer, prompt, on_head, w.attn.q_gain, positions);
  }
  const auto on_query = on_head.flatten(1);
  const auto scale = at_prompt<hook::ln1::scale>(layer, prompt).index_select(0, positions);
  const auto constant = constant_of(w.ln1, w.attn.W_Q, w.attn.b_Q);
  return {before_attention(Norm::pull_back(product(on_query, transposed(w.attn.W_Q)), scale, w.ln1), layer, prompt,
                           positions),
          constant.defined() ? on_query.matmul(constant) : no_constant(readers)};
}

template <Architecture A, SoftmaxJacobian Softmax>
Pulled PullBack<A, Softmax>::keys(Layer layer, Prompt prompt, const at::Tensor& readers,
                                  const at::Tensor& positions) const {
  const auto& w = block(layer);
  const auto on_scores = scores(layer, prompt, readers, positions).div(config().score_scale);  // [n, H, k]
  const auto q = at_prompt<hook::attn::rot_q>(layer, prompt).index_select(0, positions);       // [n, H, e]
  const auto scale = at_prompt<hook::ln1::scale>(layer, prompt);
  const auto constant = constant_of(w.ln1, w.attn.W_K, w.attn.b_K);
  if constexpr (A::Positions::rotates || A::Attention::head_norms) {
    // The turn and the norm differ by key position, so they must be undone before W_K.
    const auto on_rotated = on_scores.transpose(1, 2).unsqueeze(-1).mul(q.unsqueeze(1));  // [n, k, H, e]
    const auto places = make::arange(on_rotated.size(1), positions.options());
    const auto on_head =
        A::Positions::rotate_back(on_rotated, A::Positions::angles(places, config(), on_rotated.options()));
    auto on_shared = on_head
                         .reshape({on_head.size(0), on_head.size(1), config().n_key_value_heads, config().group_size(),
                                   config().d_head})
                         .sum(3);  // [n, k, Hkv, e]
    if constexpr (A::Attention::head_norms) {
      on_shared = through_head_norm<hook::attn::k_norm::scale>(layer, prompt, on_shared, w.attn.k_gain, places);
    }
    const auto on_key = on_shared.flatten(2);
    return {before_attention(Norm::pull_back(product(on_key, transposed(w.attn.W_K)), scale, w.ln1), layer, prompt,
                             positions),
            constant.defined() ? on_key.matmul(constant).sum(-1) : no_constant(readers)};
  } else {
    const auto through_key = q.transpose(0, 1).matmul(matrix_per_head(w.attn.W_K)).transpose(0, 1);  // [n, H, d]
    const auto grad = on_scores.transpose(1, 2).matmul(through_key);                                 // [n, k, d]
    return {before_attention(Norm::pull_back(grad, scale, w.ln1), layer, prompt, positions),
            constant.defined()
                ? on_scores.sum(-1)
                      .mul(q.mul(per_head(constant.view({1, config().n_key_value_heads, -1})).transpose(0, 1)).sum(-1))
                      .sum(-1)
                : no_constant(readers)};
  }
}

}  // namespace circuit
