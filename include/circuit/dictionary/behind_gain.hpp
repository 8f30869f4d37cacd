#pragma once

#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// A transcoder that reads what the MLP itself reads (`mlp.hook_in`, as sparsify's and most of circuit-tracer's do), as
/// one of ln2.hook_normalized, where this library's sets have them. After LayerNorm the two are one tensor; before
/// RMSNorm's gain the encoder and the skip path take the gain over, in memory of their own.
/// model   with the norms it was trained with, not folded into the weights
/// throws  ConfigError  when they are folded, the dictionary normalises its input, or the model has no MLP
/// throws  ShapeError   when the dictionary does not read d_model
template <SparseActivation A, Architecture Arch>
[[nodiscard]] SparseDictionary<A> read_before_gain(SparseDictionary<A> dictionary, const HookedTransformer<Arch>& model,
                                                   Layer layer);

}  // namespace circuit

namespace circuit::detail {

/// weights of a dictionary of g * x as those of one of x. gain  [d_in]
inline void take_over_gain(DictionaryWeights& weights, const at::Tensor& gain) {
  if (weights.b_in.defined()) {  // (g x - b_in) W_enc + b_enc, without dividing by a gain that may be 0
    weights.b_enc = weights.b_enc.sub(weights.b_in.matmul(widened(weights.W_enc)));
    weights.b_in = at::Tensor{};
  }
  weights.W_enc = widened(weights.W_enc).mul(gain.unsqueeze(-1));
  if (weights.has_skip()) weights.W_skip = weights.W_skip.mul(gain.unsqueeze(-1));
}

}  // namespace circuit::detail

namespace circuit {

template <SparseActivation A, Architecture Arch>
SparseDictionary<A> read_before_gain(SparseDictionary<A> dictionary, const HookedTransformer<Arch>& model,
                                     Layer layer) {
  check_index(layer, model.config().n_layers);
  const auto refuse = [&](const char* problem, const char* hint) {
    throw ConfigError{{.file = dictionary.name, .problem = problem, .hint = hint}};
  };
  if (!has_mlp<Arch>) refuse("reads an MLP, and the model has none", "");
  if (model.processing().fold_norms) {
    refuse("reads behind the norm's gain, which this model's weights have taken over", "load the model unprocessed");
  }
  if (dictionary.input_norm.kind != InputNorm::Kind::none) {
    refuse("normalises what it reads, which a gain cannot be taken out of", "");
  }
  check_shape(dictionary.W_enc, {model.config().d_model, -1}, "W_enc", dictionary.name,
              "this dictionary does not fit the model");
  const auto& gain = model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2.gain;
  if (!Arch::Norm::centers && gain.defined()) {
    detail::take_over_gain(dictionary, gain.to(dictionary.options()));
  }
  return dictionary;
}

}  // namespace circuit
