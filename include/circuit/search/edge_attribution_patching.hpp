#pragma once

#include "circuit/model/gradient_rule.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/keep/above.hpp"
#include "circuit/search/path/activations.hpp"
#include "circuit/search/path/clean.hpp"
#include "circuit/search/path/inputs.hpp"
#include "circuit/search/receiver_gradients.hpp"

namespace circuit {

/// Edge attribution patching between whole components: for every sender and receiver, what the sender writes on the
/// clean prompts minus what it writes on the corrupt ones, times the metric's gradient at what the receiver reads.
/// First order in the change; the edge's share of the metric that corruption takes away. source  Syed et al. 2023
/// (path::Clean); Hanna et al. 2024 (path::Inputs). They subtract the other way round, so their
///         scores have the opposite sign
template <GradientPath Path = path::Clean, KeepRule Keep = keep::Above, GradientRule Rule = gradient_rule::Exact>
struct EdgeAttributionPatching {
  [[no_unique_address]] Path path{};  ///< where gradients are taken
  [[no_unique_address]] Keep keep{};  ///< which edges stay
  [[no_unique_address]] Rule rule{};  ///< what counts for a gradient

  /// Every edge's score, a mean over prompts in metric units; 0 where there is no edge.
  /// return  [senders, receivers] float64 on the CPU, by the indices of `Components`
  /// throws  ShapeError for prompts that do not line up, and what the model and the metric throw
  template <Architecture A, Metric M>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const PromptPair& prompts, const M& metric) const {
    prompts.check();
    const auto components = Components::of(model);
    const PathEnds ends{components, prompts, sender_writes(model, prompts.clean),
                        sender_writes(model, prompts.corrupt)};
    const auto change = ends.clean.sub(ends.corrupt);
    auto sum = make::zeros({components.senders(), components.receivers()}, at::kDouble);
    path.walk(ends, [&](double weight, const at::Tensor& tokens, auto... attached) {
      const auto gradients = receiver_gradients(model, tokens, metric, attached..., typename Rule::template For<A>{});
      sum.add_(edge_products(components, change, gradients), weight);
    });
    return sum;
  }

  /// The edges that `keep` keeps.
  template <Architecture A, Metric M>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const PromptPair& prompts,
                                   const M& metric) const {
    const auto components = Components::of(model);
    const auto all = scores(model, prompts, metric);
    return component_circuit(components, all, keep_edges(components, all, keep),
                             {.prompts = static_cast<std::int32_t>(prompts.clean.size(0))});
  }
};

using Eap = EdgeAttributionPatching<>;
using EapIgInputs = EdgeAttributionPatching<path::Inputs>;
using EapIgActivations = EdgeAttributionPatching<path::Activations>;

}  // namespace circuit
