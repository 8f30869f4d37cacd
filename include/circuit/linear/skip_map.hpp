#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// The bias of the norm before an MLP, which hook_normalized holds. [d_model], or undefined
template <Architecture A>
[[nodiscard]] at::Tensor bias_in_normalized(const HookedTransformer<A>& model, Layer layer) {
  return model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2.bias;
}

/// The linear part, at a recorded run, of what a transcoder's skip path makes of the residual stream: without what the
/// norm's bias gives. It is inversely proportional to the norm's scale.
/// return  [batch, pos, d_model]
template <Architecture A>
[[nodiscard]] at::Tensor skip_map(const HookedTransformer<A>& model, const DictionaryWeights& dictionary,
                                  const FrozenRun& run, Layer layer) {
  const auto bias = bias_in_normalized(model, layer);
  const auto& normalized = run.get<hook::ln2::normalized>(layer);
  return (bias.defined() ? normalized.sub(bias) : normalized).matmul(dictionary.W_skip);
}

/// What an MLP's dictionary adds at every position of any run: its output bias, and the norm's bias through a skip
/// path. [d_model], or undefined
template <Architecture A>
[[nodiscard]] at::Tensor mlp_constant(const HookedTransformer<A>& model, const DictionaryWeights& dictionary,
                                      Layer layer) {
  if (!dictionary.has_skip()) return dictionary.b_out;
  const auto bias = bias_in_normalized(model, layer);
  if (!bias.defined()) return dictionary.b_out;
  return affine(bias.unsqueeze(0), dictionary.W_skip, dictionary.b_out).squeeze(0);
}

}  // namespace circuit
