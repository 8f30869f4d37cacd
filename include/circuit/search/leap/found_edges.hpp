#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/graph/circuit.hpp"
#include "circuit/search/leap/constant_sums.hpp"
#include "circuit/search/score.hpp"
#include "circuit/search/step_targets.hpp"

namespace circuit::detail {

/// What a search has found so far: edges, what constants give their targets, and the outputs that are explained.
class FoundEdges {
 public:
  explicit FoundEdges(std::int32_t prompts) : prompts_{prompts} {}

  void add(const EdgeRef& edge) { edges_.push_back(edge); }
  /// An output with its state, a mean over prompts.
  void explain(const Node& output, const TargetState& state) { explained_.emplace_back(output, state); }
  void add_biases(EdgeType type, const StepTargets& targets, const ConstantSums& sums);

  [[nodiscard]] std::size_t biases() const { return biases_.size(); }
  /// Adds the bias rows from one on to as many before them, which are of the same targets.
  void join_biases(std::size_t from);

  [[nodiscard]] const std::vector<EdgeRef>& edges() const { return edges_; }
  template <class Unwanted>
  void drop_edges(const Unwanted& unwanted) {
    std::erase_if(edges_, unwanted);
  }
  void drop_biases() { biases_.clear(); }

  /// bundle(node)  what is known of a node that is no output
  /// also          nodes that are there although no edge is kept at them
  template <class Bundle>
  [[nodiscard]] Circuit circuit(const Bundle& bundle, const std::vector<Node>& also) const;

 private:
  std::int32_t prompts_;
  std::vector<EdgeRef> edges_;
  std::vector<BiasRow> biases_;
  std::vector<std::pair<Node, TargetState>> explained_;
};

inline void FoundEdges::add_biases(EdgeType type, const StepTargets& targets, const ConstantSums& sums) {
  const double share = 1.0 / prompts_;
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    const auto& bias = sums.bias[static_cast<std::size_t>(t)];
    const auto& map = sums.map[static_cast<std::size_t>(t)];
    const auto& remainder = sums.remainder[static_cast<std::size_t>(t)];
    biases_.push_back({.target = targets.node(t),
                       .type = type,
                       .nn_attrib = share * bias.nn,
                       .em_attrib = share * bias.em,
                       .nn_map = share * map.nn,
                       .em_map = share * map.em,
                       .nn_remainder = share * remainder.nn,
                       .em_remainder = share * remainder.em});
  }
}

inline void FoundEdges::join_biases(std::size_t from) {
  const auto count = biases_.size() - from;
  for (std::size_t i = 0; i < count; ++i) {
    auto& sum = biases_[from - count + i];
    const auto& more = biases_[from + i];
    sum.nn_attrib += more.nn_attrib;
    sum.em_attrib += more.em_attrib;
    sum.nn_map += more.nn_map;
    sum.em_map += more.em_map;
  }
  biases_.resize(from);
}

template <class Bundle>
Circuit FoundEdges::circuit(const Bundle& bundle, const std::vector<Node>& also) const {
  CircuitInfo info;
  info.prompts = prompts_;
  Circuit out{std::move(info)};
  for (const auto& [node, state] : explained_) {
    out.add_node({.node = node,
                  .activation = state.activation,
                  .contrast_activation = 0,
                  .attribution = state.nodegrad * state.activation,
                  .nodegrad = state.nodegrad});
  }
  const auto add = [&](const Node& node) {
    if (!out.contains(node)) out.add_node(bundle(node));
  };
  for (const auto& e : edges_) {
    add(e.down);
    add(e.up);
  }
  for (const auto& node : also) add(node);
  for (const auto& e : edges_) out.add_edge(e.up, e.down, e.edge);
  for (const auto& row : biases_) {
    if (out.contains(row.target)) out.add_bias(row);
  }
  return out;
}

}  // namespace circuit::detail
