#include "circuit/text/nfc.hpp"

#include <string>
#include <string_view>

#include "catch.hpp"
#include "normal_forms.hpp"

using namespace circuit;
using normal_forms::utf8;

// Hand-worked from Unicode Standard Annex 15; tests/text/compare_tokenizers.py checks every character.
TEST_CASE("nfc: characters compose, marks sort, Hangul joins") {
  const auto nfc = [](std::u32string_view points) { return to_nfc(utf8(points)); };
  CHECK(nfc(U"e\u0301") == utf8(U"\u00E9"));
  CHECK(nfc(U"\u00E9") == utf8(U"\u00E9"));
  CHECK(nfc(U"\u212B") == utf8(U"\u00C5"));  // one character for another
  CHECK(nfc(U"\u037E") == ";");
  CHECK(nfc(U"q\u0307\u0323") == utf8(U"q\u0323\u0307"));  // by combining class
  CHECK(nfc(U"a\u0323\u0302") == utf8(U"\u1EAD"));         // by way of U+1EA1
  CHECK(nfc(U"a\u0302\u0323") == utf8(U"\u1EAD"));
  CHECK(nfc(U"a\u0305\u0301") == utf8(U"a\u0305\u0301"));  // blocked by a mark of the same class
  CHECK(nfc(U"\u0915\u093C") == utf8(U"\u0915\u093C"));    // an excluded composite
  CHECK(nfc(U"\u0958") == utf8(U"\u0915\u093C"));
  CHECK(nfc(U"\u1100\u1161\u11A8") == utf8(U"\uAC01"));
  CHECK(nfc(U"\uAC00\u11A8") == utf8(U"\uAC01"));
  CHECK(nfc(U"\uAC01\u11A8") == utf8(U"\uAC01\u11A8"));
  CHECK(nfc(U"\u0301e") == utf8(U"\u0301e"));
  CHECK(nfc(U"") == "");
}

TEST_CASE("nfc: normalising twice changes nothing, and pieces normalise as the whole") {
  normal_forms::check_pieces(
      U"aeo\u0301\u0302\u0323\u0345\u0915\u093C\u1100\u1161\u11A8\uAC00\u212B\u0958\u0F71\u0F72",
      [](std::string_view text) { return to_nfc(text); },
      [](std::string_view text, auto visit) { for_each_nfc_piece(text, visit); });
}
