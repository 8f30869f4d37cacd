#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/graph/circuit.hpp"

/// Groups of features that do one thing together, found in a circuit, and other features to compare them with. A
/// feature that is active on corrupt prompts alone is in no group: there is nothing of it to ablate on the clean ones.
namespace circuit {

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

/// The attention features that a circuit has at a position, those that carry most of the metric first: by attribution,
/// so that what works against it comes last.
[[nodiscard]] std::vector<Node> attention_features_at(const Circuit& circuit, Position position,
                                                      std::size_t most = no_limit);

/// The attention features at a position that the metric reads directly, those with the largest metric edges first.
[[nodiscard]] std::vector<Node> largest_into_metric(const Circuit& circuit, Position position,
                                                    std::size_t most = no_limit);

/// The attention features at a position that some targets read by edges of these types, those with the largest sum of
/// |em attributions| into the targets first. A target that another one reads is among them.
[[nodiscard]] std::vector<Node> attention_features_read_by(const Circuit& circuit, std::span<const Node> targets,
                                                           std::span<const EdgeType> types, Position position,
                                                           std::size_t most = no_limit);

/// A feature and the length of what it writes into the residual stream, a mean over prompts.
struct WrittenFeature {
  Node node{};
  double norm{};

  friend bool operator==(const WrittenFeature&, const WrittenFeature&) = default;
};

/// Features to ablate instead of a cluster: for each of its members another feature of the same layer, drawn among the
/// `nearest` that write vectors of the most similar length (by ratio) and are not drawn yet. Shorter than the cluster
/// where a layer has not enough others.
/// others  of any layers; members of the cluster among them are left out
[[nodiscard]] std::vector<Node> draw_control(std::span<const WrittenFeature> cluster,
                                             std::span<const WrittenFeature> others, data::Random& random,
                                             std::size_t nearest = 3);

}  // namespace circuit

namespace circuit::detail {

/// Nodes by descending weight; equal weights in the nodes' own order, so that a result does not depend on the search.
[[nodiscard]] inline std::vector<Node> largest_first(const std::map<Node, double>& weights, std::size_t most) {
  std::vector<std::pair<Node, double>> ranked{weights.begin(), weights.end()};
  std::ranges::stable_sort(ranked, std::ranges::greater{}, &std::pair<Node, double>::second);
  if (ranked.size() > most) ranked.resize(most);
  std::vector<Node> nodes;
  for (const auto& [node, weight] : ranked) nodes.push_back(node);
  return nodes;
}

[[nodiscard]] inline bool is_active_attention_feature(const NodeBundle& bundle, Position position) {
  return bundle.node.kind == NodeKind::attn_feature && bundle.node.position == position && bundle.activation != 0;
}

}  // namespace circuit::detail

namespace circuit {

inline std::vector<Node> attention_features_at(const Circuit& circuit, Position position, std::size_t most) {
  std::map<Node, double> weights;
  for (const auto& bundle : circuit.nodes()) {
    if (detail::is_active_attention_feature(bundle, position)) weights[bundle.node] = bundle.attribution;
  }
  return detail::largest_first(weights, most);
}

inline std::vector<Node> largest_into_metric(const Circuit& circuit, Position position, std::size_t most) {
  std::map<Node, double> weights;
  for (const auto& [up, down, edge] : circuit.edges()) {
    if (edge.type == EdgeType::metric && detail::is_active_attention_feature(circuit.bundle(up), position)) {
      weights[up] += magnitude(edge, Attribution::em);
    }
  }
  return detail::largest_first(weights, most);
}

inline std::vector<Node> attention_features_read_by(const Circuit& circuit, std::span<const Node> targets,
                                                    std::span<const EdgeType> types, Position position,
                                                    std::size_t most) {
  const auto contains = [](const auto& range, const auto& value) {
    return std::ranges::find(range, value) != range.end();
  };
  std::map<Node, double> weights;
  for (const auto& [up, down, edge] : circuit.edges()) {
    if (contains(targets, down) && contains(types, edge.type) &&
        detail::is_active_attention_feature(circuit.bundle(up), position)) {
      weights[up] += magnitude(edge, Attribution::em);
    }
  }
  return detail::largest_first(weights, most);
}

inline std::vector<Node> draw_control(std::span<const WrittenFeature> cluster, std::span<const WrittenFeature> others,
                                      data::Random& random, std::size_t nearest) {
  std::vector<WrittenFeature> left;
  for (const auto& other : others) {
    const auto same = [&](const WrittenFeature& member) { return member.node == other.node; };
    if (other.norm > 0 && std::ranges::none_of(cluster, same)) left.push_back(other);
  }
  std::vector<Node> drawn;
  for (const auto& member : cluster) {
    std::vector<std::pair<double, std::size_t>> by_distance;
    for (std::size_t i = 0; i < left.size(); ++i) {
      if (left[i].node.layer != member.node.layer) continue;
      by_distance.emplace_back(std::abs(std::log(left[i].norm / member.norm)), i);
    }
    if (by_distance.empty()) continue;
    std::ranges::sort(by_distance);
    const auto chosen = by_distance[random.below(std::clamp<std::size_t>(nearest, 1, by_distance.size()))].second;
    drawn.push_back(left[chosen].node);
    left.erase(left.begin() + static_cast<std::ptrdiff_t>(chosen));
  }
  return drawn;
}

}  // namespace circuit
