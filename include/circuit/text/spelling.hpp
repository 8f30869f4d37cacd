#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "circuit/core/utf8.hpp"

namespace circuit {

namespace detail {

/// Vocabulary files spell every byte as one printable character: printable Latin-1 bytes as themselves, the 68 others
/// as U+0100, U+0101, ... in byte order.
[[nodiscard]] constexpr std::array<char16_t, 256> byte_characters() {
  std::array<char16_t, 256> characters{};
  char16_t next = 0x100;
  for (std::size_t byte = 0; byte < characters.size(); ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    characters[byte] = printable ? static_cast<char16_t>(byte) : next++;
  }
  return characters;
}

/// The inverse over U+0000 to U+0143; -1 where no byte is spelt so.
[[nodiscard]] constexpr std::array<std::int16_t, 0x144> character_bytes() {
  std::array<std::int16_t, 0x144> bytes{};
  bytes.fill(-1);
  const auto characters = byte_characters();
  for (std::size_t byte = 0; byte < characters.size(); ++byte)
    bytes[characters[byte]] = static_cast<std::int16_t>(byte);
  return bytes;
}

}  // namespace detail

/// `bytes` as vocabulary files spell them: " Mary" is "\u0120Mary".
[[nodiscard]] inline std::string to_byte_level(std::string_view bytes) {
  static constexpr auto characters = detail::byte_characters();
  std::string text;
  for (const auto byte : bytes) {
    const auto c = characters[static_cast<std::uint8_t>(byte)];
    if (c < 0x80) {
      text += static_cast<char>(c);
    } else {
      text += static_cast<char>(0xC0 | (c >> 6U));
      text += static_cast<char>(0x80 | (c & 0x3FU));
    }
  }
  return text;
}

/// The bytes that a vocabulary entry spells; nothing when it holds a character that spells no byte.
[[nodiscard]] inline std::optional<std::string> from_byte_level(std::string_view text) {
  static constexpr auto bytes_of = detail::character_bytes();
  std::string bytes;
  for (std::size_t i = 0; i < text.size();) {
    const auto step = detail::utf8_step(text.substr(i));
    if (!step.valid || step.length > 2) return {};
    auto c = static_cast<std::size_t>(static_cast<std::uint8_t>(text[i]));
    if (step.length == 2) c = ((c & 0x1FU) << 6U) | (static_cast<std::uint8_t>(text[i + 1]) & 0x3FU);
    if (c >= bytes_of.size() || bytes_of[c] < 0) return {};
    bytes += static_cast<char>(bytes_of[c]);
    i += step.length;
  }
  return bytes;
}

/// The byte that a byte token of SentencePiece's stands for: 10 for "<0x0A>".
[[nodiscard]] inline std::optional<std::uint8_t> byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return {};
  constexpr std::string_view digits = "0123456789ABCDEF";
  const auto high = digits.find(text[3]);
  const auto low = digits.find(text[4]);
  if (high == digits.npos || low == digits.npos) return {};
  return static_cast<std::uint8_t>(high * 16 + low);
}

/// Whether every byte that occurs in UTF-8 is one of `tokens`.
[[nodiscard]] inline bool has_all_utf8_bytes(std::span<const std::string> tokens) {
  std::array<bool, 256> there{};
  for (const auto& token : tokens) {
    if (token.size() == 1) there[static_cast<std::uint8_t>(token[0])] = true;
  }
  for (const auto never : std::initializer_list<std::uint8_t>{0xC0, 0xC1, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA, 0xFB,
                                                              0xFC, 0xFD, 0xFE, 0xFF}) {
    there[never] = true;
  }
  return std::ranges::find(there, false) == there.end();
}

}  // namespace circuit
