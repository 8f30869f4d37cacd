#pragma once

#include <array>
#include <charconv>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/core/id.hpp"

namespace circuit {

/// What a node of the replacement model is.
enum class NodeKind : std::uint8_t {
  embedding,           ///< token embedding, with the position's where the two are not told apart
  position_embedding,  ///< position embedding, where it is a node of its own
  attn_feature,        ///< feature of an attention dictionary, or a z dimension in the neuron basis
  attn_error,          ///< what an attention dictionary misses
  attn_output,         ///< whole output of an attention layer that has no dictionary
  mlp_feature,         ///< feature of a transcoder, or a neuron in the neuron basis
  mlp_error,           ///< what a transcoder misses
  mlp_output,          ///< whole output of an MLP that has no dictionary
  bias,                ///< all constants that a target reads; only in tables, never in a graph
  map,                 ///< what transparent modules' maps differ by in a contrast; only in tables too
  metric,              ///< the number that is explained
  logit,          ///< one of several logits that are explained, less the mean of all; its token stands for a feature
  input,          ///< embeddings of all positions, where nodes are whole components
  head,           ///< a whole attention head, at all positions
  mlp_block,      ///< a whole MLP, at all positions
  remainder,      ///< what a module that is not linear does beyond its derivative; only in tables, as bias and map
  resid_feature,  ///< feature of a dictionary of the residual stream before a layer (behind the last: layer n_layers)
  resid_error,    ///< what such a dictionary misses
};

namespace detail {

inline constexpr std::array<std::string_view, 18> node_kind_names{
    "embed", "pos_embed", "attn",  "attn_error", "attn_out", "mlp",       "mlp_error", "mlp_out", "bias",
    "map",   "metric",    "logit", "input",      "head",     "mlp_block", "remainder", "resid",   "resid_error"};

}  // namespace detail

/// The kind as it is spelled in files and reports: `embed`, `pos_embed`, `attn`, `attn_error`, ...
[[nodiscard]] constexpr std::string_view name(NodeKind kind) {
  return detail::node_kind_names[static_cast<std::size_t>(kind)];
}

/// Whether a kind stands for a sum over many places: a row of tables, never a node of a graph.
[[nodiscard]] constexpr bool is_table_row(NodeKind kind) {
  return kind == NodeKind::bias || kind == NodeKind::map || kind == NodeKind::remainder;
}
/// Whether a kind is a whole component of the model, at all positions at once.
[[nodiscard]] constexpr bool is_component(NodeKind kind) {
  return kind == NodeKind::input || kind == NodeKind::head || kind == NodeKind::mlp_block;
}
[[nodiscard]] constexpr bool has_position(NodeKind kind) {
  return !is_table_row(kind) && !is_component(kind) && kind != NodeKind::metric;
}
[[nodiscard]] constexpr bool is_embedding(NodeKind kind) {
  return kind == NodeKind::embedding || kind == NodeKind::position_embedding;
}
/// Whether a kind is what a circuit explains.
[[nodiscard]] constexpr bool is_output(NodeKind kind) { return kind == NodeKind::metric || kind == NodeKind::logit; }
[[nodiscard]] constexpr bool has_layer(NodeKind kind) {
  return (has_position(kind) && !is_embedding(kind) && kind != NodeKind::logit) || kind == NodeKind::head ||
         kind == NodeKind::mlp_block;
}
[[nodiscard]] constexpr bool is_feature(NodeKind kind) {
  return kind == NodeKind::attn_feature || kind == NodeKind::mlp_feature || kind == NodeKind::resid_feature;
}
/// Whether `Node::feature` says something: the number of a feature or of a head, or a token.
[[nodiscard]] constexpr bool has_feature(NodeKind kind) {
  return is_feature(kind) || kind == NodeKind::head || kind == NodeKind::logit;
}
[[nodiscard]] constexpr bool is_error(NodeKind kind) {
  return kind == NodeKind::attn_error || kind == NodeKind::mlp_error || kind == NodeKind::resid_error;
}
/// Whether a kind is part of the residual stream itself, not of what a module adds to it.
[[nodiscard]] constexpr bool is_stream(NodeKind kind) {
  return kind == NodeKind::resid_feature || kind == NodeKind::resid_error;
}
[[nodiscard]] constexpr bool is_attention(NodeKind kind) {
  return kind == NodeKind::attn_feature || kind == NodeKind::attn_error || kind == NodeKind::attn_output ||
         kind == NodeKind::head;
}
[[nodiscard]] constexpr bool is_mlp(NodeKind kind) {
  return kind == NodeKind::mlp_feature || kind == NodeKind::mlp_error || kind == NodeKind::mlp_output ||
         kind == NodeKind::mlp_block;
}

/// One node of a circuit. A head's number stands where a feature's does. Parts that a kind does not have (the metric's
/// layer, an error's feature) are 0; the named
/// constructors below see to it, so that equal nodes compare equal.
struct Node {
  NodeKind kind{};
  Layer layer{};
  Position position{};
  Feature feature{};

  friend constexpr auto operator<=>(const Node&, const Node&) = default;

  [[nodiscard]] static constexpr Node embedding(Position p) { return {NodeKind::embedding, Layer{0}, p, Feature{0}}; }
  [[nodiscard]] static constexpr Node position_embedding(Position p) {
    return {NodeKind::position_embedding, Layer{0}, p, Feature{0}};
  }
  [[nodiscard]] static constexpr Node attn_feature(Layer l, Position p, Feature f) {
    return {NodeKind::attn_feature, l, p, f};
  }
  [[nodiscard]] static constexpr Node attn_error(Layer l, Position p) {
    return {NodeKind::attn_error, l, p, Feature{0}};
  }
  [[nodiscard]] static constexpr Node attn_output(Layer l, Position p) {
    return {NodeKind::attn_output, l, p, Feature{0}};
  }
  [[nodiscard]] static constexpr Node mlp_feature(Layer l, Position p, Feature f) {
    return {NodeKind::mlp_feature, l, p, f};
  }
  [[nodiscard]] static constexpr Node mlp_error(Layer l, Position p) { return {NodeKind::mlp_error, l, p, Feature{0}}; }
  [[nodiscard]] static constexpr Node mlp_output(Layer l, Position p) {
    return {NodeKind::mlp_output, l, p, Feature{0}};
  }
  [[nodiscard]] static constexpr Node resid_feature(Layer l, Position p, Feature f) {
    return {NodeKind::resid_feature, l, p, f};
  }
  [[nodiscard]] static constexpr Node resid_error(Layer l, Position p) {
    return {NodeKind::resid_error, l, p, Feature{0}};
  }
  [[nodiscard]] static constexpr Node input() { return {NodeKind::input, Layer{0}, Position{0}, Feature{0}}; }
  [[nodiscard]] static constexpr Node head(Layer l, Head h) {
    return {NodeKind::head, l, Position{0}, Feature{h.value}};
  }
  [[nodiscard]] static constexpr Node mlp_block(Layer l) { return {NodeKind::mlp_block, l, Position{0}, Feature{0}}; }
  [[nodiscard]] static constexpr Node logit(Position p, std::int32_t token) {
    return {NodeKind::logit, Layer{0}, p, Feature{token}};
  }
  [[nodiscard]] static constexpr Node metric() { return {NodeKind::metric, Layer{0}, Position{0}, Feature{0}}; }
};
static_assert(sizeof(Node) == 16);

/// Place along the residual stream of sequential blocks: embeddings 0, the stream before layer l at 3l+1, the layer's
/// attention at 3l+2, its MLP at 3l+3, the metric and logits after all. An edge runs from a smaller depth to a larger
/// one, which is what makes a circuit acyclic.
[[nodiscard]] constexpr std::int32_t depth(const Node& node) {
  if (is_output(node.kind)) return std::numeric_limits<std::int32_t>::max();
  if (!has_layer(node.kind)) return 0;
  return 3 * node.layer.value + (is_stream(node.kind) ? 1 : is_attention(node.kind) ? 2 : 3);
}

/// `attn.5.10.7515` (layer, position, feature), `mlp_error.3.4`, `embed.4`, `metric`, `logit.10.42` (position, token),
/// `head.9.6` (layer, head).
[[nodiscard]] inline std::string to_string(const Node& node) {
  std::string text{name(node.kind)};
  if (has_layer(node.kind)) text += '.' + std::to_string(node.layer.value);
  if (has_position(node.kind)) text += '.' + std::to_string(node.position.value);
  if (has_feature(node.kind)) text += '.' + std::to_string(node.feature.value);
  return text;
}

inline std::ostream& operator<<(std::ostream& out, NodeKind kind) { return out << name(kind); }
inline std::ostream& operator<<(std::ostream& out, const Node& node) { return out << to_string(node); }

/// The kind that `name` spells.
/// throws  NameError  when there is none
[[nodiscard]] inline NodeKind parse_node_kind(std::string_view text) {
  for (std::size_t i = 0; i < detail::node_kind_names.size(); ++i) {
    if (detail::node_kind_names[i] == text) return static_cast<NodeKind>(i);
  }
  throw NameError{{.problem = "no such kind of node",
                   .expected = "embed, pos_embed, attn, attn_error, attn_out, mlp, mlp_error, mlp_out, bias, metric, "
                               "logit, input, head, mlp_block, resid or resid_error",
                   .got = '"' + std::string{text} + '"'}};
}

/// The node that `to_string` spells.
/// throws  NameError  when the text is not exactly what `to_string` would print for some node
[[nodiscard]] inline Node parse_node(std::string_view text) {
  std::string_view rest = text;
  const auto next_part = [&rest] {
    const auto dot = rest.find('.');
    const auto part = rest.substr(0, dot);
    rest = dot == std::string_view::npos ? std::string_view{} : rest.substr(dot + 1);
    return part;
  };
  Node node{.kind = parse_node_kind(next_part())};
  const auto next_number = [&](bool wanted) -> std::int32_t {
    if (!wanted) return 0;
    const auto part = next_part();
    std::int32_t value = -1;
    std::from_chars(part.data(), part.data() + part.size(), value);
    return value;
  };
  node.layer = Layer{next_number(has_layer(node.kind))};
  node.position = Position{next_number(has_position(node.kind))};
  node.feature = Feature{next_number(has_feature(node.kind))};
  if (to_string(node) != text || node.layer.value < 0 || node.position.value < 0 || node.feature.value < 0) {
    throw NameError{{.problem = "not a node",
                     .expected = "text such as attn.5.10.7515, mlp_error.3.4, embed.4 or metric",
                     .got = '"' + std::string{text} + '"'}};
  }
  return node;
}

}  // namespace circuit

template <>
struct std::hash<circuit::Node> {
  [[nodiscard]] std::size_t operator()(const circuit::Node& node) const noexcept {
    using circuit::detail::hash_combine;
    auto seed = static_cast<std::size_t>(node.kind);
    seed = hash_combine(seed, static_cast<std::size_t>(node.layer.value));
    seed = hash_combine(seed, static_cast<std::size_t>(node.position.value));
    return hash_combine(seed, static_cast<std::size_t>(node.feature.value));
  }
};
