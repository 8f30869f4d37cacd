#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/text/nfc.hpp"
#include "circuit/text/nfkc_tables.hpp"

namespace circuit {

/// What Unicode makes one of that looks alike: nothing, form C, or form KC, which knows no ligatures, widths and styles.
enum class UnicodeForm : std::uint8_t { none, c, kc };

/// What is done with each character before that by the rules of "Nmt", the first steps of SentencePiece's own: most
/// control characters go; tabs, line ends, U+2581 and characters without width become spaces.
/// source  the Python package `tokenizers`
enum class ControlCharacters : std::uint8_t { kept, by_nmt };

/// Cuts `text`, which must be valid UTF-8, where a form cannot join across the cut, and calls `visit(piece, normal)` for
/// each piece. The views last for the call. source  Unicode Standard Annex 15
template <class Visit>
void for_each_form_piece(std::string_view text, UnicodeForm form, ControlCharacters controls, Visit&& visit);

/// `text`, which must be valid UTF-8, in Unicode's normalisation form KC.
[[nodiscard]] std::string to_nfkc(std::string_view text);

}  // namespace circuit

namespace circuit::detail::nfc {

/// The decomposition of a character whose compatibility decomposition says more than its canonical one; else nothing.
[[nodiscard]] inline std::u32string_view compatibility(char32_t c) {
  const auto* const end = std::end(compatibility_runs);
  const auto* const run = std::lower_bound(std::begin(compatibility_runs), end, c,
                                           [](const CompatibilityRun& a, char32_t x) { return a.last < x; });
  if (run == end || c < run->first) return {};
  return {compatibility_text + run->from + std::size_t{c - run->first} * run->length, run->length};
}

[[nodiscard]] inline bool nmt_removes(char32_t c) {
  return (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
}

[[nodiscard]] inline bool nmt_makes_space(char32_t c) {
  return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
         c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
}

/// A form, of what the rules of "Nmt" leave if those come first. Chosen as the program runs, since files name it.
struct ChosenForm {
  UnicodeForm form;
  bool nmt;
  bool keeps_ascii = !nmt;

  void append(char32_t c, std::u32string& out) const {
    if (nmt && nmt_removes(c)) return;
    if (nmt && nmt_makes_space(c)) c = U' ';
    const auto parts = form == UnicodeForm::kc ? compatibility(c) : std::u32string_view{};
    if (!parts.empty()) {
      out += parts;
    } else if (form == UnicodeForm::none) {
      out += c;
    } else {
      decompose(c, out);
    }
  }
  /// What "Nmt" removes parts nothing.
  [[nodiscard]] bool continues(char32_t c) const {
    if (nmt && nmt_removes(c)) return true;
    if (form == UnicodeForm::none || (nmt && nmt_makes_space(c))) return false;
    const auto parts = form == UnicodeForm::kc ? compatibility(c) : std::u32string_view{};
    return joins(parts.empty() ? c : parts.front());
  }
};

}  // namespace circuit::detail::nfc

namespace circuit {

template <class Visit>
void for_each_form_piece(std::string_view text, UnicodeForm form, ControlCharacters controls, Visit&& visit) {
  detail::nfc::for_each_piece(detail::nfc::ChosenForm{form, controls == ControlCharacters::by_nmt}, text,
                              std::forward<Visit>(visit));
}

inline std::string to_nfkc(std::string_view text) {
  std::string result;
  for_each_form_piece(text, UnicodeForm::kc, ControlCharacters::kept,
                      [&](std::string_view, std::string_view normal) { result += normal; });
  return result;
}

}  // namespace circuit
