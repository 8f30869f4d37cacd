#include "circuit/core/utf8.hpp"

#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("utf8: every form that Unicode forbids is found at its first byte") {
  const std::vector<std::string> broken{"\x80",         "\xC0\x80",         "\xC1\xBF",         "\xE0\x80\x80",
                                        "\xED\xA0\x80", "\xF0\x80\x80\x80", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
                                        "\xC3",         "\xE2\x82",         "\xF0\x9F\x98",     "\xFF"};
  for (const auto& bytes : broken) {
    CHECK(first_invalid_utf8(bytes) == 0);
    CHECK(first_invalid_utf8("a\xC3\xA9" + bytes) == 3);
    CHECK(first_invalid_utf8("a\xC3\xA9" + bytes + "b") == 3);
    CHECK_THROWS_AS(check_utf8(bytes), ValueError);
  }
}

TEST_CASE("utf8: the first and last character of each length are valid") {
  const std::string text(
      "\0\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 26);
  CHECK(first_invalid_utf8(text) == text.size());
  CHECK(to_valid_utf8(text) == text);
}

TEST_CASE("utf8: broken parts are replaced as the Unicode standard's example is (section 3.9, table 3-8)") {
  const std::string mark = "\xEF\xBF\xBD";
  CHECK(to_valid_utf8("a\xF1\x80\x80\xE1\x80\xC2"
                      "b\x80"
                      "c\x80\xBF"
                      "d") == "a" + mark + mark + mark + "b" + mark + "c" + mark + mark + "d");
}
