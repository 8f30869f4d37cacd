#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/model/components.hpp"
#include "circuit/search/edge_scores.hpp"

namespace circuit {

/// Who reads, and by what.
struct Receiver {
  Node node{};
  EdgeType type{};
};

[[nodiscard]] inline Node sender_node(const Components& c, std::int64_t sender) {
  if (sender == 0) return Node::input();
  const auto per_layer = c.mlp(Layer{0}) - 1 + (c.mlps ? 1 : 0);
  const Layer layer{static_cast<std::int32_t>((sender - 1) / per_layer)};
  const auto place = static_cast<std::int32_t>(sender - c.first_head(layer));
  return place < c.n_heads ? Node::head(layer, Head{place}) : Node::mlp_block(layer);
}

[[nodiscard]] inline Receiver receiver_of(const Components& c, std::int64_t receiver) {
  if (receiver == c.logits()) return {Node::metric(), EdgeType::metric};
  const Layer layer{static_cast<std::int32_t>(receiver / c.first_query(Layer{1}))};
  const auto place = receiver - c.first_query(layer);
  if (place == 3 * c.n_heads) return {Node::mlp_block(layer), EdgeType::mlp};
  constexpr std::array types{EdgeType::q, EdgeType::k, EdgeType::ov};
  return {Node::head(layer, Head{static_cast<std::int32_t>(place % c.n_heads)}),
          types[static_cast<std::size_t>(place / c.n_heads)]};
}

/// Where a node stands among the senders.
/// throws  NameError  when it is not a component of this model that writes
[[nodiscard]] inline std::int64_t sender_index(const Components& c, const Node& node);
/// Where an edge's end stands among the receivers.
/// throws  NameError  when it is not a component of this model that reads so
[[nodiscard]] inline std::int64_t receiver_index(const Components& c, const Node& node, EdgeType type);

/// The edges [senders, receivers] that a rule keeps; it is shown the receivers of one layer and type at a time.
/// scores  [senders, receivers] float64
template <KeepRule Keep>
[[nodiscard]] at::Tensor keep_edges(const Components& c, const at::Tensor& scores, const Keep& keep);

/// The n edges of largest magnitude, zeros left out.  [senders, receivers] bool
[[nodiscard]] inline at::Tensor top_edges(const at::Tensor& scores, std::int64_t n) {
  return top_n(scores.abs(), n).kept;
}

/// The chosen edges as a circuit. A node's attribution is the sum over all it sends, chosen or not.
/// scores  [senders, receivers] float64, metric units   chosen  [senders, receivers] bool
/// throws  ShapeError; ValueError for a score that is not finite
[[nodiscard]] inline Circuit component_circuit(const Components& c, const at::Tensor& scores, const at::Tensor& chosen,
                                               CircuitInfo info = {});

/// A circuit's edges as a matrix [senders, receivers] of bool.
/// throws  NameError  when it holds an edge that these components do not have
[[nodiscard]] inline at::Tensor edge_mask(const Components& c, const Circuit& circuit) {
  auto mask = make::zeros({c.senders(), c.receivers()}, at::kBool);
  for (const auto& [up, down, edge] : circuit.edges()) {
    mask.select(0, sender_index(c, up)).select(0, receiver_index(c, down, edge.type)).fill_(true);
  }
  return mask;
}

}  // namespace circuit

namespace circuit::detail {

[[nodiscard]] inline bool is_of(const Components& c, const Node& node) {
  return node.layer.value < c.n_layers && (node.kind != NodeKind::head || node.feature.value < c.n_heads) &&
         (node.kind != NodeKind::mlp_block || c.mlps);
}

[[noreturn]] inline void not_a_component(const Node& node) {
  throw NameError{{.tensor = to_string(node),
                   .problem = "is not a component of this model",
                   .expected = "input, head.LAYER.HEAD, mlp_block.LAYER or, as a target, metric"}};
}

}  // namespace circuit::detail

inline std::int64_t circuit::sender_index(const Components& c, const Node& node) {
  if (node == Node::input()) return 0;
  if (!is_component(node.kind) || !detail::is_of(c, node)) detail::not_a_component(node);
  return node.kind == NodeKind::head ? c.first_head(node.layer) + node.feature.value : c.mlp(node.layer);
}

inline std::int64_t circuit::receiver_index(const Components& c, const Node& node, EdgeType type) {
  if (node == Node::metric()) return c.logits();
  if (!is_component(node.kind) || node.kind == NodeKind::input || !detail::is_of(c, node)) {
    detail::not_a_component(node);
  }
  if (node.kind == NodeKind::mlp_block) return c.mlp_in(node.layer);
  const auto first = type == EdgeType::q   ? c.first_query(node.layer)
                     : type == EdgeType::k ? c.first_key(node.layer)
                                           : c.first_value(node.layer);
  return first + node.feature.value;
}

template <circuit::KeepRule Keep>
at::Tensor circuit::keep_edges(const Components& c, const at::Tensor& scores, const Keep& keep) {
  check_edges(scores, c, "scores");
  static_assert(!CountsPrompts<Keep>, "edges between components have one score for all prompts");
  if constexpr (requires { keep.needs_counts(); }) {
    if (keep.needs_counts()) {
      throw ConfigError{
          {.tensor = "keep", .problem = "a rule that counts prompts, where edges have one score for all"}};
    }
  }
  auto kept = make::zeros(scores.sizes(), at::kBool);
  for (std::int64_t r = 0; r < c.receivers();) {
    const auto type = receiver_of(c, r).type;
    const auto readers = type == EdgeType::mlp || type == EdgeType::metric ? 1 : c.n_heads;
    const auto block = [&](at::Tensor& t) { return t.narrow(0, 0, c.before(r)).narrow(1, r, readers); };
    auto all = scores;
    block(kept).copy_(keep.keep({type, block(all).t().contiguous(), {}, 1}).kept.t());
    r += readers;
  }
  return kept;
}

inline circuit::Circuit circuit::component_circuit(const Components& c, const at::Tensor& scores,
                                                   const at::Tensor& chosen, CircuitInfo info) {
  check_edges(scores, c, "scores");
  check_edges(chosen, c, "chosen edges");
  const auto all = scores.to(at::kDouble).contiguous();
  const auto mask = chosen.logical_and(c.edge_mask()).contiguous();
  const auto sent = all.sum(1);
  Circuit out{std::move(info)};
  const auto score = [&](std::int64_t s, std::int64_t r) { return data_of<double>(all)[s * c.receivers() + r]; };
  out.add_node({.node = Node::metric(), .activation = 1, .nodegrad = 1});
  for (std::int64_t s = 0; s < c.senders(); ++s) {
    for (std::int64_t r = 0; r < c.receivers(); ++r) {
      if (!data_of<bool>(mask)[s * c.receivers() + r]) continue;
      const auto up = sender_node(c, s);
      const auto [down, type] = receiver_of(c, r);
      out.add_node({.node = up, .attribution = data_of<double>(sent)[s]});
      if (!out.contains(down))
        out.add_node({.node = down, .attribution = data_of<double>(sent)[sender_index(c, down)]});
      out.add_edge(up, down, {.type = type, .em_attrib = score(s, r)});
    }
  }
  return out;
}
