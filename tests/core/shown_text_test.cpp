#include "circuit/core/shown_text.hpp"

#include <set>
#include <string>
#include <vector>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("markup in text is escaped, and text without markup stays as it is") {
  CHECK(xml_escape("<script>alert('x') & \"y\"</script>") ==
        "&lt;script&gt;alert(&#39;x&#39;) &amp; &quot;y&quot;&lt;/script&gt;");
  CHECK(xml_escape("plain \xC3\xA9") == "plain \xC3\xA9");
}

TEST_CASE("characters that XML cannot hold are replaced") {
  REQUIRE(xml_escape("a\xEF\xBF\xBE\xEF\xBF\xBF<") == "a\xEF\xBF\xBD\xEF\xBF\xBD&lt;");
}

TEST_CASE("one line of text spells controls out and replaces what is not UTF-8") {
  CHECK(one_line("a\nb\tc\rd") == "a\\nb\\tc\\rd");
  CHECK(one_line(std::string("\0\x1b", 2)) == "\\x00\\x1b");
  const std::string broken = "\xEF\xBF\xBD";
  CHECK(one_line("\xC3") == broken);
  CHECK(one_line("\xC0\xAF") == broken + broken);                            // overlong
  CHECK(one_line("\xED\xA0\x80") == broken + broken + broken);               // surrogate
  CHECK(one_line("\xF4\x90\x80\x80") == broken + broken + broken + broken);  // above U+10FFFF
  CHECK(one_line("\xF0\x9F\x98\x80") == "\xF0\x9F\x98\x80");
}

TEST_CASE("width counts characters, not bytes") {
  CHECK(text_width("") == 0);
  CHECK(text_width("na\xC3\xAFve") == 5);
  CHECK(text_width("\xE2\x82\xAC\xFF") == 2);
}

TEST_CASE("a token's label leaves out its leading space and never is empty") {
  CHECK(token_label(" Mary") == "Mary");
  CHECK(token_label("  Mary") == " Mary");
  CHECK(token_label("") == "(empty)");
  CHECK(token_label(" ") == "\xE2\x90\xA3");
  CHECK(token_label("\n") == "\\n");
}

TEST_CASE("labels of repeated tokens are unique, also when a token looks like a number we would give") {
  CHECK(unique_labels({" the", " a", " the", "the"}) == std::vector<std::string>{"the", "a", "the (2)", "the (3)"});
  const std::vector<std::string> nasty{"a (2)", "a", "a", "a (2)", "a"};
  const auto labels = unique_labels(nasty);
  CHECK(std::set<std::string>(labels.begin(), labels.end()).size() == nasty.size());
  CHECK(unique_labels({}).empty());
}
