#include "circuit/text/normalization.hpp"

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("normalization: positions in the result lead back to the text") {
  std::string buffer;
  std::vector<TextChange> changes;
  const Normalization how{.mark_is_space = true, .prefix = PrefixSpace::always};
  const std::string text =
      "a\xE2\x96\x81"
      "b";
  REQUIRE(normalize(how, text, true, buffer, changes) == " a b");
  OffsetMap to_text{changes};
  std::vector<std::size_t> positions;
  for (std::size_t i = 0; i <= 4; ++i) positions.push_back(to_text(i));
  CHECK(positions == std::vector<std::size_t>{0, 0, 1, 4, 5});

  REQUIRE(normalize({.form = UnicodeForm::c}, "e\xCC\x81x", true, buffer, changes) == "\xC3\xA9x");
  OffsetMap accent{changes};
  CHECK(accent(1) == 3);  // within the changed stretch: its end
  CHECK(accent(2) == 3);
  CHECK(accent(3) == 4);
}

TEST_CASE("normalization: a space begins a text as each family has it") {
  std::string buffer;
  std::vector<TextChange> changes;
  const auto with = [&](PrefixSpace prefix, std::string_view text, bool at_start) {
    return std::string{normalize({.mark_is_space = true, .prefix = prefix}, text, at_start, buffer, changes)};
  };
  CHECK(with(PrefixSpace::none, "a", true) == "a");
  CHECK(with(PrefixSpace::always, " a", false) == "  a");
  CHECK(with(PrefixSpace::at_start, " a", true) == "  a");
  CHECK(with(PrefixSpace::at_start, "a", false) == "a");
  CHECK(with(PrefixSpace::unless_there, " a", true) == " a");
  CHECK(with(PrefixSpace::unless_there,
             "\xE2\x96\x81"
             "a",
             true) == " a");
  CHECK(with(PrefixSpace::unless_there, "a", false) == " a");
  CHECK(with(PrefixSpace::at_start_unless_there, "a", true) == " a");
  CHECK(with(PrefixSpace::at_start_unless_there, "a", false) == "a");
  CHECK(with(PrefixSpace::always, "", true) == "");
}
