#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/io/json.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit {

/// The rows of a data set: one JSON value a line, blank lines passed over, or one list of all of them.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  as parse_json, naming the line
[[nodiscard]] inline std::vector<nlohmann::json> read_json_rows(const std::filesystem::path& path,
                                                                const JsonLimits& limits = {}) {
  const auto mapping = Mapping::open(path);
  const auto bytes = mapping->bytes();
  const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  constexpr std::string_view blank = " \t\r\n";
  const auto begin = text.find_first_not_of(blank);
  if (begin == text.npos) return {};
  if (text[begin] == '[') return parse_json(text, path, limits).get<std::vector<nlohmann::json>>();
  std::vector<nlohmann::json> rows;
  std::size_t number = 1;
  for (std::size_t start = 0; start < text.size(); ++number) {
    const auto stop = std::min(text.find('\n', start), text.size());
    const auto line = text.substr(start, stop - start);
    start = stop + 1;
    if (line.find_first_not_of(blank) == line.npos) continue;
    try {
      rows.push_back(parse_json(line, path, limits));
    } catch (const FormatError& error) {
      auto details = error.details();
      details.tensor = "line " + std::to_string(number);
      throw FormatError{std::move(details)};
    }
  }
  return rows;
}

}  // namespace circuit
