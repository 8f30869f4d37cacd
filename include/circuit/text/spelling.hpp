#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "circuit/io/utf8.hpp"
#include "circuit/text/pattern.hpp"

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

/// GPT-2's split of text into words, each with the space before it: contractions, letters, digits, other signs, space.
///
/// White space is spelt out as Unicode's White_Space property: PCRE2's \s would add U+180E, which is none since
/// Unicode 6.3 and which the tokenizers that models were trained with do not count.
/// source  Radford et al. 2019, the released encoder's pattern
[[nodiscard]] inline Pattern gpt2_words() {
  const std::string space =
      R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
  return Pattern{R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{L}\p{N})" + space + "]+|[" + space + "]+(?![^" +
                 space + "])|[" + space + "]+"};
}

}  // namespace circuit
