#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <map>
#include <ostream>
#include <string_view>
#include <vector>

#include "circuit/graph/circuit.hpp"

namespace circuit {

/// How much of two sets is shared.
struct Overlap {
  std::size_t both{};
  std::size_t only_first{};
  std::size_t only_second{};

  [[nodiscard]] constexpr std::size_t all() const { return both + only_first + only_second; }
  /// Shared part of the union; 1 for two empty sets, which are equal.
  [[nodiscard]] constexpr double jaccard() const {
    return all() == 0 ? 1.0 : static_cast<double>(both) / static_cast<double>(all());
  }

  friend bool operator==(const Overlap&, const Overlap&) = default;
};

/// What two circuits have in common, nodes and edges being equal when all their parts are.
struct CircuitComparison {
  std::vector<Node> common_nodes{};  ///< in the first circuit's order
  Overlap nodes{};
  Overlap edges{};                                             ///< over all types
  std::array<Overlap, all_edge_types.size()> edges_by_type{};  ///< indexed by EdgeType

  [[nodiscard]] const Overlap& operator[](EdgeType type) const { return edges_by_type[static_cast<std::size_t>(type)]; }

  friend std::ostream& operator<<(std::ostream& out, const CircuitComparison& c) {
    out << "Jaccard: nodes " << c.nodes.jaccard() << ", edges " << c.edges.jaccard() << " (";
    std::string_view separator;
    for (const auto type : all_edge_types) {
      if (type == EdgeType::resid && c[type] == Overlap{}) continue;
      out << separator << name(type) << ' ' << c[type].jaccard();
      separator = ", ";
    }
    return out << ')';
  }
};

[[nodiscard]] inline CircuitComparison compare(const Circuit& first, const Circuit& second) {
  CircuitComparison result;
  for (const auto& bundle : first.nodes()) {
    if (second.contains(bundle.node)) result.common_nodes.push_back(bundle.node);
  }
  const auto overlap = [](std::size_t both, std::size_t a, std::size_t b) { return Overlap{both, a - both, b - both}; };
  result.nodes = overlap(result.common_nodes.size(), first.node_count(), second.node_count());

  EdgeCounts shared;
  for (const auto& [up, down, edge] : first.edges()) {
    if (second.contains_edge(up, down, edge.type)) ++shared[edge.type];
  }
  const auto in_first = edge_counts(first);
  const auto in_second = edge_counts(second);
  for (const auto type : all_edge_types) {
    result.edges_by_type[static_cast<std::size_t>(type)] = overlap(shared[type], in_first[type], in_second[type]);
  }
  result.edges = overlap(shared.total(), in_first.total(), in_second.total());
  return result;
}

/// A feature wherever it is active: what stays the same when a prompt's words change places.
struct FeatureSite {
  NodeKind kind{};
  Layer layer{};
  Feature feature{};

  friend auto operator<=>(const FeatureSite&, const FeatureSite&) = default;
  /// `attn.5.*.7515`
  friend std::ostream& operator<<(std::ostream& out, const FeatureSite& site) {
    return out << site.kind << '.' << site.layer.value << ".*." << site.feature.value;
  }
};

/// A feature that two circuits share, with the positions where each has it, ascending.
struct CommonFeature {
  FeatureSite site{};
  std::vector<Position> in_first{};
  std::vector<Position> in_second{};

  friend bool operator==(const CommonFeature&, const CommonFeature&) = default;
};

namespace detail {

[[nodiscard]] inline std::map<FeatureSite, std::vector<Position>> feature_positions(const Circuit& circuit) {
  std::map<FeatureSite, std::vector<Position>> found;
  for (const auto& [node, activation, contrast, attribution, nodegrad] : circuit.nodes()) {
    if (is_feature(node.kind)) found[{node.kind, node.layer, node.feature}].push_back(node.position);
  }
  for (auto& [site, positions] : found) std::ranges::sort(positions);
  return found;
}

}  // namespace detail

/// The features that both circuits hold at whatever position, by kind, layer and feature.
[[nodiscard]] inline std::vector<CommonFeature> common_features(const Circuit& first, const Circuit& second) {
  const auto others = detail::feature_positions(second);
  std::vector<CommonFeature> common;
  for (const auto& [site, positions] : detail::feature_positions(first)) {
    if (const auto other = others.find(site); other != others.end()) {
      common.push_back({site, positions, other->second});
    }
  }
  return common;
}

}  // namespace circuit
