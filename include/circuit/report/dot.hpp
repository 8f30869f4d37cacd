#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/core/shown_text.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/graph/edge_table.hpp"
#include "circuit/report/table.hpp"

/// A circuit for other programs that draw or analyse graphs.
namespace circuit {

namespace detail {

[[nodiscard]] constexpr std::string_view edge_color(EdgeType type) {
  switch (type) {
    case EdgeType::ov: return "#2b74d4";
    case EdgeType::q: return "#d96b00";
    case EdgeType::k: return "#1f9250";
    case EdgeType::mlp: return "#8d4fc7";
    case EdgeType::resid: return "#6b7280";
    default: return "#cf2f63";
  }
}

/// A quoted string of the DOT language.
[[nodiscard]] inline std::string dot_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : one_line(text)) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

[[nodiscard]] inline std::string token_at(const Circuit& circuit, const Node& node) {
  const auto& tokens = circuit.info().tokens;
  const auto p = static_cast<std::size_t>(node.position.value);
  return has_position(node.kind) && p < tokens.size() ? token_label(tokens[p]) : std::string{};
}

}  // namespace detail

/// The circuit in Graphviz's DOT language, layers upward: `dot -Tsvg`. An edge's colour is its type, its width grows
/// with its attribution, and a dashed edge is negative.
[[nodiscard]] inline std::string dot(const Circuit& circuit, Attribution shown = Attribution::em) {
  double largest = 0;
  for (const auto& ref : circuit.edges()) largest = std::max(largest, magnitude(ref.edge, shown));
  std::string text =
      "digraph circuit {\n  rankdir=BT;\n  node [shape=box, style=rounded, fontname=\"Helvetica\", fontsize=10];\n"
      "  edge [arrowsize=0.5];\n";
  std::map<std::int32_t, std::string> ranks;
  for (const auto& bundle : circuit.nodes()) {
    const auto id = detail::dot_string(to_string(bundle.node));
    const auto token = detail::token_at(circuit, bundle.node);
    text += "  " + id + " [label=" + detail::dot_string(to_string(bundle.node) + (token.empty() ? "" : " " + token)) +
            "];\n";
    ranks[depth(bundle.node)] += ' ' + id + ';';
  }
  for (const auto& [level, ids] : ranks) text += "  { rank=same;" + ids + " }\n";
  for (const auto& [up, down, edge] : circuit.edges()) {
    const double share = largest > 0 ? magnitude(edge, shown) / largest : 0;
    text += "  " + detail::dot_string(to_string(up)) + " -> " + detail::dot_string(to_string(down)) + " [color=\"" +
            std::string{detail::edge_color(edge.type)} + "\", penwidth=" + fixed(0.5 + 3.5 * share, 2) +
            (value(edge, shown) < 0 ? ", style=dashed" : "") + ", tooltip=" +
            detail::dot_string(std::string{name(edge.type)} + ' ' + std::string{name(shown)} + ' ' +
                               exact_text(value(edge, shown))) +
            "];\n";
  }
  return text + "}\n";
}

/// The circuit as GraphML with every value of its nodes and edges, for NetworkX, Gephi, igraph and the like. Parallel
/// edges keep their own ids; numbers read back exactly.
[[nodiscard]] inline std::string graphml(const Circuit& circuit) {
  std::string text =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n";
  const auto key = [&text](std::string_view target, std::string_view name, std::string_view type) {
    // Nodes and edges have keys of their own even where the names are the same.
    text += "  <key id=\"" + std::string{target} + '_' + std::string{name} + "\" for=\"" + std::string{target} +
            "\" attr.name=\"" + std::string{name} + "\" attr.type=\"" + std::string{type} + "\"/>\n";
  };
  for (const auto* word : {"kind", "token"}) key("node", word, "string");
  for (const auto* whole : {"layer", "position", "feature"}) key("node", whole, "int");
  for (const auto* real : {"activation", "contrast_activation", "attribution", "nodegrad"}) key("node", real, "double");
  key("edge", "type", "string");
  for (const auto* real : {"nn_grad", "nn_attrib", "em_grad", "em_attrib"}) key("edge", real, "double");
  key("edge", "prompts", "int");
  text += "  <graph id=\"circuit\" edgedefault=\"directed\">\n";
  const auto data = [&text](std::string_view key_id, std::string_view value) {
    text += "<data key=\"" + std::string{key_id} + "\">" + xml_escape(value) + "</data>";
  };
  for (const auto& [node, activation, contrast, attribution, nodegrad] : circuit.nodes()) {
    text += "    <node id=\"" + to_string(node) + "\">";
    data("node_kind", name(node.kind));
    if (has_position(node.kind)) data("node_token", detail::token_at(circuit, node));
    if (has_layer(node.kind)) data("node_layer", std::to_string(node.layer.value));
    if (has_position(node.kind)) data("node_position", std::to_string(node.position.value));
    if (has_feature(node.kind)) data("node_feature", std::to_string(node.feature.value));
    data("node_activation", exact_text(activation));
    data("node_contrast_activation", exact_text(contrast));
    data("node_attribution", exact_text(attribution));
    data("node_nodegrad", exact_text(nodegrad));
    text += "</node>\n";
  }
  std::size_t id = 0;
  for (const auto& [up, down, edge] : circuit.edges()) {
    text += "    <edge id=\"e" + std::to_string(id++) + "\" source=\"" + to_string(up) + "\" target=\"" +
            to_string(down) + "\">";
    data("edge_type", name(edge.type));
    data("edge_nn_grad", exact_text(edge.nn_grad));
    data("edge_nn_attrib", exact_text(edge.nn_attrib));
    data("edge_em_grad", exact_text(edge.em_grad));
    data("edge_em_attrib", exact_text(edge.em_attrib));
    data("edge_prompts", std::to_string(edge.prompts));
    text += "</edge>\n";
  }
  return text + "  </graph>\n</graphml>\n";
}

}  // namespace circuit
