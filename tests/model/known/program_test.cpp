#include "circuit/model/known/program.hpp"

#include "catch.hpp"

using namespace circuit;

namespace {

using Tokens = std::vector<std::int32_t>;
using Values = std::vector<std::int64_t>;

const auto one_behind = [](std::int64_t query, std::int64_t key) { return key + 1 == query; };
const auto same = [](std::int64_t query, std::int64_t key) { return query == key; };

}  // namespace

TEST_CASE("a gather takes the value where a position matches, and the first one's where none does") {
  Program p{3, 5};
  const auto before = p.add(Gather{.query = p.places(), .key = p.places(), .matches = one_behind, .value = p.words()});
  const auto seen = p.add(Gather{.query = p.words(),
                                 .key = p.words(),
                                 .matches = same,
                                 .value = p.places(),
                                 .categories = 2,
                                 .read = [](std::int64_t place) { return std::int64_t{place > 0}; },
                                 .own_place = false});
  const auto values = p.values(Tokens{3, 1, 0, 1, 1});
  CHECK(values[before.index] == Values{3, 3, 1, 0, 1});
  CHECK(values[seen.index] == Values{0, 0, 0, 1, 1});
}

TEST_CASE("a map is a function of values at one position") {
  Program p{3, 4};
  const auto sum =
      p.add(Map{.of = {p.words(), p.places()}, .categories = 7, .table = [](std::span<const std::int64_t> v) {
                  return v[0] + v[1];
                }});
  CHECK(p.values(Tokens{3, 2, 0})[sum.index] == Values{3, 3, 2});
  REQUIRE(p.steps().size() == 1);
  CHECK(Program::reads(p.steps()[0]).size() == 2);
}

TEST_CASE("a step that makes no sense is refused") {
  Program p{3, 4};
  const Variable other{2, 4};
  CHECK_THROWS_AS(p.add(Gather{.query = other, .key = p.words(), .matches = same, .value = p.words()}), ValueError);
  CHECK_THROWS_AS(p.add(Gather{.query = p.words(), .key = p.words(), .value = p.words()}), ValueError);
  CHECK_THROWS_AS(p.add(Map{.of = {}, .categories = 2, .table = [](auto) { return std::int64_t{0}; }}), ValueError);
  CHECK_THROWS_AS(p.say(other), ValueError);

  const auto too_large = p.add(Map{.of = {p.words()}, .categories = 2, .table = [](auto v) { return v[0]; }});
  CHECK(too_large.categories == 2);
  CHECK_THROWS_AS(p.values(Tokens{3, 2}), ValueError);
}

TEST_CASE("a prompt that is not the program's, and matches that do not agree, are refused") {
  Program p{3, 4};
  CHECK_THROWS_AS(p.values(Tokens{}), ValueError);
  CHECK_THROWS_AS(p.values(Tokens{1, 2}), ValueError);
  CHECK_THROWS_AS(p.values(Tokens{3, 1, 1, 1, 1}), ValueError);
  CHECK_THROWS_AS(p.values(Tokens{3, 4}), ValueError);
  p.add(Gather{.query = p.words(), .key = p.words(), .matches = [](auto, auto) { return true; }, .value = p.words()});
  CHECK_NOTHROW(p.values(Tokens{3, 1, 1}));
  CHECK_THROWS_AS(p.values(Tokens{3, 1, 2}), ValueError);
}
