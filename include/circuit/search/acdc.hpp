#pragma once

#include <cstdint>
#include <utility>

#include "circuit/intervene/edges_around.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/divergence/divergence.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// What ACDC decided about every edge.
struct AcdcResult {
  at::Tensor kept;  ///< [senders, receivers] bool
  at::Tensor
      rise;  ///< [senders, receivers] float64: by how much the divergence rose without the edge; 0 where not tried
  std::int64_t runs = 0;
};

/// Automatic circuit discovery: from the logits down, every edge is given the corrupt run's value, and stays so unless
/// the divergence from the whole model rises by the threshold or more. What reads for a component that nothing kept
/// reads is left out without a run. source  Conmy et al. 2023
template <DivergenceRule Divergence = divergence::Kl>
struct Acdc {
  double threshold = 0.01;  ///< the divergence's unit
  [[no_unique_address]] Divergence divergence{};

  /// throws  ShapeError for prompts that do not line up, and what the model throws
  template <Architecture A>
  [[nodiscard]] AcdcResult decide(const HookedTransformer<A>& model, const PromptPair& prompts) const;

  /// The kept edges; their em_attrib is the rise.
  template <Architecture A>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const PromptPair& prompts) const {
    const auto [kept, rise, runs] = decide(model, prompts);
    return component_circuit(Components::of(model), rise, kept,
                             {.prompts = static_cast<std::int32_t>(prompts.clean.size(0))});
  }
};

}  // namespace circuit

template <circuit::DivergenceRule Divergence>
template <circuit::Architecture A>
circuit::AcdcResult circuit::Acdc<Divergence>::decide(const HookedTransformer<A>& model,
                                                      const PromptPair& prompts) const {
  prompts.check();
  const auto c = Components::of(model);
  const EdgesAround whole{model, prompts.clean, c.edge_mask(), sender_writes(model, prompts.corrupt)};
  AcdcResult result{c.edge_mask(), make::zeros({c.senders(), c.receivers()}, at::kDouble)};
  double current = 0;
  for (auto r = c.receivers() - 1; r >= 0; --r) {
    const auto reader = receiver_of(c, r).node;
    const bool is_read = reader == Node::metric() || result.kept[sender_index(c, reader)].any().template item<bool>();
    for (auto s = c.before(r) - 1; s >= 0; --s) {
      auto edge = result.kept[s][r];
      edge.fill_(false);
      if (!is_read) continue;
      const auto without = divergence.distance(whole.logits(), whole.logits(result.kept));
      ++result.runs;
      result.rise[s][r].fill_(without - current);
      if (without - current < threshold) {
        current = without;
      } else {
        edge.fill_(true);
      }
    }
  }
  return result;
}
