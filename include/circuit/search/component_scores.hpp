#pragma once

#include <cstdint>

#include "circuit/core/make.hpp"
#include "circuit/graph/by_component.hpp"
#include "circuit/search/component_circuit.hpp"

namespace circuit {

/// What a circuit of components says of them as searches over components say it, 0 where it has nothing: what
/// `EdgeEvaluation` and `separation` judge. Of a circuit of units take `by_component` first.
struct ComponentScores {
  at::Tensor nodes;  ///< [senders] float64  attributions
  at::Tensor edges;  ///< [senders, receivers] float64

  /// Logits are read as one, like the metric.
  /// throws  NameError  when it holds a node or an edge that these components do not have
  [[nodiscard]] static ComponentScores of(const Components& c, const Circuit& circuit,
                                          Attribution which = Attribution::em) {
    ComponentScores out{.nodes = make::zeros({c.senders()}, at::kDouble),
                        .edges = make::zeros({c.senders(), c.receivers()}, at::kDouble)};
    for (const auto& bundle : circuit.nodes()) {
      if (!is_output(bundle.node.kind)) out.nodes[sender_index(c, bundle.node)].fill_(bundle.attribution);
    }
    for (const auto& [up, down, edge] : circuit.edges()) {
      const auto receiver = is_output(down.kind) ? c.logits() : receiver_index(c, down, edge.type);
      out.edges[sender_index(c, up)][receiver].add_(value(edge, which));
    }
    return out;
  }
};

}  // namespace circuit
