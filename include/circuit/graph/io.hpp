#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/error.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/graph/edge_table.hpp"
#include "circuit/graph/json_fields.hpp"

namespace circuit {

namespace detail {

inline constexpr std::string_view circuit_format = "circuit-graph";
inline constexpr std::int64_t circuit_format_version = 1;

/// Reads one circuit from parsed JSON, naming the place of whatever is wrong.
class CircuitReader {
 public:
  CircuitReader(const nlohmann::json& root, std::filesystem::path file) : root_{root}, file_{std::move(file)} {}

  [[nodiscard]] Circuit read() {
    place_ = "format";
    if (!root_.is_object()) fail("a JSON object", root_.type_name());
    if (text(root_, "format") != circuit_format) fail('"' + std::string{circuit_format} + '"', text(root_, "format"));
    place_ = "version";
    if (const auto version = integer(root_, "version"); version != circuit_format_version) {
      fail(std::to_string(circuit_format_version), std::to_string(version));
    }
    Circuit circuit{info()};
    each("nodes", [&](const nlohmann::json& item) {
      const NodeBundle bundle{.node = node(item, "node"),
                              .activation = number(item, "activation"),
                              .contrast_activation = number(item, "contrast_activation"),
                              .attribution = number(item, "attribution"),
                              .nodegrad = number(item, "nodegrad")};
      if (circuit.contains(bundle.node)) fail("each node once", to_string(bundle.node) + " again");
      circuit.add_node(bundle);
    });
    each("edges", [&](const nlohmann::json& item) {
      circuit.add_edge(node(item, "up"), node(item, "down"),
                       {.type = parse_edge_type(text(item, "type")),
                        .nn_grad = number(item, "nn_grad"),
                        .nn_attrib = number(item, "nn_attrib"),
                        .em_grad = number(item, "em_grad"),
                        .em_attrib = number(item, "em_attrib"),
                        .prompts = count(item, "prompts")});
    });
    each("biases", [&](const nlohmann::json& item) {
      const auto number_or_0 = [&](const char* key) { return item.contains(key) ? number(item, key) : 0.0; };
      circuit.add_bias({.target = node(item, "target"),
                        .type = parse_edge_type(text(item, "type")),
                        .nn_attrib = number(item, "nn_attrib"),
                        .em_attrib = number(item, "em_attrib"),
                        .nn_map = number_or_0("nn_map"),
                        .em_map = number_or_0("em_map"),
                        .nn_remainder = number_or_0("nn_remainder"),
                        .em_remainder = number_or_0("em_remainder")});
    });
    return circuit;
  }

 private:
  [[noreturn]] void fail(std::string expected, std::string got) const {
    throw FormatError{{.file = file_,
                       .tensor = place_,
                       .problem = "not a circuit of this format",
                       .expected = std::move(expected),
                       .got = std::move(got)}};
  }

  [[nodiscard]] const nlohmann::json& member(const nlohmann::json& object, const char* key) const {
    if (!object.is_object()) fail("a JSON object", object.type_name());
    const auto found = object.find(key);
    if (found == object.end()) fail('"' + std::string{key} + '"', "nothing");
    return *found;
  }
  [[nodiscard]] std::string text(const nlohmann::json& object, const char* key) const {
    const auto& value = member(object, key);
    if (!value.is_string()) fail('"' + std::string{key} + "\" to be a string", value.type_name());
    return value.get<std::string>();
  }
  [[nodiscard]] double number(const nlohmann::json& object, const char* key) const {
    const auto& value = member(object, key);
    if (!value.is_number()) fail('"' + std::string{key} + "\" to be a number", value.type_name());
    return value.get<double>();
  }
  [[nodiscard]] std::int64_t integer(const nlohmann::json& object, const char* key) const {
    const auto& value = member(object, key);
    if (!value.is_number_integer()) fail('"' + std::string{key} + "\" to be an integer", value.type_name());
    return value.get<std::int64_t>();
  }
  [[nodiscard]] std::int32_t count(const nlohmann::json& object, const char* key) const {
    const auto value = integer(object, key);
    if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) {
      fail('"' + std::string{key} + "\" to be 0 to 2147483647", std::to_string(value));
    }
    return static_cast<std::int32_t>(value);
  }
  [[nodiscard]] Node node(const nlohmann::json& object, const char* key) const { return parse_node(text(object, key)); }

  [[nodiscard]] CircuitInfo info() {
    CircuitInfo info;
    place_ = "prompts";
    info.prompts = count(root_, "prompts");
    place_ = "tokens";
    const auto& tokens = member(root_, "tokens");
    if (!tokens.is_array()) fail("an array", tokens.type_name());
    for (const auto& token : tokens) {
      if (!token.is_string()) fail("strings", token.type_name());
      info.tokens.push_back(token.get<std::string>());
    }
    place_ = "settings";
    const auto& settings = member(root_, "settings");
    if (!settings.is_object()) fail("an object", settings.type_name());
    for (const auto& [key, value] : settings.items()) {
      if (!value.is_string()) fail('"' + key + "\" to be a string", value.type_name());
      info.settings[key] = value.get<std::string>();
    }
    return info;
  }

  /// Runs `read` on each item of an array; what the circuit itself refuses is told with file and place.
  template <class Read>
  void each(const char* key, const Read& read) {
    place_ = key;
    const auto& array = member(root_, key);
    if (!array.is_array()) fail("an array", array.type_name());
    for (std::size_t i = 0; i < array.size(); ++i) {
      place_ = std::string{key} + '[' + std::to_string(i) + ']';
      try {
        read(array[i]);
      } catch (const FormatError&) {
        throw;
      } catch (const Error& e) {
        throw FormatError{{.file = file_, .tensor = place_, .problem = e.what()}};
      }
    }
  }

  const nlohmann::json& root_;
  std::filesystem::path file_;
  std::string place_;
};

}  // namespace detail

/// The circuit as JSON text; numbers read back exactly, and `parse_circuit` makes an equal circuit of it. Bytes of a
/// token that are not UTF-8 (a token may be part of a character) become U+FFFD, since JSON cannot hold them.
[[nodiscard]] inline std::string circuit_json(const Circuit& circuit) {
  using json = nlohmann::json;
  // The top level is joined by hand, so that the format stands first. (ordered_json would do that, but be instantiated for
  // this alone: a second more for every program.)
  const auto text_of = [](const json& value, std::string_view indent) {
    std::string result;
    for (const char c : value.dump(1, ' ', false, json::error_handler_t::replace)) {
      result += c;
      if (c == '\n') result += indent;  // JSON text has no line breaks inside strings
    }
    return result;
  };
  std::string text = "{";
  const auto part = [&text](std::string_view key, std::string_view value) {
    text.append(text.size() > 1 ? ",\n \"" : "\n \"").append(key).append("\": ").append(value);
  };
  const auto list = [&text_of](const std::vector<json>& items) {
    std::string all = "[";
    for (const auto& item : items) all.append(all.size() > 1 ? ",\n  " : "\n  ").append(text_of(item, "  "));
    return all + (items.empty() ? "]" : "\n ]");
  };
  part("format", text_of(detail::circuit_format, ""));
  part("version", text_of(detail::circuit_format_version, ""));
  part("prompts", text_of(circuit.info().prompts, " "));
  part("tokens", text_of(circuit.info().tokens, " "));
  part("settings", text_of(circuit.info().settings, " "));
  std::vector<json> nodes;
  for (const auto& bundle : circuit.nodes()) {
    nodes.push_back({{"node", to_string(bundle.node)},
                     {"activation", bundle.activation},
                     {"contrast_activation", bundle.contrast_activation},
                     {"attribution", bundle.attribution},
                     {"nodegrad", bundle.nodegrad}});
  }
  part("nodes", list(nodes));
  std::vector<json> edges;
  for (const auto& [up, down, edge] : circuit.edges()) {
    edges.push_back({{"up", to_string(up)}, {"down", to_string(down)}});
    detail::add_fields(edges.back(), edge);
  }
  part("edges", list(edges));
  std::vector<json> biases;
  for (const auto& row : circuit.biases()) {
    biases.push_back({{"target", to_string(row.target)}});
    detail::add_fields(biases.back(), row);
  }
  part("biases", list(biases));
  return text + "\n}\n";
}

/// The circuit that `circuit_json` wrote. `file` only appears in error messages.
/// throws  FormatError  when the text is not JSON, or a part is missing, of the wrong kind or refused by `Circuit`
[[nodiscard]] inline Circuit parse_circuit(std::string_view text, const std::filesystem::path& file = {}) {
  nlohmann::json root;
  try {
    root = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    throw FormatError{{.file = file, .problem = "not JSON", .got = e.what()}};
  }
  return detail::CircuitReader{root, file}.read();
}

/// Writes a circuit as JSON, whole or not at all.
/// throws  FileError  when the file cannot be written
inline void save_circuit(const std::filesystem::path& path, const Circuit& circuit) {
  write_file(path, circuit_json(circuit));
}

/// Reads a circuit that `save_circuit` wrote.
/// throws  FileError    when the file cannot be read
/// throws  FormatError  as parse_circuit
[[nodiscard]] inline Circuit load_circuit(const std::filesystem::path& path) {
  std::error_code none;
  std::ifstream stream{path, std::ios::binary};
  if (!stream || !std::filesystem::is_regular_file(path, none)) {
    throw FileError{{.file = path, .problem = "cannot be read as a file"}};
  }
  const std::string text{std::istreambuf_iterator<char>{stream}, {}};
  return parse_circuit(text, path);
}

}  // namespace circuit
