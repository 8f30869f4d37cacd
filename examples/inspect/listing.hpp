#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/io/gguf.hpp"
#include "circuit/report/table.hpp"

/// Tables of what is in a file of tensors.
namespace inspect {

[[nodiscard]] inline std::string type_name(const circuit::TensorView& tensor) {
  return std::string{dtype_name(tensor.dtype)};
}
[[nodiscard]] inline std::string type_name(const circuit::GgufTensor& tensor) {
  return std::string{ggml_name(tensor.type)};
}

/// "blk.3.attn_q.weight" -> "blk.*.attn_q.weight"
[[nodiscard]] inline std::string without_numbers(std::string_view name) {
  std::string pattern;
  const auto add = [&](std::string_view part) {
    const auto is_digit = [](unsigned char c) { return std::isdigit(c) != 0; };
    const bool number = !part.empty() && std::all_of(part.begin(), part.end(), is_digit);
    pattern += number ? "*" : std::string{part};
  };
  for (auto dot = name.find('.'); dot != name.npos; dot = name.find('.')) {
    add(name.substr(0, dot));
    pattern += '.';
    name.remove_prefix(dot + 1);
  }
  add(name);
  return pattern;
}

/// Tensors that differ in nothing but numbers in their names, such as a weight of every block, are one row.
template <class File>
void print_tensors(const File& file) {
  struct Row {
    std::vector<std::string> key;
    std::size_t count;
  };
  std::vector<Row> rows;
  std::size_t bytes = 0;
  for (const auto& tensor : file.tensors()) {
    bytes += tensor.bytes.size();
    const std::vector<std::string> key{without_numbers(tensor.name), circuit::detail::shape_text(tensor.shape),
                                       type_name(tensor)};
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return row.key == key; });
    if (same == rows.end()) {
      rows.push_back({key, 1});
    } else {
      ++same->count;
    }
  }
  std::cout << file.tensors().size() << " tensors, " << bytes << " bytes\n";
  circuit::TextTable table{{"  name", "count", "shape", "type"}};
  for (const auto& [key, count] : rows) table.add_row({"  " + key[0], std::to_string(count), key[1], key[2]});
  if (!rows.empty()) std::cout << table;
}

/// One line for every entry of a JSON object; long ones are cut.
inline void print_values(const std::string& title, const nlohmann::json& values) {
  constexpr std::size_t longest = 80;
  if (values.empty()) return;
  std::cout << title << '\n';
  for (const auto& [key, value] : values.items()) {
    auto text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (text.size() > longest) text = circuit::to_valid_utf8(text.substr(0, longest)) + " ...";
    std::cout << "  " << circuit::one_line(key) << ": " << circuit::one_line(text) << '\n';
  }
}

inline void print_values(const circuit::GgufMetadata& metadata) {
  std::cout << "metadata\n";
  for (const auto& [key, value] : metadata.values()) {
    std::cout << "  " << circuit::one_line(key) << ": " << circuit::one_line(describe(value)) << '\n';
  }
}

}  // namespace inspect
