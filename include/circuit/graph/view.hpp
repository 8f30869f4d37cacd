#pragma once

#include <concepts>
#include <cstddef>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/graph/circuit.hpp"

/// Parts of a circuit. Each function returns a circuit of its own that owns its nodes and edges and keeps the order,
/// the information and the bias rows of the targets that are left.
namespace circuit {

/// Says yes or no to a node with its values, as in `with_nodes`.
template <class P>
concept NodePredicate = std::predicate<const P&, const NodeBundle&>;

/// Says yes or no to an edge with its two ends, as in `with_edges`.
template <class P>
concept EdgePredicate = std::predicate<const P&, const EdgeRef&>;

namespace detail {

template <NodePredicate Nodes, EdgePredicate Edges>
[[nodiscard]] Circuit select(const Circuit& circuit, const Nodes& nodes, const Edges& edges) {
  Circuit part{circuit.info()};
  for (const auto& bundle : circuit.nodes()) {
    if (nodes(bundle)) part.add_node(bundle);
  }
  for (const auto& ref : circuit.edges()) {
    if (part.contains(ref.up) && part.contains(ref.down) && edges(ref)) part.add_edge(ref.up, ref.down, ref.edge);
  }
  for (const auto& row : circuit.biases()) {
    if (part.contains(row.target)) part.add_bias(row);
  }
  return part;
}

}  // namespace detail

/// The nodes that `keep` accepts and the edges between them.
template <NodePredicate Keep>
[[nodiscard]] Circuit with_nodes(const Circuit& circuit, const Keep& keep) {
  return detail::select(circuit, keep, [](const EdgeRef&) { return true; });
}

/// The edges that `keep` accepts and the nodes at their ends; the metric stays in any case.
template <EdgePredicate Keep>
[[nodiscard]] Circuit with_edges(const Circuit& circuit, const Keep& keep) {
  std::unordered_set<Node> ends{Node::metric()};
  for (const auto& ref : circuit.edges()) {
    if (keep(ref)) ends.insert({ref.up, ref.down});
  }
  return detail::select(
      circuit, [&ends](const NodeBundle& bundle) { return ends.contains(bundle.node); }, keep);
}

/// The edges of one type.
[[nodiscard]] inline Circuit of_type(const Circuit& circuit, EdgeType type) {
  return with_edges(circuit, [type](const EdgeRef& ref) { return ref.edge.type == type; });
}

/// The edges whose attribution is larger than `threshold` in size.
[[nodiscard]] inline Circuit above(const Circuit& circuit, double threshold, Attribution which = Attribution::em) {
  return with_edges(circuit, [=](const EdgeRef& ref) { return magnitude(ref.edge, which) > threshold; });
}

/// Everything but the nodes at one position, by default the beginning-of-sequence token's.
[[nodiscard]] inline Circuit without_position(const Circuit& circuit, Position position = Position{0}) {
  return with_nodes(circuit, [position](const NodeBundle& bundle) {
    return !has_position(bundle.node.kind) || bundle.node.position != position;
  });
}

/// Everything but the error nodes.
[[nodiscard]] inline Circuit without_errors(const Circuit& circuit) {
  return with_nodes(circuit, [](const NodeBundle& bundle) { return !is_error(bundle.node.kind); });
}

namespace detail {

/// Which vertices are reached from one by walking along its edges (or against them). A search of our own: Boost's, with
/// its visitors and named parameters, costs every including file half a second.
[[nodiscard]] inline std::vector<bool> reached(const CircuitGraph& graph, Circuit::Vertex from, bool downstream) {
  std::vector<bool> seen(num_vertices(graph), false);
  std::vector<Circuit::Vertex> open{from};
  seen[from] = true;
  const auto visit = [&](Circuit::Vertex v) {
    if (!seen[v]) open.push_back(v);
    seen[v] = true;
  };
  while (!open.empty()) {
    const auto v = open.back();
    open.pop_back();
    if (downstream) {
      for (auto [e, end] = out_edges(v, graph); e != end; ++e) visit(target(*e, graph));
    } else {
      for (auto [e, end] = in_edges(v, graph); e != end; ++e) visit(source(*e, graph));
    }
  }
  return seen;
}

[[nodiscard]] inline Circuit with_vertices(const Circuit& circuit, const std::vector<bool>& keep) {
  return with_nodes(circuit, [&](const NodeBundle& bundle) { return keep[circuit.vertex(bundle.node)]; });
}

}  // namespace detail

/// The node and everything it reaches.
/// throws  NameError  when the node is not there
[[nodiscard]] inline Circuit downstream_of(const Circuit& circuit, const Node& node) {
  return detail::with_vertices(circuit, detail::reached(circuit.graph(), circuit.vertex(node), /*downstream=*/true));
}

/// The node and everything that reaches it.
/// throws  NameError  when the node is not there
[[nodiscard]] inline Circuit upstream_of(const Circuit& circuit, const Node& node) {
  return detail::with_vertices(circuit, detail::reached(circuit.graph(), circuit.vertex(node), /*downstream=*/false));
}

/// Every edge on a path through the node: what leads to it and what it leads to, without the edges that pass it by.
/// throws  NameError  when the node is not there
[[nodiscard]] inline Circuit through(const Circuit& circuit, const Node& node) {
  const auto at = circuit.vertex(node);
  const auto down = detail::reached(circuit.graph(), at, /*downstream=*/true);
  const auto up = detail::reached(circuit.graph(), at, /*downstream=*/false);
  return detail::select(
      circuit,
      [&](const NodeBundle& bundle) {
        const auto v = circuit.vertex(bundle.node);
        return down[v] || up[v];
      },
      [&](const EdgeRef& ref) {
        const auto u = circuit.vertex(ref.up);
        const auto d = circuit.vertex(ref.down);
        return (up[u] && up[d]) || (down[u] && down[d]);
      });
}

}  // namespace circuit
