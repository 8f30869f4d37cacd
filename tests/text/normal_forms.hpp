#pragma once

#include <random>
#include <string>
#include <string_view>

#include "catch.hpp"
#include "circuit/text/nfc.hpp"

/// What the tests of normalisation forms share.
namespace normal_forms {

inline std::string utf8(std::u32string_view points) {
  std::string text;
  for (const auto c : points) circuit::detail::nfc::append_utf8(c, text);
  return text;
}

/// Of texts drawn from some characters: normalising twice changes nothing, and pieces normalise as the whole.
/// normal  normal(text)   for_each_piece  for_each_piece(text, visit(piece, normal form))
inline void check_pieces(std::u32string_view points, const auto& normal, const auto& for_each_piece) {
  std::mt19937 random{5};
  for (int round = 0; round < 2000; ++round) {
    std::u32string text;
    for (int i = 0; i < 8; ++i) text += points[random() % points.size()];
    const auto once = normal(utf8(text));
    CHECK(normal(once) == once);
    std::string joined;
    std::string pieces;
    for_each_piece(utf8(text), [&](std::string_view from, std::string_view to) {
      pieces += from;
      joined += to;
      CHECK(to == normal(from));
    });
    CHECK(pieces == utf8(text));
    CHECK(joined == once);
  }
}

}  // namespace normal_forms
