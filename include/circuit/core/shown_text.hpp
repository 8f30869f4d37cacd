#pragma once

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/core/utf8.hpp"

/// Text that is safe to show: tokens hold any bytes, among them markup, line breaks and parts of characters.
namespace circuit {

namespace detail {

/// Calls `take` with each character, a byte that is none as U+FFFD.
template <class Take>
void for_each_character(std::string_view text, const Take& take) {
  while (!text.empty()) {
    const auto step = utf8_step(text);
    take(step.valid ? text.substr(0, step.length) : std::string_view{"\xEF\xBF\xBD"});
    text.remove_prefix(step.valid ? step.length : 1);
  }
}

}  // namespace detail

/// Shortest text that reads back as the same double.
[[nodiscard]] inline std::string exact_text(double value) {
  std::array<char, 32> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end};
}

/// Number of characters, broken bytes counting one each.
[[nodiscard]] inline std::size_t text_width(std::string_view text) {
  std::size_t width = 0;
  detail::for_each_character(text, [&width](std::string_view) { ++width; });
  return width;
}

/// The text on one line: line breaks, tabs and other controls spelled out, broken bytes as U+FFFD.
[[nodiscard]] inline std::string one_line(std::string_view text) {
  constexpr std::string_view hex = "0123456789abcdef";
  std::string line;
  detail::for_each_character(text, [&](std::string_view character) {
    const auto c = static_cast<std::uint8_t>(character.front());
    if (c == '\n') {
      line += "\\n";
    } else if (c == '\r') {
      line += "\\r";
    } else if (c == '\t') {
      line += "\\t";
    } else if (c < 0x20 || c == 0x7F) {
      line += {'\\', 'x', hex[c >> 4U], hex[c & 15U]};
    } else {
      line += character;
    }
  });
  return line;
}

/// The text as XML or HTML content or as a quoted attribute. U+FFFE and U+FFFF, which XML cannot hold, become U+FFFD.
[[nodiscard]] inline std::string xml_escape(std::string_view text) {
  std::string escaped;
  detail::for_each_character(one_line(text), [&](std::string_view character) {
    switch (character.front()) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      case '\'': escaped += "&#39;"; break;
      default: escaped += character == "\xEF\xBF\xBE" || character == "\xEF\xBF\xBF" ? "\xEF\xBF\xBD" : character;
    }
  });
  return escaped;
}

/// A token as a label: on one line, without the space it usually starts with; a token of spaces alone shows them as
/// U+2423 and an empty one reads `(empty)`.
[[nodiscard]] inline std::string token_label(std::string_view token) {
  if (token.empty()) return "(empty)";
  if (token.find_first_not_of(' ') == std::string_view::npos) {
    std::string spaces;
    for (std::size_t i = 0; i < token.size(); ++i) spaces += "\xE2\x90\xA3";
    return spaces;
  }
  return one_line(token.front() == ' ' ? token.substr(1) : token);
}

/// Labels for a chart's axis, no two the same: a token that occurs again is numbered, `the`, `the (2)`, `the (3)`.
[[nodiscard]] inline std::vector<std::string> unique_labels(const std::vector<std::string>& tokens) {
  std::vector<std::string> labels;
  std::unordered_set<std::string> used;
  for (const auto& token : tokens) {
    const auto label = token_label(token);
    auto unique = label;
    for (int n = 2; !used.insert(unique).second; ++n) unique = label + " (" + std::to_string(n) + ')';
    labels.push_back(std::move(unique));
  }
  return labels;
}

}  // namespace circuit
