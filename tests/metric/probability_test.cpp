#include "circuit/metric/probability.hpp"

#include "by_hand.hpp"
#include "circuit/metric/logit_difference.hpp"

using namespace circuit;
using Ids = std::vector<std::vector<std::int64_t>>;

namespace {

const Ids three_right{{1, 4}, {0}, {5, 2, 3}};
const Ids three_wrong{{2}, {3, 5}, {0}};

double summed(const at::Tensor& logits, std::int64_t b, std::int64_t p, const std::vector<std::int64_t>& ids) {
  double sum = 0;
  for (const auto id : ids) sum += by_hand::probability(logits, b, p, id);
  return sum;
}

using by_hand::item;

}  // namespace

TEST_CASE("probabilities of ragged answers add up, at each prompt's own position") {
  const auto logits = by_hand::logits();
  const std::vector<Position> positions{Position{3}, Position{0}, Position{2}};
  const auto p = Probability{three_right, positions}.per_prompt(logits);
  const auto log_p = LogProbability{three_right, positions}.per_prompt(logits);
  const auto gap = ProbabilityDifference{three_right, three_wrong, positions}.per_prompt(logits);
  const auto log_gap = LogProbabilityDifference{three_right, three_wrong, positions}.per_prompt(logits);
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto slot = static_cast<std::size_t>(b);
    const auto at = positions[slot].value;
    const auto yes = summed(logits, b, at, three_right[slot]);
    const auto no = summed(logits, b, at, three_wrong[slot]);
    CHECK(std::abs(item(p, b) - yes) < 1e-13);
    CHECK(std::abs(item(log_p, b) - std::log(yes)) < 1e-13);
    CHECK(std::abs(item(gap, b) - (yes - no)) < 1e-13);
    CHECK(std::abs(item(log_gap, b) - (std::log(yes) - std::log(no))) < 1e-13);
  }
}

TEST_CASE("probabilities and their differences have the gradient that central differences have") {
  CHECK(by_hand::gradient_gap(Probability{three_right}) < 1e-8);
  CHECK(by_hand::gradient_gap(LogProbability{three_right}) < 1e-8);
  CHECK(by_hand::gradient_gap(ProbabilityDifference{three_right, three_wrong}) < 1e-8);
  CHECK(by_hand::gradient_gap(LogProbabilityDifference{three_right, three_wrong}) < 1e-8);
  CHECK(by_hand::gradient_gap(LogitDifference{three_right, three_wrong}) < 1e-8);
}

TEST_CASE("with one answer of each kind the log-probability difference is the logit difference") {
  const Ids one{{1}, {0}, {5}};
  const Ids other{{2}, {3}, {0}};
  const auto logits = by_hand::logits();
  REQUIRE_CLOSE((LogProbabilityDifference{one, other}.per_prompt(logits)),
                (LogitDifference{one, other}.per_prompt(logits)), 1e-13);
}

TEST_CASE("logits that softmax would overflow keep finite probabilities") {
  const auto logits = by_hand::logits().mul(1e4);
  CHECK(LogProbability{three_right}.per_prompt(logits).isfinite().all().item<bool>());
  CHECK(Probability{three_right}.per_prompt(logits).isfinite().all().item<bool>());
}

TEST_CASE("answers that no logits have, and answers at all positions, are refused") {
  CHECK_THROWS_AS((Probability{Ids{{1}, {6}, {0}}}.per_prompt(by_hand::logits())), IndexError);
  CHECK_THROWS_AS((Probability{Ids{{1}, {-1}, {0}}}.per_prompt(by_hand::logits())), IndexError);
  CHECK_THROWS_AS((Probability{Ids{{1}}}.per_prompt(by_hand::logits())), ShapeError);
  CHECK_THROWS_AS((Probability{Ids{{1}, {}}}), ValueError);
  CHECK_THROWS_AS((Probability{Ids{}}), ValueError);
  CHECK_THROWS_AS((Probability{three_right, Reading::every()}), ValueError);
  CHECK_THROWS_AS((ProbabilityDifference{three_right, Ids{{1}}}), ValueError);
}
