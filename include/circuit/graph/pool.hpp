#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/graph/circuit.hpp"

namespace circuit {

/// Makes one number of those that an edge, a node or a constant has in some of several graphs.
template <class P>
concept PoolRule = requires(const P& rule, std::span<const double> values, std::size_t graphs) {
  { rule.pool(values, graphs) } -> std::same_as<double>;
};

namespace pooling {

/// Mean over all graphs, 0 where it is missing: sums into a target stay sums.
struct Mean {
  [[nodiscard]] double pool(std::span<const double> values, std::size_t graphs) const {
    double sum = 0;
    for (const auto v : values) sum += v;
    return sum / static_cast<double>(graphs);
  }
};

/// Mean over the graphs that have it, so that what few prompts use weighs as much as what all use.
struct MeanWherePresent {
  [[nodiscard]] double pool(std::span<const double> values, std::size_t /*graphs*/) const {
    return Mean{}.pool(values, values.size());
  }
};

/// The one of largest size, with its sign.
struct Largest {
  [[nodiscard]] double pool(std::span<const double> values, std::size_t /*graphs*/) const {
    double largest = 0;
    for (const auto v : values) {
      if (std::abs(v) > std::abs(largest)) largest = v;
    }
    return largest;
  }
};

}  // namespace pooling

/// One graph of several, such as the attribution graphs of the prompts of one template: all their nodes, edges and
/// constants, each of which was multiplied out on its own prompt before the numbers are pooled. Each graph counts once;
/// `prompts` of an edge says in how many it is.
/// least_share  only what at least this share of the graphs has; 0 for their union, 1 for what all have
/// throws       ValueError  for no graphs or a share outside 0 to 1
template <PoolRule Rule = pooling::Mean>
[[nodiscard]] Circuit pool(std::span<const Circuit> graphs, const Rule& rule = {}, double least_share = 0);

}  // namespace circuit

namespace circuit::detail {

/// The same thing of several graphs under one key, in the order in which keys first came.
template <class Key, class Value>
class PoolParts {
 public:
  void add(const Key& key, const Value& value) {
    const auto [at, added] = number_.try_emplace(key, parts_.size());
    if (added) parts_.emplace_back();
    parts_[at->second].push_back(value);
  }
  /// `use(the values of one key)` for each that enough graphs have.
  template <class Use>
  void for_each(double least, Use&& use) const {
    for (const auto& values : parts_) {
      if (static_cast<double>(values.size()) >= least) use(values);
    }
  }

 private:
  std::map<Key, std::size_t> number_;
  std::vector<std::vector<Value>> parts_;
};

/// The first value, the members named pooled over all.
template <class Value, class Pool, class... Members>
[[nodiscard]] Value pool_members(const std::vector<Value>& values, const Pool& pool, Members... members) {
  auto out = values.front();
  std::vector<double> numbers;
  const auto one = [&](auto member) {
    numbers.clear();
    for (const auto& value : values) numbers.push_back(value.*member);
    out.*member = pool(numbers);
  };
  (one(members), ...);
  return out;
}

}  // namespace circuit::detail

namespace circuit {

template <PoolRule Rule>
Circuit pool(std::span<const Circuit> graphs, const Rule& rule, double least_share) {
  if (graphs.empty()) throw ValueError{{.tensor = "graphs", .expected = "at least one", .got = "none"}};
  if (!(least_share >= 0 && least_share <= 1)) {
    throw ValueError{{.tensor = "least_share", .expected = "0 to 1", .got = std::to_string(least_share)}};
  }
  detail::PoolParts<Node, NodeBundle> nodes;
  detail::PoolParts<std::tuple<Node, Node, EdgeType>, EdgeRef> edges;
  detail::PoolParts<std::pair<Node, EdgeType>, BiasRow> biases;
  CircuitInfo info = graphs.front().info();
  info.prompts = 0;
  for (const auto& graph : graphs) {
    for (const auto& bundle : graph.nodes()) nodes.add(bundle.node, bundle);
    for (const auto& e : graph.edges()) edges.add({e.up, e.down, e.edge.type}, e);
    for (const auto& row : graph.biases()) biases.add({row.target, row.type}, row);
    info.prompts += graph.info().prompts;
  }
  info.settings["pooled"] = std::to_string(graphs.size()) + " graphs";

  const auto number = [&](std::span<const double> values) { return rule.pool(values, graphs.size()); };
  const auto least = least_share * static_cast<double>(graphs.size()) - 1e-9;  // 0.7 of 10 graphs is 7
  Circuit out{std::move(info)};
  nodes.for_each(least, [&](const std::vector<NodeBundle>& same) {
    out.add_node(detail::pool_members(same, number, &NodeBundle::activation, &NodeBundle::contrast_activation,
                                      &NodeBundle::attribution, &NodeBundle::nodegrad));
  });
  edges.for_each(least, [&](const std::vector<EdgeRef>& same) {
    std::vector<Edge> numbers;
    std::int32_t prompts = 0;
    for (const auto& e : same) {
      numbers.push_back(e.edge);
      prompts += e.edge.prompts;
    }
    auto edge =
        detail::pool_members(numbers, number, &Edge::nn_grad, &Edge::nn_attrib, &Edge::em_grad, &Edge::em_attrib);
    edge.prompts = prompts;
    out.add_edge(same.front().up, same.front().down, edge);
  });
  biases.for_each(least, [&](const std::vector<BiasRow>& same) {
    out.add_bias(detail::pool_members(same, number, &BiasRow::nn_attrib, &BiasRow::em_attrib, &BiasRow::nn_map,
                                      &BiasRow::em_map, &BiasRow::nn_remainder, &BiasRow::em_remainder));
  });
  return out;
}

}  // namespace circuit
