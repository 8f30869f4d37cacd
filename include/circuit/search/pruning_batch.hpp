#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/record.hpp"
#include "circuit/search/gated_nodes.hpp"
#include "circuit/search/mask_run.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit::detail {

/// What one batch's gated runs need.
template <class Set, class M>
struct PruningBatch {
  at::Tensor clean;
  typename AtStrength<Set>::Places places;
  at::Tensor unkept_embedding;
  M metric;
  at::Tensor full;   // [batch]  the metric of the whole model
  at::Tensor range;  // scalar   its mean less that of the empty circuit

  /// Mean squared loss of the metric, in shares of its range.
  template <Architecture A>
  [[nodiscard]] at::Tensor misfit(const HookedTransformer<A>& model, const Set& set, const NodeGates& gates) const {
    GatedNodes<Set> run{set, places, gates, unkept_embedding};
    return metric.per_prompt(model.forward(clean, run)).sub(full).div(range).square().mean();
  }
};

template <Architecture A, class Set, class M>
[[nodiscard]] PruningBatch<Set, M> pruning_batch(const HookedTransformer<A>& model, const Set& set,
                                                 const PromptPair& pair, const M& metric) {
  const c10::AutoGradMode no_gradient{false};
  const auto clean = model.run(pair.clean, record_modules());
  const auto corrupt = model.run(pair.corrupt, record_modules());
  Recorder<hook::embed> recorder;
  (void)model.embed(pair.corrupt, recorder);
  const auto full = metric.per_prompt(clean.logits);
  return {pair.clean,
          mask_places(set, clean.cache, corrupt.cache, Outside::reference),
          recorder.cache().template get<hook::embed>(),
          metric,
          full,
          full.mean().sub(metric.per_prompt(corrupt.logits).mean())};
}

}  // namespace circuit::detail
