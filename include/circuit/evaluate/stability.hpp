#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/evaluate/agreement.hpp"
#include "circuit/evaluate/bootstrap.hpp"
#include "circuit/graph/compare.hpp"

namespace circuit {

/// How alike circuits of repeated searches are, over other seeds or other prompts: the mean over pairs, with an
/// interval over searches.
struct Stability {
  Interval nodes;  ///< Jaccard
  Interval edges;  ///< Jaccard, over all types
};

/// throws  ValueError  for fewer than three circuits, and as bootstrap
[[nodiscard]] inline Stability stability(std::span<const Circuit> circuits, const BootstrapOptions& options = {});

/// An edge and in what share of the circuits it is.
struct EdgeFrequency {
  Node up{};
  Node down{};
  EdgeType type{};
  double share = 0;
};

/// Every edge of any of the circuits, the most frequent first.
[[nodiscard]] inline std::vector<EdgeFrequency> edge_frequencies(std::span<const Circuit> circuits);

/// A search repeated on samples of the prompts, drawn with replacement: `search(prompts)` gives the circuit of those.
/// throws  ValueError  for no prompts
template <class Search>
  requires std::convertible_to<std::invoke_result_t<const Search&, const std::vector<std::size_t>&>, Circuit>
[[nodiscard]] std::vector<Circuit> search_on_draws(std::size_t prompts, std::size_t draws, std::uint64_t seed,
                                                   const Search& search) {
  data::Random random{seed};
  std::vector<Circuit> found;
  for (std::size_t i = 0; i < draws; ++i) {
    std::vector<std::size_t> drawn;
    for (std::size_t p = 0; p < prompts || p == 0; ++p) drawn.push_back(random.below(prompts));
    found.push_back(std::invoke(search, std::as_const(drawn)));
  }
  return found;
}

}  // namespace circuit

namespace circuit::detail {

/// Mean over pairs of different members. A sample that holds one member alone has no such pair and says nothing: it counts
/// as the mean over all pairs.
[[nodiscard]] inline Interval mean_of_pairs(const std::vector<std::vector<double>>& pairs,
                                            const BootstrapOptions& options) {
  std::vector<std::size_t> everyone(pairs.size());
  std::iota(everyone.begin(), everyone.end(), std::size_t{0});
  const auto sums = [&](std::span<const std::size_t> members) {
    double sum = 0;
    double count = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
      for (std::size_t j = i + 1; j < members.size(); ++j) {
        if (members[i] == members[j]) continue;
        sum += pairs[members[i]][members[j]];
        ++count;
      }
    }
    return std::pair{sum, count};
  };
  const auto [all, count_of_all] = sums(everyone);
  const auto mean = [&, of_all = all / count_of_all](std::span<const std::size_t> members) {
    const auto [sum, count] = sums(members);
    return count == 0 ? of_all : sum / count;
  };
  return bootstrap(pairs.size(), mean, options);
}

}  // namespace circuit::detail

inline circuit::Stability circuit::stability(std::span<const Circuit> circuits, const BootstrapOptions& options) {
  if (circuits.size() < 3) {
    throw ValueError{
        {.tensor = "circuits", .expected = "three or more to compare", .got = std::to_string(circuits.size())}};
  }
  std::vector<std::vector<double>> nodes(circuits.size(), std::vector<double>(circuits.size(), 1.0));
  auto edges = nodes;
  for (std::size_t i = 0; i < circuits.size(); ++i) {
    for (std::size_t j = i + 1; j < circuits.size(); ++j) {
      const auto shared = compare(circuits[i], circuits[j]);
      nodes[i][j] = nodes[j][i] = shared.nodes.jaccard();
      edges[i][j] = edges[j][i] = shared.edges.jaccard();
    }
  }
  return {detail::mean_of_pairs(nodes, options), detail::mean_of_pairs(edges, options)};
}

inline std::vector<circuit::EdgeFrequency> circuit::edge_frequencies(std::span<const Circuit> circuits) {
  std::map<detail::EdgeKey, std::size_t> counts;
  for (const auto& circuit : circuits) {
    for (const auto& [up, down, edge] : circuit.edges()) ++counts[{up, down, edge.type}];
  }
  std::vector<EdgeFrequency> out;
  for (const auto& [key, count] : counts) {
    const auto& [up, down, type] = key;
    out.push_back({up, down, type, static_cast<double>(count) / static_cast<double>(circuits.size())});
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.share > b.share; });
  return out;
}
