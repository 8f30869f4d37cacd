#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/graph/compare.hpp"

namespace circuit {

/// Spearman's rank correlation, ties at their mean rank.
/// throws  ValueError  unless there are as many of both, two or more, and neither is constant
[[nodiscard]] inline double rank_correlation(std::span<const double> first, std::span<const double> second);

/// How alike two circuits rank edges by magnitude: over those in either, an edge that one does not have counting as 0.
/// Jaccard by type is `compare`'s.
/// throws  ValueError  when there are too few edges to rank
[[nodiscard]] inline double rank_correlation(const Circuit& first, const Circuit& second,
                                             Attribution which = Attribution::em);

/// Shared part of the union of the two circuits' `size` largest edges, for each size. A circuit with fewer takes all it
/// has.
[[nodiscard]] inline std::vector<double> overlap_by_size(const Circuit& first, const Circuit& second,
                                                         std::span<const std::size_t> sizes,
                                                         Attribution which = Attribution::em);

}  // namespace circuit

namespace circuit::detail {

using EdgeKey = std::tuple<Node, Node, EdgeType>;

[[nodiscard]] inline std::vector<std::pair<double, EdgeKey>> edges_by_magnitude(const Circuit& circuit,
                                                                                Attribution which) {
  std::vector<std::pair<double, EdgeKey>> found;
  for (const auto& [up, down, edge] : circuit.edges()) found.push_back({magnitude(edge, which), {up, down, edge.type}});
  std::ranges::stable_sort(found, std::ranges::greater{}, [](const auto& e) { return e.first; });
  return found;
}

[[nodiscard]] inline std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::sort(order, {}, [&](std::size_t i) { return values[i]; });
  std::vector<double> rank(values.size());
  for (std::size_t i = 0; i < order.size();) {
    auto end = i;
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    for (auto j = i; j < end; ++j) rank[order[j]] = (static_cast<double>(i) + static_cast<double>(end - 1)) / 2;
    i = end;
  }
  return rank;
}

}  // namespace circuit::detail

inline double circuit::rank_correlation(std::span<const double> first, std::span<const double> second) {
  for (const auto values : {first, second}) {
    if (std::ranges::all_of(values, [](double value) { return std::isfinite(value); })) continue;
    throw ValueError{{.tensor = "rank correlation", .expected = "finite numbers", .got = "NaN or infinity"}};
  }
  const auto a = detail::ranks(first);
  const auto b = detail::ranks(second);
  const auto centre = (static_cast<double>(a.size()) - 1) / 2;
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    ab += (a[i] - centre) * (b[i] - centre);
    aa += (a[i] - centre) * (a[i] - centre);
    bb += (b[i] - centre) * (b[i] - centre);
  }
  if (a.size() != b.size() || aa == 0 || bb == 0) {
    throw ValueError{{.tensor = "rank correlation",
                      .expected = "as many of both, neither constant",
                      .got = std::to_string(a.size()) + " and " + std::to_string(b.size())}};
  }
  return ab / std::sqrt(aa * bb);
}

inline double circuit::rank_correlation(const Circuit& first, const Circuit& second, Attribution which) {
  std::map<detail::EdgeKey, std::pair<double, double>> both;
  for (const auto& [score, key] : detail::edges_by_magnitude(first, which)) both[key].first = score;
  for (const auto& [score, key] : detail::edges_by_magnitude(second, which)) both[key].second = score;
  std::vector<double> a;
  std::vector<double> b;
  for (const auto& [key, scores] : both) {
    a.push_back(scores.first);
    b.push_back(scores.second);
  }
  return rank_correlation(a, b);
}

inline std::vector<double> circuit::overlap_by_size(const Circuit& first, const Circuit& second,
                                                    std::span<const std::size_t> sizes, Attribution which) {
  const auto a = detail::edges_by_magnitude(first, which);
  const auto b = detail::edges_by_magnitude(second, which);
  const auto largest = [](const auto& edges, std::size_t n) {
    std::vector<detail::EdgeKey> keys;
    for (std::size_t i = 0; i < std::min(n, edges.size()); ++i) keys.push_back(edges[i].second);
    std::ranges::sort(keys);
    return keys;
  };
  std::vector<double> shares;
  for (const auto n : sizes) {
    const auto in_a = largest(a, n);
    const auto in_b = largest(b, n);
    std::vector<detail::EdgeKey> shared;
    std::ranges::set_intersection(in_a, in_b, std::back_inserter(shared));
    const Overlap overlap{shared.size(), in_a.size() - shared.size(), in_b.size() - shared.size()};
    shares.push_back(overlap.jaccard());
  }
  return shares;
}
