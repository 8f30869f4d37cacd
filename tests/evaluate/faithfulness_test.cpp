#include "circuit/evaluate/faithfulness.hpp"

#include "circuit/evaluate/cpr_cmd.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "random_model.hpp"
#include "search/eap_golden.hpp"

using namespace circuit;

TEST_CASE("circuits of the largest edges do as EAP-IG's tool says, and so does the loss of each edge") {
  eap_golden::for_each([&](const auto& golden) {
    CAPTURE(golden.name);
    const auto& model = golden.model;
    const auto pair = golden.prompts();
    const EdgeEvaluation judge{model, pair, golden.metric()};
    const auto c = judge.components();
    const auto scores = golden.get("eap");
    const auto outside = sender_writes(model, pair.corrupt);
    std::int64_t row = 0;
    for (const std::int64_t n : {0, 5, 20, 60}) {
      CAPTURE(n);
      const auto kept = top_edges(scores, n);
      REQUIRE(kept.sum().template item<std::int64_t>() == n);
      const auto logits = model.run(pair.clean, keep_only_edges(model, kept, outside)).logits;
      REQUIRE_CLOSE(golden.metric().per_prompt(logits), golden.get("top_n")[row++], 1e-9);
    }
    const auto ends = golden.get("metric").mean(1);
    REQUIRE(judge.range().full == Approx(ends[0].template item<double>()).epsilon(1e-9));
    REQUIRE(judge.range().empty == Approx(ends[1].template item<double>()).epsilon(1e-9));
    const auto range = judge.range().full - judge.range().empty;
    REQUIRE_CLOSE(judge.loss_by_edge(c.edge_mask()).mul(range), golden.get("exact").neg(), 1e-9);
    // In parallel blocks a head may have a single edge, after which the tool judges in a damaged graph.
    const auto gap = golden.get("exact").sub(golden.get("exact_as_is")).abs().max().template item<double>();
    REQUIRE((gap > 0.01) == (golden.name == "neox"));
  });
}

TEST_CASE("faithfulness runs from 0 to 1, and a circuit's rest from 1 to 0") {
  const auto model = random_model::make<Gpt2>(7);
  const PromptPair pair{random_model::Source{9}.tokens(2, 5, 23), random_model::Source{10}.tokens(2, 5, 23)};
  const std::vector<std::int64_t> right{3, 5};
  const std::vector<std::int64_t> wrong{4, 1};
  const LogitDifference metric{std::span{right}, std::span{wrong}};
  const EdgeEvaluation judge{model, pair, metric};
  const auto c = judge.components();
  const auto none = at::zeros({c.senders(), c.receivers()}, at::kBool);
  REQUIRE(judge.faithfulness(c.edge_mask()) == Approx(1.0));
  REQUIRE(judge.faithfulness(none) == Approx(0.0).margin(1e-12));
  REQUIRE(judge.faithfulness_of_rest(none) == Approx(1.0));
  REQUIRE(judge.faithfulness_of_rest(c.edge_mask()) == Approx(0.0).margin(1e-12));
  REQUIRE(judge.range().empty == Approx(mean(metric, model.run(pair.corrupt).logits).item<double>()));

  const auto scores = Eap{}.scores(model, pair, metric);
  const auto curve = judge.curve(scores, mib_shares);
  REQUIRE(curve.size() == 10);
  REQUIRE(curve.back().faithfulness == Approx(1.0));
  for (const auto& point : curve) {
    REQUIRE(point.edges == std::llround(point.share_of_edges * static_cast<double>(c.edges())));
    if (point.edges > 0) REQUIRE(point.faithfulness == judge.faithfulness(top_edges(scores, point.edges)));
  }
  // Edges of score 0 are never kept, so a point says how many were.
  auto few = scores.clone();
  few.narrow(0, 0, c.senders() / 2).zero_();
  const auto kept = few.ne(0).sum().item<std::int64_t>();
  REQUIRE(kept < c.edges());
  REQUIRE(judge.curve(few, std::vector{0.999}).front().edges == kept);
  REQUIRE_THROWS_AS(judge.curve(scores, std::vector{1.5}), ValueError);
  REQUIRE_THROWS_AS(judge.curve(scores, std::vector{std::nan("")}), ValueError);

  // Everything outside at its mean over the prompts, or at zero: other empty circuits.
  const EdgeEvaluation against_mean{model, pair, metric, mean_writes(sender_writes(model, pair.clean))};
  REQUIRE(against_mean.range().full == Approx(judge.range().full));
  REQUIRE(against_mean.range().empty != Approx(judge.range().empty));
  REQUIRE(against_mean.faithfulness(none) == Approx(0.0).margin(1e-12));
}

TEST_CASE("a greedy selection grows from the logits and reaches everything") {
  const Components c{2, 2, true, false};
  const auto scores = random_model::Source{3}({c.senders(), c.receivers()}).mul(c.edge_mask());
  const selection::Greedy greedy{};
  auto before = greedy.choose(c, scores, 0);
  REQUIRE_FALSE(before.any().item<bool>());
  for (std::int64_t n = 1; n <= c.edges(); ++n) {
    const auto chosen = greedy.choose(c, scores, n);
    REQUIRE(chosen.sum().item<std::int64_t>() == n);
    REQUIRE(chosen.logical_and(before).equal(before));
    // The new edge is the largest of those into the logits or into a component of which something is read.
    double best = 0;
    for (std::int64_t r = 0; r < c.receivers(); ++r) {
      const auto node = receiver_of(c, r).node;
      if (r != c.logits() && !before[sender_index(c, node)].any().item<bool>()) continue;
      for (std::int64_t s = 0; s < c.before(r); ++s) {
        if (!before[s][r].item<bool>()) best = std::max(best, std::abs(scores[s][r].item<double>()));
      }
    }
    REQUIRE(scores.masked_select(chosen.logical_and(before.logical_not())).abs().item<double>() == best);
    before = chosen;
  }
  REQUIRE(before.equal(c.edge_mask()));
}

TEST_CASE("a metric that does not change has no faithfulness") {
  REQUIRE((MetricRange{3, 1}.share(2)) == 0.5);
  REQUIRE((MetricRange{1, 3}.share(1.5)) == 0.75);
  REQUIRE_THROWS_AS((MetricRange{2, 2}.share(2)), ValueError);
  REQUIRE_THROWS_AS((MetricRange{2, 1}.share(std::nan(""))), ValueError);
  REQUIRE_THROWS_AS((MetricRange{std::numeric_limits<double>::infinity(), 1}.share(1)), ValueError);
}

TEST_CASE("areas over a curve are sums of trapezoids") {
  const std::vector<SizePoint> curve{{1, 0.1, 0.0}, {5, 0.5, 1.2}, {10, 1.0, 1.0}};
  const auto [cpr, cmd] = curve_areas(curve);
  REQUIRE(cpr == Approx(0.4 * 0.6 + 0.5 * 1.1));
  REQUIRE(cmd == Approx(0.4 * (1.0 + 0.2) / 2 + 0.5 * 0.2 / 2));
  REQUIRE_THROWS_AS(curve_areas(std::span{curve}.first(1)), ValueError);
  REQUIRE_THROWS_AS(curve_areas(std::vector<SizePoint>{{1, 0.5, 0}, {1, 0.5, 1}}), ValueError);
}
