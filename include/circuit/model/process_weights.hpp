#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/model/architecture.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// The weights with TransformerLens' processings applied (its `fold_layer_norm`, `center_writing_weights`,
/// `center_unembed`, `fold_value_biases`, in that order). What needs no change is shared with `raw`, not copied.
/// Post-norms stay: they stand behind a module, so no reader could take them in.
/// throws  ConfigError  when a processing would change the function: centred writers beside a norm that does not subtract
///                      the mean or before a post-norm, a centred unembedding below a soft cap
template <Architecture A>
[[nodiscard]] ModelWeights process_weights(ModelWeights raw, const ModelConfig& config,
                                           const weights::Processing& processing);

}  // namespace circuit

namespace circuit::detail {

/// throws  ConfigError  saying why a processing is not exact for this model
template <Architecture A>
void check_processing(const ModelConfig& config, const weights::Processing& processing) {
  const auto refuse = [](const char* what, const char* why) {
    throw ConfigError{{.tensor = what, .problem = why, .hint = "leave it off for this model"}};
  };
  if (processing.center_writing && !A::Norm::centers) {
    refuse("center_writing", "writers cannot be centred: the norm does not subtract the mean");
  }
  if (processing.center_writing && A::Wiring::post_norms) {
    refuse("center_writing", "writers cannot be centred: what they write passes a post-norm");
  }
  if (processing.center_unembed && config.logit_soft_cap > 0) {
    refuse("center_unembed", "the unembedding cannot be centred: the soft cap on logits sees their mean");
  }
}

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
  const auto constant = repeat_for_query_heads(attn.b_V, config).unsqueeze(0).matmul(attn.W_O).squeeze(0);
  attn.b_O = attn.b_O.defined() ? attn.b_O.add(constant) : constant;
  attn.b_V = at::Tensor{};
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A>
ModelWeights process_weights(ModelWeights w, const ModelConfig& config, const weights::Processing& processing) {
  using N = typename A::Norm;
  const c10::AutoGradMode no_gradient{false};
  detail::check_processing<A>(config, processing);
  if (processing.fold_norms) {
    for (auto& block : w.blocks) {
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_Q, block.attn.b_Q);
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_K, block.attn.b_K);
      detail::fold_into_reader(block.ln1, N::centers, block.attn.W_V, block.attn.b_V);
      if constexpr (has_mlp<A>) detail::fold_into_reader(block.ln2, N::centers, block.mlp.W_in, block.mlp.b_in);
      if constexpr (A::Mlp::gated) detail::fold_into_reader(block.ln2, N::centers, block.mlp.W_gate, block.mlp.b_gate);
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
