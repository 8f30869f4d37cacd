#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/linear/frozen_run.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// The bias of the norm before an MLP, which hook_normalized holds. [d_model], or undefined
template <Architecture A>
[[nodiscard]] at::Tensor bias_in_normalized(const HookedTransformer<A>& model, Layer layer) {
  return model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2.bias;
}

/// What the dictionary of a layer's MLP read in a recorded run, [batch, pos, d_model].
/// throws  ConfigError  for the stream between attention and MLP of an architecture that computes both at once
template <Architecture A>
[[nodiscard]] at::Tensor mlp_input(const FrozenRun& run, MlpSite site, Layer layer) {
  if (site == MlpSite::normalized) return run.get<hook::ln2::normalized>(layer);
  if (site == MlpSite::mlp_out) return run.get<hook::mlp_out>(layer);
  if constexpr (A::Wiring::parallel || !has_mlp<A>) {
    throw ConfigError{
        {.tensor = hook_name(hook::resid_mid{}, layer), .problem = "this architecture has no such point"}};
  }
  return run.get<hook::resid_post>(layer).sub(run.get<hook::mlp_out>(layer));
}

/// The linear part, at a recorded run, of what a transcoder's skip path makes of the residual stream: without what the
/// norm's bias gives. Behind the norm it is inversely proportional to the norm's scale.
/// return  [batch, pos, d_model]
template <Architecture A>
[[nodiscard]] at::Tensor skip_map(const HookedTransformer<A>& model, const DictionaryWeights& dictionary,
                                  const FrozenRun& run, MlpSite site, Layer layer) {
  if (site == MlpSite::resid_mid) return mlp_input<A>(run, site, layer).matmul(dictionary.W_skip);
  const auto bias = bias_in_normalized(model, layer);
  const auto& normalized = run.get<hook::ln2::normalized>(layer);
  return (bias.defined() ? normalized.sub(bias) : normalized).matmul(dictionary.W_skip);
}

/// What an MLP's dictionary adds at every position whatever its features do: its output bias, its own normalisation
/// held at a run, and the norm's bias through a skip path. [d_model], [batch, pos, d_model] of that run, or undefined
template <Architecture A>
[[nodiscard]] at::Tensor mlp_constant(const HookedTransformer<A>& model, const DictionaryWeights& dictionary,
                                      const HeldInputNorm& held, MlpSite site, Layer layer) {
  auto constant = dictionary.output_constant(held);
  if (!dictionary.has_skip() || site == MlpSite::resid_mid) return constant;
  const auto bias = bias_in_normalized(model, layer);
  if (!bias.defined()) return constant;
  const auto through = product(bias.unsqueeze(0), dictionary.W_skip).squeeze(0);
  return constant.defined() ? through.add(constant) : through;
}

}  // namespace circuit
