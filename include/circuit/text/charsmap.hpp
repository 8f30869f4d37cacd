#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/text/pattern.hpp"

namespace circuit {

/// SentencePiece's compiled rules of normalisation (NFKC and others): which characters are replaced by what, in the
/// file as a trie of what is replaced and the replacements one after another. So no Unicode tables are needed here.
/// source  the library's normalizer.h; Darts-clone's units of 32 bits, little-endian
class Charsmap {
 public:
  /// bytes   the size of the trie in bytes, the trie, the replacements, each ending in a zero
  /// throws  FormatError  when the parts do not fit together
  explicit Charsmap(std::string_view bytes, const std::filesystem::path& file = {});

  /// A rule that fits the beginning of a text.
  struct Rule {
    std::size_t length = 0;  ///< of what is replaced, in bytes; 0: none fits
    std::string_view by{};
  };
  enum class Choice : std::uint8_t { longest, shortest };
  [[nodiscard]] Rule find(std::string_view text, Choice choice) const;

  struct Replaced {
    std::string_view from{};
    std::string_view to{};
  };
  /// The beginning of a text that is not empty, and what takes its place: by the longest rule, else one character as it is.
  [[nodiscard]] Replaced first_piece(std::string_view text) const {
    const auto rule = find(text, Choice::longest);
    const auto from = text.substr(0, rule.length > 0 ? rule.length : detail::utf8_step(text).length);
    return {from, rule.length > 0 ? rule.by : from};
  }

  /// Calls `visit(from, to)` from left to right, as the SentencePiece library does. `text` must be valid UTF-8.
  template <class Visit>
  void for_each_piece(std::string_view text, Visit&& visit) const {
    while (!text.empty()) {
      const auto [from, to] = first_piece(text);
      visit(from, to);
      text.remove_prefix(from.size());
    }
  }

  /// The same as the Python package `tokenizers` does: a grapheme of less than 6 bytes is replaced whole by the
  /// shortest rule that its beginning fits, else each of its characters is.
  template <class Visit>
  void for_each_grapheme_piece(std::string_view text, Visit&& visit) const {
    constexpr std::size_t longest = 6;
    graphemes_.scan(text, [&](std::string_view grapheme, bool) {
      const auto rule = grapheme.size() < longest ? find(grapheme, Choice::shortest) : Rule{};
      if (rule.length > 0) return visit(grapheme, rule.by);
      while (!grapheme.empty()) {
        const auto character = grapheme.substr(0, detail::utf8_step(grapheme).length);
        const auto own = find(character, Choice::shortest);
        visit(character, own.length > 0 ? own.by : character);
        grapheme.remove_prefix(character.size());
      }
    });
  }

 private:
  static constexpr std::uint32_t leaf_flag = 1U << 8U;
  static constexpr std::uint32_t value_flag = 1U << 31U;

  [[nodiscard]] static std::size_t offset(std::uint32_t unit) {
    return static_cast<std::size_t>(unit >> 10U) << ((unit & (1U << 9U)) >> 6U);
  }
  void check(const std::filesystem::path& file) const;
  [[nodiscard]] std::string_view replacement(std::uint32_t unit) const {
    return replacements_.c_str() + (unit & ~value_flag);
  }

  std::vector<std::uint32_t> units_{};
  std::string replacements_{};
  Pattern graphemes_{R"(\X)"};
};

inline Charsmap::Charsmap(std::string_view bytes, const std::filesystem::path& file) {
  const auto bad = [&](std::string problem) {
    return FormatError{{.file = file, .tensor = "precompiled_charsmap", .problem = std::move(problem)}};
  };
  const auto number = [](std::string_view four) {
    std::uint32_t value = 0;
    for (std::size_t i = 4; i-- > 0;) value = (value << 8U) | static_cast<std::uint8_t>(four[i]);
    return value;
  };
  if (bytes.size() < 4) throw bad("is truncated");
  const std::size_t size = number(bytes);
  bytes.remove_prefix(4);
  if (size == 0 || size % 4 != 0 || size > bytes.size()) {
    throw bad("its trie of " + std::to_string(size) + " bytes does not fit its " + std::to_string(bytes.size()));
  }
  units_.reserve(size / 4);
  for (std::size_t i = 0; i < size; i += 4) units_.push_back(number(bytes.substr(i, 4)));
  replacements_ = bytes.substr(size);
  check(file);
}

inline void Charsmap::check(const std::filesystem::path& file) const {
  const auto bad = [&](std::string problem) {
    return FormatError{{.file = file, .tensor = "precompiled_charsmap", .problem = std::move(problem)}};
  };
  if (replacements_.empty() || replacements_.back() != '\0') throw bad("its replacements do not end in a zero");
  if (!is_utf8(replacements_)) throw bad("its replacements are not UTF-8");
  for (std::size_t i = 0; i < units_.size(); ++i) {
    if ((units_[i] & value_flag) != 0 || (units_[i] & leaf_flag) == 0) continue;
    const auto leaf = i ^ offset(units_[i]);
    const auto value = leaf < units_.size() ? units_[leaf] & ~value_flag : std::uint32_t{0};
    const bool inside = leaf < units_.size() && value < replacements_.size();
    if (!inside || (static_cast<std::uint8_t>(replacements_[value]) & 0xC0U) == 0x80U) {
      throw bad("unit " + std::to_string(i) + " of its trie leads to no replacement");
    }
  }
}

inline Charsmap::Rule Charsmap::find(std::string_view text, Choice choice) const {
  constexpr std::size_t longest = 256;  // a trie that leads back into itself has keys of any length
  Rule found;
  auto at = offset(units_[0]);
  for (std::size_t i = 0; i < text.size() && i < longest; ++i) {
    const auto byte = static_cast<std::uint8_t>(text[i]);
    at ^= byte;
    if (at >= units_.size()) break;
    const auto unit = units_[at];
    if ((unit & (value_flag | 0xFFU)) != byte) break;
    at ^= offset(unit);
    if ((unit & leaf_flag) == 0) continue;
    found = {i + 1, replacement(units_[at])};
    if (choice == Choice::shortest) break;
  }
  return found;
}

}  // namespace circuit
