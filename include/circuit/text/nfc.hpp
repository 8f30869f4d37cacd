#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/text/nfc_tables.hpp"

namespace circuit {

namespace detail::nfc {

// Hangul syllables are numbered by leading consonant, vowel and trailing consonant (Unicode, section 3.12).
inline constexpr char32_t syllables = 0xAC00, leads = 0x1100, vowels = 0x1161, trails = 0x11A7;
inline constexpr char32_t lead_count = 19, vowel_count = 21, trail_count = 28;

[[nodiscard]] inline std::uint8_t value_in(const Run* begin, const Run* end, char32_t c) {
  const auto* const found = std::lower_bound(begin, end, c, [](const Run& run, char32_t x) { return run.last < x; });
  return found != end && found->first <= c ? found->value : std::uint8_t{0};
}

[[nodiscard]] inline std::uint8_t combining_class(char32_t c) {
  return value_in(std::begin(combining_classes), std::end(combining_classes), c);
}

/// Whether `c` may reorder or compose with what stands before it.
[[nodiscard]] inline bool joins(char32_t c) {
  return c >= 0x300 && value_in(std::begin(joining), std::end(joining), c) != 0;
}

[[nodiscard]] inline const Decomposition* decomposition(char32_t c) {
  const auto* const end = std::end(decompositions);
  const auto* const found = std::lower_bound(std::begin(decompositions), end, c,
                                             [](const Decomposition& d, char32_t x) { return d.from < x; });
  return found != end && found->from == c ? found : nullptr;
}

inline void decompose(char32_t c, std::u32string& out) {
  if (c >= syllables && c < syllables + lead_count * vowel_count * trail_count) {
    const auto i = c - syllables;
    out.push_back(leads + i / (vowel_count * trail_count));
    out.push_back(vowels + i / trail_count % vowel_count);
    if (i % trail_count != 0) out.push_back(trails + i % trail_count);
  } else if (const auto* const parts = decomposition(c)) {
    decompose(parts->first, out);
    if (parts->second != 0) decompose(parts->second, out);
  } else {
    out += c;
  }
}

/// return  the one character of a pair, or 0
[[nodiscard]] inline char32_t composed(char32_t first, char32_t second) {
  if (first >= leads && first < leads + lead_count && second >= vowels && second < vowels + vowel_count) {
    return syllables + ((first - leads) * vowel_count + (second - vowels)) * trail_count;
  }
  const bool open_syllable = first >= syllables && first < syllables + lead_count * vowel_count * trail_count &&
                             (first - syllables) % trail_count == 0;
  if (open_syllable && second > trails && second < trails + trail_count) return first + (second - trails);
  const auto before = [&](std::uint16_t i, int) {
    const auto& d = decompositions[i];
    return d.first != first ? d.first < first : d.second < second;
  };
  const auto* const found = std::lower_bound(std::begin(compositions), std::end(compositions), 0, before);
  if (found == std::end(compositions)) return 0;
  const auto& pair = decompositions[*found];
  return pair.first == first && pair.second == second ? pair.from : 0;
}

/// Sorts every run of marks by combining class, marks of one class as they stood.
inline void reorder(std::u32string& text) {
  for (auto begin = text.begin(); begin != text.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::ranges::find_if(begin, text.end(), [](char32_t c) { return combining_class(c) == 0; });
    const std::u32string marks{begin, end};
    const auto order =
        order_by(marks.size(), [&](auto a, auto b) { return combining_class(marks[a]) < combining_class(marks[b]); });
    for (const auto i : order) *begin++ = marks[i];
  }
}

/// Joins each mark or letter with the last starter before it unless something of its class or higher stands between.
inline void compose(std::u32string& text) {
  std::size_t starter = text.npos;
  std::size_t kept = 0;
  int last_class = -1;  // of what was kept after the starter; -1 when nothing was
  for (const auto c : text) {
    const int its_class = combining_class(c);
    const bool reachable = starter != text.npos && last_class < its_class;
    const auto joined = reachable ? composed(text[starter], c) : 0;
    if (joined != 0) {
      text[starter] = joined;
      continue;
    }
    if (its_class == 0) starter = kept;
    last_class = its_class == 0 ? -1 : its_class;
    text[kept++] = c;
  }
  text.resize(kept);
}

[[nodiscard]] inline char32_t code_point(std::string_view character) {
  const auto byte = [&](std::size_t i) { return static_cast<char32_t>(static_cast<std::uint8_t>(character[i])); };
  if (character.size() == 1) return byte(0);
  char32_t c = byte(0) & (0xFFU >> (character.size() + 1));
  for (std::size_t i = 1; i < character.size(); ++i) c = (c << 6U) | (byte(i) & 0x3FU);
  return c;
}

inline void append_utf8(char32_t c, std::string& text) {
  const auto tail = [&](unsigned shift) { text += static_cast<char>(0x80U | ((c >> shift) & 0x3FU)); };
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xC0U | (c >> 6U));
    tail(0);
  } else if (c < 0x10000) {
    text += static_cast<char>(0xE0U | (c >> 12U));
    tail(6), tail(0);
  } else {
    text += static_cast<char>(0xF0U | (c >> 18U));
    tail(12), tail(6), tail(0);
  }
}

/// Form C: what a character becomes before marks are sorted and joined, and whether it may join what stands before it.
struct Canonical {
  static constexpr bool keeps_ascii = true;  ///< a character of one byte alone
  static void append(char32_t c, std::u32string& out) { decompose(c, out); }
  [[nodiscard]] static bool continues(char32_t c) { return joins(c); }
};

/// Cuts `text`, which must be valid UTF-8, where a form cannot join across the cut, and calls `visit(piece, normal)` for
/// each piece with its normal form; most pieces are one character. The views last for the call.
template <class Form, class Visit>
void for_each_piece(const Form& form, std::string_view text, Visit&& visit) {
  std::u32string points;
  std::string normal;
  for (std::size_t begin = 0; begin < text.size();) {
    points.clear();
    auto end = begin;
    while (end < text.size()) {
      const auto character = text.substr(end, utf8_step(text.substr(end)).length);
      const auto c = code_point(character);
      if (end > begin && !form.continues(c)) break;
      form.append(c, points);
      end += character.size();
    }
    const auto piece = text.substr(begin, end - begin);
    begin = end;
    if (form.keeps_ascii && piece.size() == 1) {
      visit(piece, piece);
      continue;
    }
    reorder(points);
    compose(points);
    normal.clear();
    for (const auto c : points) append_utf8(c, normal);
    visit(piece, std::string_view{normal});
  }
}

}  // namespace detail::nfc

/// Cuts `text`, which must be valid UTF-8, where normalisation form C cannot join across the cut, and calls
/// `visit(piece, normal)` for each piece with its normal form; most pieces are one character. The views last for the
/// call. source  Unicode Standard Annex 15; the tables' version is named in nfc_tables.hpp
template <class Visit>
void for_each_nfc_piece(std::string_view text, Visit&& visit) {
  detail::nfc::for_each_piece(detail::nfc::Canonical{}, text, std::forward<Visit>(visit));
}

/// `text`, which must be valid UTF-8, in Unicode's normalisation form C.
[[nodiscard]] inline std::string to_nfc(std::string_view text) {
  std::string result;
  for_each_nfc_piece(text, [&](std::string_view, std::string_view normal) { result += normal; });
  return result;
}

}  // namespace circuit
