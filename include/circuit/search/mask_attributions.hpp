#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/intervene/module_values.hpp"
#include "circuit/linear/dictionaries.hpp"
#include "circuit/linear/post_norm.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/record.hpp"
#include "circuit/search/mask_run.hpp"
#include "circuit/search/mask_sums.hpp"
#include "circuit/search/mask_units.hpp"
#include "circuit/search/node_attributions.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// How the way from the empty circuit to the whole model is walked.
struct MaskWalk {
  std::int64_t steps = 8;                ///< runs, at the midpoints of equal parts of the way
  Outside outside = Outside::reference;  ///< where it starts: each prompt's own reference value, or their mean
  bool embeddings = true;                ///< whether token embeddings are nodes; else the clean prompt's throughout
  Position first{0};                     ///< what stands before it is no node, and clean throughout
};

/// What every feature, error and embedding is worth to a circuit, integrated over circuits of every strength: each run
/// holds all nodes at once at `reference + a (own - reference)`, a feature's own value computed on that run and an
/// error's the clean run's, and a node's attribution is the metric's gradient by its own `a`, averaged over a from 0 to
/// 1. They sum to the metric less that of the empty circuit, up to the midpoint rule's error. Unlike a gradient at the
/// clean run, it knows what a node is worth when the others are missing, which is what keeping a circuit alone asks.
/// clean, reference  [batch, pos] int64; with Outside::reference_mean the reference may be other prompts of that length
/// return  the nodes whose attribution is not 0, means over prompts in metric units
/// throws  ShapeError for prompts that do not line up, ValueError for no steps, an option that names no baseline or a
///         gradient that is not finite, IndexError for a first position behind the last, and what `dictionaries.check`
///         does
/// source  integrated gradients (Sundararajan et al. 2017) of the node masks that pruning searches learn
template <Architecture A, Dictionaries Set, Metric M>
[[nodiscard]] std::vector<NodeAttribution> mask_attributions(const HookedTransformer<A>& model, const Set& dictionaries,
                                                             const at::Tensor& clean, const at::Tensor& reference,
                                                             const M& metric, const MaskWalk& walk = {});

/// The same, mean over batches of prompts as large as memory allows, each with `metric_of(batch)`. A node is a feature
/// at a position, so the batches are of one template.
/// throws  ValueError for no batches
template <Architecture A, Dictionaries Set, class MetricOf>
[[nodiscard]] std::vector<NodeAttribution> mask_attributions(const HookedTransformer<A>& model, const Set& dictionaries,
                                                             std::span<const ContrastBatch> batches,
                                                             const MetricOf& metric_of, const MaskWalk& walk = {}) {
  std::map<Node, double> sums;
  std::size_t prompts = 0;
  for (const auto& batch : batches) {
    const PromptPair pair = batch;
    for (const auto& [node, value] :
         mask_attributions(model, dictionaries, pair.clean, pair.corrupt, metric_of(batch), walk)) {
      sums[node] += value * static_cast<double>(batch.size());
    }
    prompts += batch.size();
  }
  if (prompts == 0) throw ValueError{{.tensor = "batches", .expected = "at least one", .got = "none"}};
  std::vector<NodeAttribution> out;
  for (const auto& [node, sum] : sums) out.push_back({node, sum / static_cast<double>(prompts)});
  return out;
}

}  // namespace circuit

namespace circuit {

template <Architecture A, Dictionaries Set, Metric M>
std::vector<NodeAttribution> mask_attributions(const HookedTransformer<A>& model, const Set& dictionaries,
                                               const at::Tensor& clean, const at::Tensor& reference, const M& metric,
                                               const MaskWalk& walk) {
  const c10::AutoGradMode no_gradient{false};
  dictionaries.check(model.config(), model.processing(), model.dtype());
  refuse_unless_within_layers(dictionaries, static_cast<std::int32_t>(model.config().n_layers), "a walk of masks",
                              {.mlp_out = true, .stream = true, .resid_mid = true, .input_norm = true});
  check_count(walk.steps, "steps");
  if (walk.outside != Outside::reference && walk.outside != Outside::reference_mean) {
    throw ValueError{{.tensor = "outside", .problem = "the walk starts at a reference or at its mean"}};
  }
  check_shape(reference, {walk.outside == Outside::reference ? clean.size(0) : -1, clean.size(1)}, "reference tokens",
              {}, "prompts line up with the clean ones, or for a mean have their length");
  check_index(walk.first, clean.size(1));
  constexpr bool before_norms = mlp_writes_pass_post_norm<A, Set>;  // units are then held where they are
  const auto places_of = [&] {
    if constexpr (before_norms) {
      return detail::unit_places(model.run(reference, circuit::record<hook::attn::z, hook::mlp::post>()).cache,
                                 walk.outside);
    } else {
      const auto recorded = [&](const at::Tensor& tokens) { return model.run(tokens, record_modules()).cache; };
      return detail::mask_places(dictionaries, recorded(clean), recorded(reference), walk.outside);
    }
  };
  const detail::MaskPlaces places = places_of();

  at::Tensor embedding;
  if (walk.embeddings) {
    Recorder<hook::embed> recorder;
    (void)model.embed(reference, recorder);
    embedding = recorder.cache().template get<hook::embed>();
    if (walk.outside == Outside::reference_mean) embedding = embedding.mean(0, /*keepdim=*/true);
  }
  detail::MaskSums sums;
  for (std::int64_t k = 0; k < walk.steps; ++k) {
    const auto share = (static_cast<double>(k) + 0.5) / static_cast<double>(walk.steps);
    auto strength = make::zeros({clean.size(1), 1}, model.options()).add(share);
    strength.narrow(0, 0, walk.first.value).fill_(1);
    const auto add = [&](auto run) {
      detail::add_at_strength(model, dictionaries, clean, metric, places, std::move(run),
                              1.0 / static_cast<double>(walk.steps), sums);
    };
    if constexpr (before_norms) {
      add(detail::UnitsAtStrength{places, strength, embedding});
    } else {
      add(detail::AtStrength<Set>{dictionaries, places, strength, embedding});
    }
  }
  return sums.nodes(walk.first);
}

}  // namespace circuit
