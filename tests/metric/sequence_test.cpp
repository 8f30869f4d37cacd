#include "circuit/metric/sequence.hpp"

#include "by_hand.hpp"

using namespace circuit;

namespace {

at::Tensor tokens() {
  const std::vector<std::vector<std::int32_t>> rows{{1, 2, 5, 0}, {3, 3, 4, 1}, {0, 5, 2, 2}};
  return to_tokens(rows);
}

/// Sum over judged tokens [first, end) of a prompt.
double by_loop(std::int64_t b, std::int64_t first, std::int64_t end) {
  double sum = 0;
  for (auto p = first; p < end; ++p) {
    sum += std::log(by_hand::probability(by_hand::logits(), b, p - 1, tokens()[b][p].item<std::int64_t>()));
  }
  return sum;
}

}  // namespace

TEST_CASE("a sequence's log-probability sums its own tokens, each after those before it") {
  const auto all = SequenceLogProbability{tokens()}.per_prompt(by_hand::logits());
  const auto answer = SequenceLogProbability{tokens(), {.first = {Position{2}, Position{3}, Position{1}}}};
  const auto some = answer.per_prompt(by_hand::logits());
  const std::vector<std::int64_t> first{2, 3, 1};
  for (std::int64_t b = 0; b < 3; ++b) {
    CHECK(std::abs(all[b].item<double>() - by_loop(b, 1, 4)) < 1e-13);
    CHECK(std::abs(some[b].item<double>() - by_loop(b, first[static_cast<std::size_t>(b)], 4)) < 1e-13);
  }
  CHECK(answer.count()[2].item<std::int64_t>() == 3);
}

TEST_CASE("the loss is per token, and padding counts for nothing whatever it holds") {
  const std::vector<std::int64_t> lengths{4, 2, 3};
  auto padded = tokens();
  padded[1][2].fill_(-7);
  padded[2][3].fill_(99);
  const auto loss = Loss{padded, {.lengths = lengths}}.per_prompt(by_hand::logits());
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto n = lengths[static_cast<std::size_t>(b)];
    CHECK(std::abs(loss[b].item<double>() + by_loop(b, 1, n) / static_cast<double>(n - 1)) < 1e-13);
  }
}

TEST_CASE("sequence metrics have the gradient of central differences") {
  CHECK(by_hand::gradient_gap(SequenceLogProbability{tokens(), {.first = {Position{2}}}}) < 1e-8);
  CHECK(by_hand::gradient_gap(Loss{tokens(), {.lengths = {4, 2, 3}}}) < 1e-8);
}

TEST_CASE("sequences that judge nothing, and tokens that no logits have, are refused") {
  CHECK_THROWS_AS((SequenceLogProbability{tokens(), {.first = {Position{0}}}}), ValueError);
  CHECK_THROWS_AS((SequenceLogProbability{tokens(), {.first = {Position{3}}, .lengths = {3}}}), ValueError);
  CHECK_THROWS_AS((SequenceLogProbability{tokens(), {.first = {Position{4}}}}), IndexError);
  CHECK_THROWS_AS((SequenceLogProbability{tokens(), {.lengths = {5}}}), IndexError);
  CHECK_THROWS_AS((SequenceLogProbability{tokens(), {.lengths = {2, 2}}}), ValueError);
  CHECK_THROWS_AS((SequenceLogProbability{tokens()[0]}), ShapeError);
  CHECK_THROWS_AS((Loss{tokens().add(4)}.per_prompt(by_hand::logits())), IndexError);
  CHECK_THROWS_AS((Loss{tokens()}.per_prompt(by_hand::logits(3, 5))), ShapeError);
}
