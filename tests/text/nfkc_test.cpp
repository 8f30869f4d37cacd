#include "circuit/text/nfkc.hpp"

#include <string>
#include <string_view>

#include "catch.hpp"
#include "normal_forms.hpp"

using namespace circuit;
using normal_forms::utf8;

namespace {

std::string by_nmt(std::u32string_view points, UnicodeForm form) {
  std::string result;
  for_each_form_piece(utf8(points), form, ControlCharacters::by_nmt,
                      [&](std::string_view, std::string_view to) { result += to; });
  return result;
}

}  // namespace

// Hand-worked from Unicode Standard Annex 15; tests/text/compare_tokenizers.py checks every character.
TEST_CASE("nfkc: what looks alike becomes one, and joins what stands before it") {
  const auto nfkc = [](std::u32string_view points) { return to_nfkc(utf8(points)); };
  CHECK(nfkc(U"\uFB01\u00B2\uFF21\u2167") == "fi2AVIII");
  CHECK(nfkc(U"\u00A0\u3000") == "  ");
  CHECK(nfkc(U"\u00A8") == utf8(U" \u0308"));
  CHECK(nfkc(U"e\u0301\u212B") == utf8(U"\u00E9\u00C5"));
  CHECK(nfkc(U"\u1E9B\u0323") == utf8(U"\u1E69"));              // by way of s, dot below, dot above
  CHECK(nfkc(U"\uFF76\uFF9E") == utf8(U"\u30AC"));              // narrow letter and sound mark
  CHECK(nfkc(U"\uFFA1\uFFC2\uFFA1") == utf8(U"\uAC00\u1100"));  // narrow Hangul
  CHECK(nfkc(U"\uFDFA") ==
        utf8(U"\u0635\u0644\u0649 \u0627\u0644\u0644\u0647 \u0639\u0644\u064A\u0647 \u0648\u0633\u0644\u0645"));
  CHECK(nfkc(U"\U0001D49C") == "A");
  CHECK(nfkc(U"") == "");
}

TEST_CASE("nfkc: normalising twice changes nothing, and pieces normalise as the whole") {
  normal_forms::check_pieces(
      U"aef\u0301\u0302\u0323\uFF76\uFF9E\uFFA1\uFFC2\u11A8\uAC00\u212B\u1E9B\uFB01\u00A8\u0F71\u0F72",
      [](std::string_view text) { return to_nfkc(text); },
      [](std::string_view text, auto visit) {
        for_each_form_piece(text, UnicodeForm::kc, ControlCharacters::kept, visit);
      });
}

TEST_CASE("nfkc: control characters go, or become spaces, before a form is taken") {
  CHECK(by_nmt(U"a\u0001\tb\n\u200B\u2581\u009F", UnicodeForm::none) == "a b   ");
  CHECK(by_nmt(U"e\u0001\u0301", UnicodeForm::none) == utf8(U"e\u0301"));
  CHECK(by_nmt(U"e\u0001\u0301", UnicodeForm::c) == utf8(U"\u00E9"));
  CHECK(by_nmt(U"\uFF21\u0001\u0301", UnicodeForm::kc) == utf8(U"\u00C1"));
  CHECK(by_nmt(U"\u0001", UnicodeForm::kc) == "");
}
