#include "circuit/core/id.hpp"

#include <sstream>
#include <type_traits>
#include <unordered_set>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("a layer is neither a position nor a bare integer") {
  STATIC_REQUIRE(!std::is_convertible_v<Layer, Position>);
  STATIC_REQUIRE(!std::is_convertible_v<int, Layer>);
  STATIC_REQUIRE(!std::is_constructible_v<Layer, Position>);
  STATIC_REQUIRE(std::is_constructible_v<Layer, int>);
}

TEST_CASE("an id costs what its integer costs") {
  STATIC_REQUIRE(sizeof(Feature) == sizeof(std::int32_t));
  STATIC_REQUIRE(std::is_trivially_copyable_v<Feature>);
}

TEST_CASE("ids of one kind are ordered by value") {
  CHECK(Layer{1} < Layer{2});
  CHECK(Layer{3} == Layer{3});
  CHECK(Layer{} == Layer{0});
}

TEST_CASE("an id prints its kind") {
  std::ostringstream text;
  text << Layer{3} << ", " << Position{5} << ", " << Feature{7515} << ", " << Head{0} << ", " << Prompt{2};
  CHECK(text.str() == "layer 3, position 5, feature 7515, head 0, prompt 2");
}

TEST_CASE("ids are keys of hash tables") {
  std::unordered_set<Feature> seen;
  for (int i = 0; i < 100; ++i) seen.insert(Feature{i % 10});
  CHECK(seen.size() == 10);
  CHECK(seen.contains(Feature{9}));
  CHECK(!seen.contains(Feature{10}));
}

TEST_CASE("combining hashes depends on the order") { CHECK(detail::hash_combine(1, 2) != detail::hash_combine(2, 1)); }
