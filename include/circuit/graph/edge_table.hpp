#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/graph/circuit.hpp"

namespace circuit {

/// Columns of an edge table. `activation` and `contrast_activation` are the upstream node's. A part that a node does
/// not have (the metric's layer, an error's feature) is an empty field.
inline constexpr std::array<std::string_view, 16> edge_table_columns{
    "prompt",       "up_kind",   "up_layer",   "up_position",
    "up_feature",   "down_kind", "down_layer", "down_position",
    "down_feature", "type",      "nn_grad",    "nn_attrib",
    "em_grad",      "em_attrib", "activation", "contrast_activation"};

/// Every edge of one or more circuits as rows of text: the mean over a batch, or one circuit per prompt. A target's
/// constants follow its circuit's edges as rows whose `up_kind` is `bias` (and `map`, where a contrast has one), with empty
/// gradients and activations.
/// Numbers are written so that they read back exactly.
class EdgeTable {
 public:
  explicit EdgeTable(char separator = ',') : separator_{separator} {
    for (const auto column : edge_table_columns) field(column);
    end_row();
  }

  /// Adds all edges and constants of a circuit under a label, `mean` or a prompt's index.
  /// throws  ValueError  when the label holds a separator, a quote or a line break
  void append(const Circuit& circuit, std::string_view prompt = "mean");
  void append(const Circuit& circuit, Prompt prompt) { append(circuit, std::to_string(prompt.value)); }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  // The first field of a row, the label, is never empty, so a line's start is a row's start.
  void field(std::string_view words) {
    if (!text_.empty() && text_.back() != '\n') text_ += separator_;
    text_ += words;
  }
  void number(double value) { field(exact_text(value)); }
  void part(bool present, std::int32_t value) { field(present ? std::to_string(value) : std::string{}); }
  void node(const Node& n) {
    field(name(n.kind));
    part(has_layer(n.kind), n.layer.value);
    part(has_position(n.kind), n.position.value);
    part(has_feature(n.kind), n.feature.value);
  }
  void end_row() { text_ += '\n'; }

  char separator_;
  std::string text_;
};

inline void EdgeTable::append(const Circuit& circuit, std::string_view prompt) {
  if (prompt.empty() || prompt.find_first_of(std::string{"\"\r\n"} + separator_) != std::string_view::npos) {
    throw ValueError{{.tensor = "prompt",
                      .problem = "cannot be a label of table rows",
                      .expected = "mean or an index",
                      .got = '"' + std::string{prompt} + '"'}};
  }
  for (const auto& [up, down, edge] : circuit.edges()) {
    const auto& source = circuit.bundle(up);
    field(prompt);
    node(up);
    node(down);
    field(name(edge.type));
    for (const auto value :
         {edge.nn_grad, edge.nn_attrib, edge.em_grad, edge.em_attrib, source.activation, source.contrast_activation}) {
      number(value);
    }
    end_row();
  }
  const auto constant = [&](NodeKind kind, const BiasRow& row, double nn, double em) {
    field(prompt);
    node({.kind = kind});
    node(row.target);
    field(name(row.type));
    field({});
    number(nn);
    field({});
    number(em);
    field({});
    field({});
    end_row();
  };
  for (const auto& row : circuit.biases()) {
    constant(NodeKind::bias, row, row.nn_attrib, row.em_attrib);
    if (row.nn_map != 0) constant(NodeKind::map, row, row.nn_map, row.em_map);
    if (row.nn_remainder != 0) constant(NodeKind::remainder, row, row.nn_remainder, row.em_remainder);
  }
}

/// Tab for `.tsv` and `.tab`, else comma.
[[nodiscard]] inline char table_separator(const std::filesystem::path& path) {
  return path.extension() == ".tsv" || path.extension() == ".tab" ? '\t' : ',';
}

/// Writes the edge table of one circuit, whole or not at all; the separator follows the file's name.
/// throws  FileError  when the file cannot be written
inline void save_edge_table(const std::filesystem::path& path, const Circuit& circuit,
                            std::string_view prompt = "mean") {
  EdgeTable table{table_separator(path)};
  table.append(circuit, prompt);
  write_file(path, table.text());
}

}  // namespace circuit
