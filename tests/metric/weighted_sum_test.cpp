#include "circuit/metric/weighted_sum.hpp"

#include <limits>

#include "by_hand.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/metric/probability.hpp"

using namespace circuit;
using Ids = std::vector<std::vector<std::int64_t>>;

TEST_CASE("a weighted sum is the sum of its parts, in value and in gradient") {
  const TokenLogit one{Ids{{1}, {2}, {3}}};
  const Probability other{Ids{{0, 2}, {1}, {5}}};
  const WeightedSum sum{Weighted{0.7, one}, Weighted{-2.0, other}};
  const auto logits = by_hand::logits();
  const auto found = sum.per_prompt(logits);
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto by_loop = b == 0   ? by_hand::probability(logits, b, 3, 0) + by_hand::probability(logits, b, 3, 2)
                         : b == 1 ? by_hand::probability(logits, b, 3, 1)
                                  : by_hand::probability(logits, b, 3, 5);
    CHECK(std::abs(found[b].item<double>() - (0.7 * by_hand::at(logits, b, 3, b + 1) - 2.0 * by_loop)) < 1e-12);
  }
  CHECK(by_hand::gradient_gap(sum) < 1e-8);
}

TEST_CASE("any callable is a metric, as long as it gives one number per prompt") {
  const auto largest = metric_by([](const at::Tensor& logits) { return logits.select(1, -1).amax(-1); });
  REQUIRE_CLOSE(largest.per_prompt(by_hand::logits()), by_hand::logits().select(1, 3).amax(-1), 0.0);
  CHECK(by_hand::gradient_gap(largest) < 1e-8);
  const auto wrong = metric_by([](const at::Tensor& logits) { return logits.sum(); });
  CHECK_THROWS_AS(wrong.per_prompt(by_hand::logits()), ShapeError);
}

TEST_CASE("weights that are no numbers, and parts of other batches, are refused") {
  const TokenLogit one{Ids{{1}, {2}, {3}}};
  CHECK_THROWS_AS((WeightedSum{Weighted{std::numeric_limits<double>::quiet_NaN(), one}}), ValueError);
  CHECK_THROWS_AS((WeightedSum{Weighted{1.0, one}, Weighted{1.0, TokenLogit{Ids{{1}}}}}.per_prompt(by_hand::logits())),
                  ShapeError);
}
