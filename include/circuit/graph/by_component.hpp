#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/graph/circuit.hpp"

namespace circuit {

/// How what the units of a component have becomes one number.
enum class Totals : std::uint8_t {
  net,    ///< the sum: what the component does as a whole
  gross,  ///< the sum of magnitudes: units that work against each other do not cancel
};

/// The component that a node is a part of: the input, a head, an MLP, or the node itself where it is one or an output.
/// Attention features are dimensions of hook_z over concatenated heads (`NeuronBasis`, or a dictionary laid out so).
/// throws  NameError   for a part of several: an attention error or output, the stream, a row of tables
/// throws  ValueError  for d_head below 1
[[nodiscard]] inline Node component_of(const Node& node, std::int64_t d_head);

/// A circuit of units at positions as one of whole components. A component's attribution is the total of its units'
/// attributions, an edge's the totals of the edges of its type between units of the two; activations and gradients
/// have no meaning there and are 0, and constants are left out. Outputs stay as they are.
/// throws  as component_of
[[nodiscard]] inline Circuit by_component(const Circuit& circuit, std::int64_t d_head, Totals totals = Totals::gross);

}  // namespace circuit

inline circuit::Node circuit::component_of(const Node& node, std::int64_t d_head) {
  if (d_head < 1) throw ValueError{{.tensor = "d_head", .expected = "1 or more", .got = std::to_string(d_head)}};
  if (is_component(node.kind) || is_output(node.kind)) return node;
  if (is_embedding(node.kind)) return Node::input();
  if (is_mlp(node.kind)) return Node::mlp_block(node.layer);
  if (node.kind == NodeKind::attn_feature) {
    return Node::head(node.layer, Head{static_cast<std::int32_t>(node.feature.value / d_head)});
  }
  throw NameError{{.tensor = to_string(node),
                   .problem = "is not a part of one component",
                   .expected = "an embedding, a dimension of hook_z, or a part of an MLP"}};
}

inline circuit::Circuit circuit::by_component(const Circuit& circuit, std::int64_t d_head, Totals totals) {
  const auto part = [totals](double value) { return totals == Totals::gross ? std::abs(value) : value; };
  std::map<Node, double> nodes;
  Circuit out{circuit.info()};
  for (const auto& bundle : circuit.nodes()) {
    const auto component = component_of(bundle.node, d_head);
    out.add_node(is_output(component.kind) ? bundle : NodeBundle{.node = component});
    nodes[component] += part(bundle.attribution);
  }
  for (const auto& [node, attribution] : nodes) {
    if (!is_output(node.kind)) out.add_node({.node = node, .attribution = attribution});
  }
  std::map<std::tuple<Node, Node, EdgeType>, Edge> edges;
  for (const auto& [up, down, edge] : circuit.edges()) {
    const std::tuple ends{component_of(up, d_head), component_of(down, d_head), edge.type};
    auto& sum = edges.try_emplace(ends, Edge{.type = edge.type, .prompts = 0}).first->second;
    sum.nn_attrib += part(edge.nn_attrib);
    sum.em_attrib += part(edge.em_attrib);
    sum.prompts = std::max(sum.prompts, edge.prompts);
  }
  for (const auto& [ends, edge] : edges) out.add_edge(std::get<0>(ends), std::get<1>(ends), edge);
  return out;
}
