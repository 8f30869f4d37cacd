#include "circuit/data/by_role.hpp"

#include "catch.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

const ByRole::Roles abba{{"IO", Position{2}}, {"S1", Position{4}}, {"S2", Position{11}}, {"end", Position{15}}};
const ByRole::Roles baba{{"IO", Position{6}}, {"S1", Position{3}}, {"S2", Position{9}}, {"end", Position{13}}};

}  // namespace

TEST_CASE("a position goes to where its role stands in other prompts, and back") {
  const ByRole there{abba, baba};
  const ByRole back{baba, abba};
  for (const auto& [role, position] : abba) {
    CHECK(there(position) == baba.at(role));
    CHECK(back(there(position)) == position);
    CHECK(there.knows(position));
  }
  const std::vector<Position> both{Position{11}, Position{2}};
  CHECK(there(both) == std::vector<Position>{Position{9}, Position{6}});
}

TEST_CASE("a position without a role, or whose role is not there, is one clear error") {
  auto less = baba;
  less.erase("S2");
  const ByRole there{abba, less};
  CHECK_FALSE(there.knows(Position{5}));
  CHECK_FALSE(there.knows(Position{11}));
  CHECK_THROWS_AS(there(Position{5}), NameError);
  CHECK_THROWS_WITH(there(Position{5}), ContainsSubstring("position 5") && ContainsSubstring("has no role") &&
                                            ContainsSubstring("IO at 2, S1 at 4, S2 at 11, end at 15"));
  CHECK_THROWS_AS(there(Position{11}), NameError);
  CHECK_THROWS_WITH(there(Position{11}), ContainsSubstring("position 11") && ContainsSubstring("no role S2") &&
                                             ContainsSubstring("one of IO, S1, end"));
  CHECK_THROWS_WITH((ByRole{{}, baba}(Position{0})), ContainsSubstring("there are none"));
}

TEST_CASE("several roles at one position must stand together there too") {
  auto from = abba;
  from["asked"] = Position{15};
  auto to = baba;
  CHECK(ByRole{from, to}(Position{15}) == Position{13});  // one of the two is there
  to["asked"] = Position{13};
  CHECK(ByRole{from, to}(Position{15}) == Position{13});
  to["asked"] = Position{12};
  CHECK_THROWS_AS((ByRole{from, to}(Position{15})), ValueError);
  CHECK_THROWS_WITH((ByRole{from, to}(Position{15})), ContainsSubstring("asked at 12, end at 13"));
}
