#include "circuit/evaluate/logit_lens.hpp"

#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"

using namespace circuit;

TEST_CASE("the lens ends with what the model itself says, and begins with what the embeddings alone would say") {
  const auto model = random_model::make<Gpt2>(41);
  const auto tokens = random_model::Source{42}.tokens(3, 6, model.config().d_vocab);
  const std::vector<std::int64_t> answers{3, 5, 7};
  const LogitDifference metric{answers, std::vector<std::int64_t>{4, 1, 2}};
  const auto run = record_frozen_run(model, tokens);
  const auto rows = logit_lens(model, run, metric, answers);
  REQUIRE(rows.size() == 3);

  const auto logits = model.run(tokens).logits;
  REQUIRE(rows.back().metric == Approx(mean(metric, logits).item<double>()).epsilon(1e-10));
  double probability = 0;
  double rank = 0;
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto last = logits[b][-1];
    const auto answer = last[answers[static_cast<std::size_t>(b)]];
    probability += answer.exp().div(last.exp().sum()).item<double>() / 3;
    for (std::int64_t v = 0; v < last.size(0); ++v) rank += last[v].gt(answer).item<bool>() ? 1.0 / 3 : 0.0;
  }
  REQUIRE(rows.back().answer_probability == Approx(probability).epsilon(1e-10));
  REQUIRE(rows.back().answer_rank == Approx(rank));
  REQUIRE(rows.back().top_token == logits[0][-1].argmax().item<std::int64_t>());

  const auto& w = model.weights();
  const auto start = w.W_E.index_select(0, tokens[0]).add(w.W_pos.narrow(0, 0, 6)).unsqueeze(0);
  REQUIRE(rows.front().top_token == model.unembed(start)[0][-1].argmax().item<std::int64_t>());
  REQUIRE(rows.front().metric != Approx(rows.back().metric));
}

TEST_CASE("the lens of a model that caps its logits ends with what the model says too") {
  auto config = random_model::make<Gpt2>(41).config();
  config.logit_soft_cap = 2.0;
  const HookedTransformer<Gpt2> model{config, random_model::make<Gpt2>(41).weights()};
  const auto tokens = random_model::Source{42}.tokens(2, 6, config.d_vocab);
  const std::vector<std::int64_t> answers{3, 5};
  const LogitDifference metric{answers, std::vector<std::int64_t>{4, 1}};
  const auto rows = logit_lens(model, record_frozen_run(model, tokens), metric, answers);
  REQUIRE(rows.back().metric == Approx(mean(metric, model.run(tokens).logits).item<double>()).epsilon(1e-10));
}

TEST_CASE("the lens refuses another number of answers than prompts") {
  const auto model = random_model::make<Gpt2>(43);
  const auto run = record_frozen_run(model, random_model::Source{44}.tokens(2, 4, model.config().d_vocab));
  const LogitDifference metric{std::vector<std::int64_t>{3, 5}, std::vector<std::int64_t>{4, 1}};
  REQUIRE_THROWS_AS(logit_lens(model, run, metric, std::vector<std::int64_t>{1}), ShapeError);
  REQUIRE_THROWS_AS(logit_lens(model, run, metric, std::vector<std::int64_t>{1, model.config().d_vocab}), IndexError);
}
