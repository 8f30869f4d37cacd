#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/graph/circuit.hpp"

namespace circuit {

/// Edges from the upstream end to the downstream end, each starting where the one before it ended.
struct Path {
  std::vector<EdgeRef> edges{};

  [[nodiscard]] std::size_t length() const { return edges.size(); }
  [[nodiscard]] bool empty() const { return edges.empty(); }

  friend bool operator==(const Path&, const Path&) = default;
  /// `embed.4 -ov-> attn.0.4.17 -metric-> metric`
  friend std::ostream& operator<<(std::ostream& out, const Path& path) {
    if (path.empty()) return out << "(no path)";
    out << path.edges.front().up;
    for (const auto& ref : path.edges) out << " -" << ref.edge.type << "-> " << ref.down;
    return out;
  }
};

/// What makes a path strong.
enum class PathStrength : std::uint8_t {
  weakest_link,  ///< its smallest |attribution|: a path is as strong as what any of its edges carries
  product,       ///< the product of its |attributions|; short paths of strong edges win
};

/// One step of a path's pattern: by an edge of any of these types (none named: of any type) to a node of this kind.
struct PathStep {
  std::vector<EdgeType> by{};
  NodeKind to{};

  [[nodiscard]] bool matches(const EdgeRef& ref) const {
    return ref.down.kind == to && (by.empty() || std::ranges::find(by, ref.edge.type) != by.end());
  }
};

/// Where a path starts and the steps it takes. The circuit that moves a name by attention, in words
/// `embedding -> attention feature -> (q or k) attention feature -> metric`, is
/// `{NodeKind::embedding, {{{}, NodeKind::attn_feature}, {{EdgeType::q, EdgeType::k}, NodeKind::attn_feature},
///   {{}, NodeKind::metric}}}`.
struct PathPattern {
  NodeKind from{};
  std::vector<PathStep> steps{};
};

namespace detail {

/// Best way found so far to a vertex: its score and the edge that leads in.
struct BestWay {
  double score = -1;
  std::optional<CircuitGraph::edge_descriptor> last{};
};

/// Edges run from a smaller depth to a larger one, so sorting by depth sorts topologically.
[[nodiscard]] inline std::vector<Circuit::Vertex> upstream_first(const Circuit& circuit) {
  std::vector<Circuit::Vertex> order(circuit.node_count());
  std::iota(order.begin(), order.end(), Circuit::Vertex{0});
  std::ranges::stable_sort(order, {}, [&](Circuit::Vertex v) { return depth(circuit.graph()[v].node); });
  return order;
}

[[nodiscard]] inline double extend(double score, const Edge& edge, PathStrength strength, Attribution which) {
  const double size = magnitude(edge, which);
  return strength == PathStrength::product ? score * size : std::min(score, size);
}

/// Neutral start of both strengths: a product begins at 1, a minimum at infinity.
[[nodiscard]] constexpr double neutral(PathStrength strength) {
  return strength == PathStrength::product ? 1.0 : std::numeric_limits<double>::infinity();
}

}  // namespace detail

/// A longest path of the circuit by number of edges; empty when there are no edges. The first found among equals.
[[nodiscard]] inline Path longest_path(const Circuit& circuit) {
  const auto& graph = circuit.graph();
  std::vector<std::size_t> length(circuit.node_count(), 0);
  std::vector<std::optional<Circuit::Graph::edge_descriptor>> last(circuit.node_count());
  for (const auto v : detail::upstream_first(circuit)) {
    const auto [first, end] = boost::in_edges(v, graph);
    for (auto e = first; e != end; ++e) {
      const auto through = length[source(*e, graph)] + 1;
      if (through > length[v]) {
        length[v] = through;
        last[v] = *e;
      }
    }
  }
  Path path;
  if (circuit.empty()) return path;
  auto v = static_cast<Circuit::Vertex>(std::ranges::max_element(length) - length.begin());
  for (; last[v]; v = source(*last[v], graph)) path.edges.push_back(detail::edge_ref(graph, *last[v]));
  std::ranges::reverse(path.edges);
  return path;
}

/// The strongest path between two nodes, or nothing when there is none (or they are the same).
/// throws  NameError  when a node is not there
[[nodiscard]] inline std::optional<Path> strongest_path(const Circuit& circuit, const Node& from, const Node& to,
                                                        PathStrength strength = PathStrength::weakest_link,
                                                        Attribution which = Attribution::em) {
  const auto& graph = circuit.graph();
  const auto start = circuit.vertex(from);
  auto v = circuit.vertex(to);
  std::vector<detail::BestWay> best(circuit.node_count());
  best[start].score = detail::neutral(strength);
  for (const auto u : detail::upstream_first(circuit)) {
    if (best[u].score < 0) continue;
    const auto [first, end] = boost::out_edges(u, graph);
    for (auto e = first; e != end; ++e) {
      const auto score = detail::extend(best[u].score, graph[*e], strength, which);
      auto& way = best[target(*e, graph)];
      if (score > way.score) way = {score, *e};
    }
  }
  if (!best[v].last) return std::nullopt;
  Path path;
  for (; best[v].last; v = source(*best[v].last, graph)) {
    path.edges.push_back(detail::edge_ref(graph, *best[v].last));
  }
  std::ranges::reverse(path.edges);
  return path;
}

/// The strongest path that follows a pattern step by step, or nothing when none does.
[[nodiscard]] inline std::optional<Path> strongest_path(const Circuit& circuit, const PathPattern& pattern,
                                                        PathStrength strength = PathStrength::weakest_link,
                                                        Attribution which = Attribution::em) {
  const auto& graph = circuit.graph();
  std::vector<std::vector<detail::BestWay>> best(pattern.steps.size() + 1,
                                                 std::vector<detail::BestWay>(circuit.node_count()));
  for (Circuit::Vertex v = 0; v < circuit.node_count(); ++v) {
    if (graph[v].node.kind == pattern.from) best[0][v].score = detail::neutral(strength);
  }
  for (std::size_t step = 0; step < pattern.steps.size(); ++step) {
    const auto [first, end] = boost::edges(graph);
    for (auto e = first; e != end; ++e) {
      const auto& from = best[step][source(*e, graph)];
      if (from.score < 0 || !pattern.steps[step].matches(detail::edge_ref(graph, *e))) continue;
      const auto score = detail::extend(from.score, graph[*e], strength, which);
      auto& way = best[step + 1][target(*e, graph)];
      if (score > way.score) way = {score, *e};
    }
  }
  const auto end = std::ranges::max_element(best.back(), {}, &detail::BestWay::score);
  if (pattern.steps.empty() || end == best.back().end() || end->score < 0) return std::nullopt;
  Path path;
  auto v = static_cast<Circuit::Vertex>(end - best.back().begin());
  for (auto step = pattern.steps.size(); step > 0; --step) {
    const auto e = *best[step][v].last;
    path.edges.push_back(detail::edge_ref(graph, e));
    v = source(e, graph);
  }
  std::ranges::reverse(path.edges);
  return path;
}

/// Whether any path follows the pattern.
[[nodiscard]] inline bool has_path(const Circuit& circuit, const PathPattern& pattern) {
  return strongest_path(circuit, pattern).has_value();
}

}  // namespace circuit
