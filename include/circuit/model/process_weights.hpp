#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// The weights with TransformerLens' processings applied (its `fold_layer_norm`, `center_writing_weights`,
/// `center_unembed`, `fold_value_biases`, in that order). What needs no change is shared with `raw`, not copied.
/// N       the architecture's norm: only one that subtracts the mean may have its readers and writers centred
/// throws  ConfigError  when a processing would change the function (centring beside a norm that does not centre)
template <class N>
[[nodiscard]] ModelWeights process_weights(ModelWeights raw, const ModelConfig& config,
                                           const weights::Processing& processing);

}  // namespace circuit

namespace circuit::detail {

/// Folds gain and bias of a norm into one matrix that reads it: W := gain W, b := b + bias W, then W's mean over the
/// rows is removed where the norm centres (its output has no component along 1).
inline void fold_into_reader(const NormWeights& norm, bool center, at::Tensor& W, at::Tensor& b) {
  if (norm.bias.defined()) {
    const auto constant = norm.bias.unsqueeze(0).matmul(W).squeeze(0);
    b = b.defined() ? b.add(constant) : constant;
  }
  if (norm.gain.defined()) W = W.mul(norm.gain.unsqueeze(-1));
  if (center) W = W.sub(W.mean(0, /*keepdim=*/true));
}

inline void center_rows(at::Tensor& writer) {
  if (writer.defined()) writer = writer.sub(writer.mean(-1, /*keepdim=*/true));
}

/// b_O += sum over heads of b_V[head] W_O[head]; grouped heads share their b_V.
inline void fold_value_bias(AttentionWeights& attn, const ModelConfig& config) {
  if (!attn.b_V.defined()) return;
  const auto per_head = attn.b_V.view({config.n_key_value_heads, 1, config.d_head})
                            .expand({config.n_key_value_heads, config.group_size(), config.d_head})
                            .reshape({1, config.n_heads * config.d_head});
  const auto constant = per_head.matmul(attn.W_O).squeeze(0);
  attn.b_O = attn.b_O.defined() ? attn.b_O.add(constant) : constant;
  attn.b_V = at::Tensor{};
}

}  // namespace circuit::detail

namespace circuit {

template <class N>
ModelWeights process_weights(ModelWeights w, const ModelConfig& config, const weights::Processing& processing) {
  const c10::AutoGradMode no_gradient{false};
  if (processing.center_writing && !N::centers) {
    throw ConfigError{{.tensor = "center_writing",
                       .problem = "writers cannot be centred: the norm does not subtract the mean",
                       .hint = "leave center_writing off for this architecture"}};
  }
  if (processing.fold_norms) {
    for (auto& block : w.blocks) {
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_Q, block.attn.b_Q);
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_K, block.attn.b_K);
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_V, block.attn.b_V);
      detail::fold_into_reader(block.ln2, N::centers, block.mlp.W_in, block.mlp.b_in);
      if (block.mlp.W_gate.defined()) {
        detail::fold_into_reader(block.ln2, N::centers, block.mlp.W_gate, block.mlp.b_gate);
      }
      block.ln1 = block.ln2 = NormWeights{};
    }
    detail::fold_into_reader(w.ln_final, N::centers, w.W_U, w.b_U);
    w.ln_final = NormWeights{};
  }
  if (processing.center_writing) {
    detail::center_rows(w.W_E);
    detail::center_rows(w.W_pos);
    for (auto& block : w.blocks) {
      for (auto* writer : {&block.attn.W_O, &block.attn.b_O, &block.mlp.W_out, &block.mlp.b_out}) {
        detail::center_rows(*writer);
      }
    }
  }
  if (processing.center_unembed) {
    detail::center_rows(w.W_U);
    detail::center_rows(w.b_U);
  }
  if (processing.fold_value_biases) {
    for (auto& block : w.blocks) detail::fold_value_bias(block.attn, config);
  }
  return w;
}

}  // namespace circuit
