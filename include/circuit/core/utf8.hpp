#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "circuit/core/error.hpp"

namespace circuit {

namespace detail {

struct Utf8Step {
  std::size_t length;  ///< bytes of the character, or of the broken beginning of one
  bool valid;
};

/// The character at the front of `text`, which is not empty. A broken one is as long as its longest beginning that some
/// valid character shares (Unicode 15, section 3.9, table 3-7 and "substitution of maximal subparts").
[[nodiscard]] inline Utf8Step utf8_step(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const auto lead = byte(0);
  if (lead < 0x80) return {1, true};
  if (lead < 0xC2 || lead > 0xF4) return {1, false};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (std::size_t i = 1; i < length; ++i) {
    std::uint8_t low = 0x80;
    std::uint8_t high = 0xBF;
    if (i == 1) {  // no overlong forms, no surrogates, nothing above U+10FFFF
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (i >= text.size() || byte(i) < low || byte(i) > high) return {i, false};
  }
  return {length, true};
}

}  // namespace detail

/// return  offset of the first byte that is not part of a valid UTF-8 character; text.size() when there is none
[[nodiscard]] inline std::size_t first_invalid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto step = detail::utf8_step(text.substr(i));
    if (!step.valid) return i;
    i += step.length;
  }
  return i;
}

[[nodiscard]] inline bool is_utf8(std::string_view text) { return first_invalid_utf8(text) == text.size(); }

/// throws  ValueError  naming the byte offset when `text` is not UTF-8
inline void check_utf8(std::string_view text) {
  const auto offset = first_invalid_utf8(text);
  if (offset == text.size()) return;
  constexpr std::string_view digits = "0123456789abcdef";
  const auto byte = static_cast<std::uint8_t>(text[offset]);
  throw ValueError{{.problem = "text is not UTF-8 at byte " + std::to_string(offset),
                    .got = std::string{"0x"} + digits[byte >> 4U] + digits[byte & 15U],
                    .hint = "convert it to UTF-8"}};
}

/// `bytes` with every broken character replaced by U+FFFD, so that it can be shown.
[[nodiscard]] inline std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const auto step = detail::utf8_step(bytes.substr(i));
    text += step.valid ? bytes.substr(i, step.length) : std::string_view{"\xEF\xBF\xBD"};
    i += step.length;
  }
  return text;
}

}  // namespace circuit
