#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/graph/view.hpp"

namespace circuit {

/// Nodes with a number each; a node that is not there has 0.
using NodeWeights = std::unordered_map<Node, double>;

/// What a circuit's outputs count for in its influences: the metric 1, a logit its probability (their `nodegrad`).
[[nodiscard]] inline NodeWeights output_weights(const Circuit& circuit) {
  NodeWeights weights;
  for (const auto& bundle : circuit.nodes()) {
    if (is_output(bundle.node.kind)) weights[bundle.node] = bundle.nodegrad;
  }
  return weights;
}

/// How much of the outputs goes back to each node along all paths, where an edge carries its share of the magnitude of
/// all edges into its target, whatever their type: w (P + P^2 + ...), with P = |nn_attrib| normalised by target. source
/// Ameisen et al. 2025, "Circuit tracing"; circuit-tracer's formula
/// throws  ValueError  for edges that have shares of the metric alone, as those between components
[[nodiscard]] inline NodeWeights influence(std::span<const EdgeRef> edges, const NodeWeights& outputs);
[[nodiscard]] inline NodeWeights influence(const Circuit& circuit);

/// How much of what a graph explains it lays to features and embeddings and not to errors (and whole outputs of modules
/// without a dictionary).
struct GraphScores {
  double replacement = 0;   ///< of the influence that ends in embeddings or errors, the embeddings' share
  double completeness = 0;  ///< share of the edges into each node that are no error's, weighted by the node's influence
};
[[nodiscard]] inline GraphScores graph_scores(const Circuit& circuit);

struct InfluenceCuts {
  double nodes = 0.8;   ///< share of the nodes' influence that the kept ones hold
  double edges = 0.98;  ///< share of the edges' influence, among the kept nodes
};

/// The nodes and edges that hold a share of the influence; outputs and embeddings stay. Then, until nothing changes,
/// features and errors that no edge leaves and features that no edge enters go.
/// throws  ValueError  for a share outside 0 to 1
[[nodiscard]] inline Circuit prune_by_influence(const Circuit& circuit, const InfluenceCuts& cuts = {});

/// By node: the share of all influence that it and the nodes of more influence hold. Small is important.
[[nodiscard]] inline NodeWeights cumulative_influence(const Circuit& circuit);

}  // namespace circuit

namespace circuit::detail {

/// Where attribution ends without being explained.
[[nodiscard]] constexpr bool is_unexplained(NodeKind kind) {
  return is_error(kind) || kind == NodeKind::attn_output || kind == NodeKind::mlp_output;
}

/// Magnitude of all edges into each node.
[[nodiscard]] inline NodeWeights row_sums(std::span<const EdgeRef> edges) {
  NodeWeights sums;
  for (const auto& e : edges) sums[e.down] += std::abs(e.edge.nn_attrib);
  return sums;
}

[[nodiscard]] inline double share_of_row(const EdgeRef& e, const NodeWeights& sums) {
  const auto sum = sums.at(e.down);
  return sum > 0 ? std::abs(e.edge.nn_attrib) / sum : 0.0;
}

[[nodiscard]] inline double value_or_zero(const NodeWeights& weights, const Node& node) {
  const auto found = weights.find(node);
  return found == weights.end() ? 0.0 : found->second;
}

[[nodiscard]] inline std::vector<EdgeRef> edges_of(const Circuit& circuit) {
  std::vector<EdgeRef> edges;
  edges.reserve(circuit.edge_count());
  for (const auto& e : circuit.edges()) edges.push_back(e);
  return edges;
}

/// The smallest value of the fewest that together hold a share of the sum. 0 where there are none.
[[nodiscard]] inline double smallest_kept(std::vector<double> values, double share) {
  std::ranges::sort(values, std::ranges::greater{});
  double sum = 0;
  for (const auto v : values) sum += v;
  double so_far = 0;
  for (const auto v : values) {
    so_far += v;
    if (so_far / sum >= share) return v;
  }
  return values.empty() ? 0.0 : values.back();
}

}  // namespace circuit::detail

namespace circuit {

inline NodeWeights influence(std::span<const EdgeRef> edges, const NodeWeights& outputs) {
  const auto of_metric_alone = [](const EdgeRef& e) { return e.edge.nn_attrib == 0 && e.edge.em_attrib != 0; };
  if (!edges.empty() && std::all_of(edges.begin(), edges.end(), of_metric_alone)) {
    throw ValueError{{.tensor = "nn_attrib",
                      .problem = "the edges have none, and influence is made of it",
                      .hint = "edges between components have shares of the metric alone: keep them by size"}};
  }
  const auto sums = detail::row_sums(edges);
  std::map<std::int32_t, std::vector<const EdgeRef*>, std::greater<>>
      by_depth;  // a target's influence is known before its edges
  for (const auto& e : edges) by_depth[depth(e.down)].push_back(&e);
  NodeWeights found;
  for (const auto& [level, here] : by_depth) {
    for (const auto* e : here) {
      const auto of_target = detail::value_or_zero(found, e->down) + detail::value_or_zero(outputs, e->down);
      found[e->up] += detail::share_of_row(*e, sums) * of_target;
    }
  }
  return found;
}

inline NodeWeights influence(const Circuit& circuit) {
  return influence(detail::edges_of(circuit), output_weights(circuit));
}

inline GraphScores graph_scores(const Circuit& circuit) {
  const auto edges = detail::edges_of(circuit);
  const auto outputs = output_weights(circuit);
  const auto found = influence(edges, outputs);
  double explained = 0;
  double unexplained = 0;
  double all = 0;
  for (const auto& [node, value] : found) {
    if (is_embedding(node.kind)) explained += value;
    if (detail::is_unexplained(node.kind)) unexplained += value;
    all += value;
  }
  for (const auto& [node, weight] : outputs) all += weight;
  const auto sums = detail::row_sums(edges);
  double missed = 0;
  for (const auto& e : edges) {
    if (!detail::is_unexplained(e.up.kind)) continue;
    missed +=
        detail::share_of_row(e, sums) * (detail::value_or_zero(found, e.down) + detail::value_or_zero(outputs, e.down));
  }
  return {.replacement = explained + unexplained > 0 ? explained / (explained + unexplained) : 0.0,
          .completeness = all > 0 ? 1.0 - missed / all : 0.0};
}

inline NodeWeights cumulative_influence(const Circuit& circuit) {
  const auto found = influence(circuit);
  std::vector<std::pair<Node, double>> nodes;
  double sum = 0;
  for (const auto& bundle : circuit.nodes()) {
    nodes.emplace_back(bundle.node, detail::value_or_zero(found, bundle.node));
    sum += nodes.back().second;
  }
  NodeWeights shares;
  double so_far = 0;
  for (const auto i :
       detail::order_by(nodes.size(), [&](auto a, auto b) { return nodes[a].second > nodes[b].second; })) {
    so_far += nodes[i].second;
    shares[nodes[i].first] = sum > 0 ? so_far / sum : 0.0;
  }
  return shares;
}

inline Circuit prune_by_influence(const Circuit& circuit, const InfluenceCuts& cuts) {
  for (const auto share : {cuts.nodes, cuts.edges}) {
    if (share >= 0 && share <= 1) continue;
    throw ValueError{{.tensor = "InfluenceCuts", .expected = "shares from 0 to 1", .got = std::to_string(share)}};
  }
  const auto always = [](const Node& node) { return is_output(node.kind) || is_embedding(node.kind); };
  const auto whole = influence(circuit);
  std::vector<double> values;
  for (const auto& [node, value] : whole) values.push_back(value);
  const auto least = detail::smallest_kept(std::move(values), cuts.nodes);
  std::unordered_set<Node> kept;
  for (const auto& bundle : circuit.nodes()) {
    if (always(bundle.node) || detail::value_or_zero(whole, bundle.node) >= least) kept.insert(bundle.node);
  }

  auto edges = detail::edges_of(circuit);
  std::erase_if(edges, [&](const EdgeRef& e) { return !kept.contains(e.up) || !kept.contains(e.down); });
  const auto outputs = output_weights(circuit);
  const auto left = influence(edges, outputs);
  const auto sums = detail::row_sums(edges);
  const auto score = [&](const EdgeRef& e) {
    return detail::share_of_row(e, sums) *
           (detail::value_or_zero(left, e.down) + detail::value_or_zero(outputs, e.down));
  };
  std::vector<double> scores;
  for (const auto& e : edges) scores.push_back(score(e));
  const auto least_edge = detail::smallest_kept(std::move(scores), cuts.edges);
  std::erase_if(edges, [&](const EdgeRef& e) { return score(e) < least_edge; });

  for (auto before = kept.size() + 1; before != kept.size();) {
    before = kept.size();
    std::unordered_set<Node> left_by;
    std::unordered_set<Node> entered;
    for (const auto& e : edges) {
      left_by.insert(e.up);
      entered.insert(e.down);
    }
    std::erase_if(kept, [&](const Node& node) {
      return !always(node) && (!left_by.contains(node) || (is_feature(node.kind) && !entered.contains(node)));
    });
    std::erase_if(edges, [&](const EdgeRef& e) { return !kept.contains(e.up) || !kept.contains(e.down); });
  }

  Circuit out{circuit.info()};
  for (const auto& bundle : circuit.nodes()) {
    if (kept.contains(bundle.node)) out.add_node(bundle);
  }
  for (const auto& e : edges) out.add_edge(e.up, e.down, e.edge);
  for (const auto& row : circuit.biases()) {
    if (kept.contains(row.target)) out.add_bias(row);
  }
  return out;
}

}  // namespace circuit
