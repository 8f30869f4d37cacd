#include "circuit/text/split.hpp"

#include <string>
#include <string_view>
#include <vector>

#include "catch.hpp"

using namespace circuit;
using Words = std::vector<std::string>;

namespace {

Words pieces(const Splitter& splitter, std::string_view text) {
  Words words;
  splitter.split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

}  // namespace

TEST_CASE("split: matches stand alone, or join a neighbour that is none") {
  const Pattern comma{","};
  CHECK(pieces(Splitter{{SplitStep{comma}}}, ",a,,b,") == Words{",", "a", ",", ",", "b", ","});
  CHECK(pieces(Splitter{{SplitStep{comma, SplitBehavior::merged_with_previous}}}, ",a,,b,") ==
        Words{",", "a,", ",", "b,"});
  CHECK(pieces(Splitter{{SplitStep{comma, SplitBehavior::merged_with_next}}}, ",a,,b,") == Words{",a", ",", ",b", ","});
  CHECK(pieces(Splitter{{SplitStep{comma, SplitBehavior::merged_with_previous}}}, "a") == Words{"a"});
  CHECK(pieces(Splitter{{SplitStep{comma, SplitBehavior::merged_with_next}}}, ",,") == Words{",", ","});
}

TEST_CASE("split: each step cuts what the one before left whole") {
  const Splitter splitter{{SplitStep{Pattern{"[0-9]"}}, SplitStep{Pattern{" "}, SplitBehavior::merged_with_next}}};
  CHECK(pieces(splitter, "ab 1 2c d") == Words{"ab", " ", "1", " ", "2", "c", " d"});
  CHECK(pieces(splitter, "").empty());
  CHECK(pieces(Splitter{}, "a b") == Words{"a b"});
  CHECK(pieces(Splitter{}, "").empty());
}
