#include "circuit/metric/logit_difference.hpp"

#include <ATen/ops/arange.h>

#include "by_hand.hpp"
#include "circuit/model/gradient.hpp"
#include "golden.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

LogitDifference golden_metric() { return {golden::answers("answers"), golden::answers("wrong_answers")}; }

/// [2, 2, 4]: 100 * prompt + 10 * position + token squared
at::Tensor hand_logits() {
  return at::arange(2, at::kDouble)
      .mul(100)
      .view({2, 1, 1})
      .add(at::arange(2, at::kDouble).mul(10).view({1, 2, 1}))
      .add(at::arange(4, at::kDouble).view({1, 1, 4}).pow(2));
}

using by_hand::item;

}  // namespace

TEST_CASE("correct logit, wrong logit and their difference, by hand, at the last position") {
  const std::vector<std::int64_t> answers{3, 0};
  const std::vector<std::int64_t> wrong{1, 2};
  const auto logits = hand_logits();
  const auto right = CorrectLogit{answers}.per_prompt(logits);
  const auto other = WrongLogit{wrong}.per_prompt(logits);
  const auto both = LogitDifference{answers, wrong}.per_prompt(logits);
  REQUIRE(shape_of(both) == std::vector<std::int64_t>{2});
  REQUIRE(item(right, 0) == 19.0);
  REQUIRE(item(right, 1) == 110.0);
  REQUIRE(item(other, 0) == 11.0);
  REQUIRE(item(other, 1) == 114.0);
  REQUIRE(item(both, 0) == 8.0);
  REQUIRE(item(both, 1) == -4.0);
  REQUIRE(mean(LogitDifference{answers, wrong}, logits).item<double>() == 2.0);
}

TEST_CASE("a metric reads the position it is told, one for all prompts or one each") {
  const std::vector<std::int64_t> answers{3, 0};
  const auto logits = hand_logits();
  const CorrectLogit first{answers, {Position{0}}};
  const CorrectLogit mixed{answers, {Position{1}, Position{0}}};
  REQUIRE(item(first.per_prompt(logits), 0) == 9.0);
  REQUIRE(item(first.per_prompt(logits), 1) == 100.0);
  REQUIRE(item(mixed.per_prompt(logits), 0) == 19.0);
  REQUIRE(item(mixed.per_prompt(logits), 1) == 100.0);
}

TEST_CASE("several answers count by their mean") {
  const LogitDifference metric{{{3, 1}, {0}}, {{0}, {1, 2}}};
  const auto value = metric.per_prompt(hand_logits());
  REQUIRE(item(value, 0) == 5.0);
  REQUIRE(item(value, 1) == -2.5);
}

TEST_CASE("a contrast batch brings its own answers") {
  const ContrastBatch batch{
      .clean = {{1, 2}, {1, 3}}, .corrupt = {{1, 1}, {1, 1}}, .answers = {{3}, {0}}, .wrong_answers = {{1}, {2}}};
  const auto logits = hand_logits();
  REQUIRE(mean(LogitDifference{batch}, logits).item<double>() == 2.0);
  REQUIRE(item(CorrectLogit{batch}.per_prompt(logits), 0) == 19.0);
  REQUIRE(item(WrongLogit{batch}.per_prompt(logits), 1) == 114.0);
}

TEST_CASE("the batch mean and its gradient equal the reference's") {
  const auto model = golden::model(weights::folded_and_centered);
  const auto tokens = golden::tokens("clean");
  const c10::AutoGradMode gradient{true};
  LeafAtEmbedding leaf;
  auto recorder = record<hook::attn_out, hook::mlp_out, hook::attn::z>();
  const auto logits = model.forward(tokens, leaf, recorder);
  const auto value = mean(golden_metric(), logits);
  const auto reference = read_json(golden::folder() / "facts.json").at("interventions").at(0);
  REQUIRE(reference.at("name") == "none");
  REQUIRE(value.item<double>() == Approx(reference.at("logit_diff").get<double>()).epsilon(1e-10));
  const auto grads = gradients_at(value, recorder.cache());
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    const auto check = [&](auto point) {
      REQUIRE_CLOSE(grads.template get<decltype(point)>(l),
                    golden::fact("folded/clean/metric_grad/" + hook_name(point, l)), 1e-10);
    };
    check(hook::attn_out{});
    check(hook::mlp_out{});
    check(hook::attn::z{});
  }
}

TEST_CASE("percent reduction is a share of the clean value") {
  REQUIRE(percent_reduction(4.0, 3.0) == 25.0);
  REQUIRE(percent_reduction(4.0, -4.0) == 200.0);
  REQUIRE(percent_reduction(-2.0, -3.0) == -50.0);
  REQUIRE_THROWS_AS(percent_reduction(0.0, 1.0), ValueError);
}

TEST_CASE("what does not fit the logits ends in one clear exception") {
  const auto logits = hand_logits();
  const std::vector<std::int64_t> answers{3, 0};
  const std::vector<std::int64_t> one{3};
  REQUIRE_THROWS_AS(CorrectLogit{std::vector<std::int64_t>{}}, ValueError);
  REQUIRE_THROWS_AS((CorrectLogit{std::vector<std::vector<std::int64_t>>{{1}, {}}}), ValueError);
  REQUIRE_THROWS_AS((LogitDifference{answers, one}), ValueError);
  REQUIRE_THROWS_AS((CorrectLogit{answers, {Position{0}, Position{0}, Position{0}}}), ValueError);
  REQUIRE_THROWS_AS((CorrectLogit{answers, {Position{2}}}.per_prompt(logits)), IndexError);
  REQUIRE_THROWS_AS((CorrectLogit{answers, {Position{-1}}}.per_prompt(logits)), IndexError);
  REQUIRE_THROWS_AS(CorrectLogit{one}.per_prompt(logits), ShapeError);
  REQUIRE_THROWS_AS(CorrectLogit{answers}.per_prompt(logits.select(1, 0)), ShapeError);
  for (const std::int64_t id : {4, -1}) {
    const std::vector<std::int64_t> outside{3, id};
    REQUIRE_THROWS_AS(CorrectLogit{outside}.per_prompt(logits), IndexError);
  }
}
