#include "circuit/evaluate/known_truth.hpp"

#include <limits>

#include "catch.hpp"

using namespace circuit;

TEST_CASE("the area under the curve is the share of pairs in the right order, ties half") {
  // true: 4, 2, 1; others: 3, 1, 0. Pairs won: 3 + 2 + (1 + 1/2) = 6.5 of 9.
  const std::vector<Judged> judged{{4, true}, {3, false}, {2, true}, {1, true}, {1, false}, {0, false}};
  REQUIRE(separation(judged).auroc == Approx(6.5 / 9));
  // Precision at 4: 1/1, at 2: 2/3, at the tie of 1: 3/5; each is reached with a third of the recall.
  REQUIRE(separation(judged).average_precision == Approx((1.0 + 2.0 / 3 + 3.0 / 5) / 3));
  const auto curve = precision_recall(judged);
  REQUIRE(curve.size() == 5);
  REQUIRE(curve[3].threshold == 1);
  REQUIRE(curve[3].precision == Approx(0.6));
  REQUIRE(curve[3].recall == 1);
}

TEST_CASE("perfect, reversed and uninformed scores") {
  REQUIRE(separation({{2, true}, {1, false}}).auroc == 1);
  REQUIRE(separation({{1, true}, {2, false}}).auroc == 0);
  REQUIRE(separation({{1, true}, {1, false}, {1, false}}).auroc == 0.5);
}

TEST_CASE("a truth without both kinds, or a score that is no number, is refused") {
  REQUIRE_THROWS_AS(separation({}), ValueError);
  REQUIRE_THROWS_AS(separation({{1, true}}), ValueError);
  REQUIRE_THROWS_AS(precision_recall({{1, false}, {2, false}}), ValueError);
  REQUIRE_THROWS_AS(separation({{std::numeric_limits<double>::quiet_NaN(), true}, {1, false}}), ValueError);
}
