#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit::detail::flat_yaml {

inline constexpr std::size_t largest = 1U << 20U;

[[nodiscard]] inline std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(' ');
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

/// Whether a value may begin behind this part of a line, so that a quote there is one.
[[nodiscard]] inline bool begins_value(std::string_view before) {
  before = trimmed(before);
  return before.empty() || before == "-" || before.ends_with(':');
}

/// The line without a comment, which starts with a # at its start or behind a space, outside quotes.
[[nodiscard]] inline std::string_view without_comment(std::string_view line) {
  char quote = '\0';
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (quote != '\0') {
      if (line[i] == quote) quote = '\0';
    } else if ((line[i] == '"' || line[i] == '\'') && begins_value(line.substr(0, i))) {
      quote = line[i];
    } else if (line[i] == '#' && (i == 0 || line[i - 1] == ' ')) {
      return line.substr(0, i);
    }
  }
  return line;
}

class Reader {
 public:
  Reader(std::string_view text, const std::filesystem::path& file) : text_{text}, file_{file} {}

  [[nodiscard]] nlohmann::json read() {
    auto out = nlohmann::json::object();
    std::string list_key;  // of a key without a value, whose list may follow
    while (!text_.empty()) {
      const auto line = next_line();
      if (line.find('\t') != line.npos) fail("a tab");
      const auto content = trimmed(line);
      if (content.empty() || (line_ == 1 && content == "---")) continue;
      if (content.starts_with("- ") || content == "-") {
        if (list_key.empty()) fail("a list without a key");
        if (out[list_key].is_null()) out[list_key] = nlohmann::json::array();
        out[list_key].push_back(scalar(trimmed(content.substr(1))));
        continue;
      }
      if (line.front() == ' ') fail("a nested mapping");
      const auto colon = content.find(':');
      if (colon == content.npos || (colon + 1 < content.size() && content[colon + 1] != ' '))
        fail("a line without a key");
      const std::string key{content.substr(0, colon)};
      if (key.empty() || key.find_first_of("\"'{}[]&*!|>%@` ") != key.npos) fail("a key that is no plain word");
      if (out.contains(key)) fail("a key given twice");
      const auto value = trimmed(content.substr(colon + 1));
      out[key] = value.empty() ? nlohmann::json{} : scalar(value);
      list_key = value.empty() ? key : std::string{};
    }
    return out;
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw FormatError{{.file = file_,
                       .problem = "YAML that is not read, in line " + std::to_string(line_),
                       .expected = "\"key: value\", and lists of values",
                       .got = what}};
  }
  [[nodiscard]] std::string_view next_line() {
    const auto end = text_.find('\n');
    auto line = text_.substr(0, end);
    text_.remove_prefix(end == text_.npos ? text_.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++line_;
    return without_comment(line);
  }
  /// A quoted text, a whole number, true, false, null, or a text as it stands.
  [[nodiscard]] nlohmann::json scalar(std::string_view value) const {
    if (value.empty()) return nullptr;
    const char first = value.front();
    if (first == '"' || first == '\'') {
      if (value.size() < 2 || value.back() != first) fail("a quote that does not end");
      const auto inner = value.substr(1, value.size() - 2);
      if (inner.find(first) != inner.npos || inner.find('\\') != inner.npos) fail("an escape in quotes");
      return std::string{inner};
    }
    if (std::string_view{"[{&*!|>%@`"}.find(first) != std::string_view::npos) fail("a flow, block or tagged value");
    if (value.find(": ") != value.npos || value.ends_with(':') || value.starts_with("- "))
      fail("a nested mapping or list");
    if (value == "true") return true;
    if (value == "false") return false;
    if (value == "null" || value == "~") return nullptr;
    std::int64_t number = 0;
    const auto [rest, status] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (status == std::errc{} && rest == value.data() + value.size()) return number;
    return std::string{value};
  }

  std::string_view text_;
  const std::filesystem::path& file_;
  std::size_t line_ = 0;
};

}  // namespace circuit::detail::flat_yaml

namespace circuit {

/// Reads the part of YAML that flat configuration files need: `key: value` lines, lists of values under a key,
/// comments. Everything else (nested mappings, anchors, tags, flow and block values, escapes) is refused by name, never
/// guessed.
/// throws  FormatError  with the line; over a mebibyte; not UTF-8
[[nodiscard]] inline nlohmann::json parse_flat_yaml(std::string_view text, const std::filesystem::path& file = {}) {
  if (text.size() > detail::flat_yaml::largest) {
    throw FormatError{{.file = file, .problem = "is too large", .expected = "at most a mebibyte"}};
  }
  if (const auto byte = first_invalid_utf8(text); byte < text.size()) {
    throw FormatError{{.file = file, .problem = "is not UTF-8 at byte " + std::to_string(byte)}};
  }
  return detail::flat_yaml::Reader{text, file}.read();
}

/// throws  FileError when `path` cannot be read;  as parse_flat_yaml
[[nodiscard]] inline nlohmann::json read_flat_yaml(const std::filesystem::path& path) {
  const auto mapping = Mapping::open(path);
  const auto bytes = mapping->bytes();
  return parse_flat_yaml({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

}  // namespace circuit
