#include "circuit/search/acdc.hpp"

#include "circuit/evaluate/faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/information_flow_routes.hpp"
#include "random_model.hpp"
#include "search/eap_golden.hpp"

using namespace circuit;

TEST_CASE("KL divergence by hand") {
  auto whole = at::zeros({2, 2, 2}, at::kDouble);
  whole[0][1][0].fill_(std::log(3.0));  // 3/4, 1/4 at the last position; the first does not count
  whole[1][0][0].fill_(7.0);
  const auto flat = at::zeros({2, 2, 2}, at::kDouble);
  const auto first = 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5);
  REQUIRE(divergence::Kl{}.distance(whole, flat) == Approx(first / 2));
  REQUIRE(divergence::Kl{}.distance(whole, whole) == Approx(0.0).margin(1e-15));
  const divergence::MetricRise rise{KlToClean{whole, {Position{1}, Position{0}}}};
  const auto certain = 1.0 / (1.0 + std::exp(-7.0));
  const auto second = certain * std::log(certain / 0.5) + (1 - certain) * std::log((1 - certain) / 0.5);
  REQUIRE(rise.distance(whole, flat) == Approx((first + second) / 2));
}

TEST_CASE("edges are tried from the logits down and stay cut unless the divergence rises") {
  const auto model = random_model::make<Gpt2>(7);
  const PromptPair pair{random_model::Source{9}.tokens(2, 5, 23), random_model::Source{10}.tokens(2, 5, 23)};
  const auto c = Components::of(model);
  constexpr double threshold = 0.03;
  const auto found = Acdc<>{.threshold = threshold}.decide(model, pair);

  // The same by plain loops, every edge with a run of its own.
  const auto whole = model.run(pair.clean).logits.select(1, -1).log_softmax(-1);
  const auto divergence = [&](const at::Tensor& kept) {
    const auto cut = c.edge_mask().logical_and(kept.logical_not());
    const auto logits = model.run(pair.clean, patch_edges(model, cut, sender_writes(model, pair.corrupt))).logits;
    return whole.exp().mul(whole.sub(logits.select(1, -1).log_softmax(-1))).sum().item<double>() / 2;
  };
  auto kept = c.edge_mask();
  for (auto r = c.receivers() - 1; r >= 0; --r) {
    for (auto s = c.before(r) - 1; s >= 0; --s) {
      auto without = kept.clone();
      without[s][r].fill_(false);
      if (divergence(without) - divergence(kept) < threshold) kept = without;
    }
  }
  REQUIRE(found.kept.equal(kept));
  const auto count = kept.sum().item<std::int64_t>();
  REQUIRE(count > 5);
  REQUIRE(count < c.edges() / 2);
  REQUIRE(found.runs < c.edges());  // some components were left out whole
  REQUIRE(found.rise.masked_select(kept).min().item<double>() >= threshold);
  REQUIRE(Acdc<>{.threshold = threshold}(model, pair).edge_count() == static_cast<std::size_t>(count));
}

TEST_CASE("no threshold keeps all, an endless one nothing") {
  const auto model = random_model::make<GptNeox>(7);
  const PromptPair pair{random_model::Source{9}.tokens(2, 5, 23), random_model::Source{10}.tokens(2, 5, 23)};
  const auto c = Components::of(model);
  REQUIRE(Acdc<>{.threshold = -1e9}.decide(model, pair).kept.equal(c.edge_mask()));
  REQUIRE_FALSE(Acdc<>{.threshold = 1e9}.decide(model, pair).kept.any().item<bool>());
  const std::vector<std::int64_t> right{3, 5};
  const std::vector<std::int64_t> wrong{4, 1};
  const LogitDifference metric{std::span{right}, std::span{wrong}};
  const Acdc by_metric{.threshold = 0.05, .divergence = divergence::MetricLoss<LogitDifference>{metric}};
  const auto kept = by_metric.decide(model, pair).kept;
  // Each step loses less than the threshold, and gains are kept: what is lost in all is bounded by the edges cut.
  const EdgeEvaluation judge{model, pair, metric};
  const auto cut = static_cast<double>(c.edges() - kept.sum().item<std::int64_t>());
  REQUIRE(judge.range().full - judge.metric_of(kept) < 0.05 * cut);
}

TEST_CASE("information flow routes are those of EAP-IG's tool") {
  eap_golden::for_each([&](const auto& golden) {
    CAPTURE(golden.name);
    const auto& model = golden.model;
    const auto c = Components::of(model);
    const auto clean = golden.get("clean");
    const auto scores = InformationFlowRoutes<>{}.scores(model, clean);
    REQUIRE_CLOSE(scores.sum(0), at::full({c.receivers()}, 1.0, at::kDouble), 1e-9);
    const auto circuit = InformationFlowRoutes<>{.keep = {.threshold = 0.2}}(model, clean);
    REQUIRE(circuit.edge_count() == static_cast<std::size_t>(scores.gt(0.2).sum().template item<std::int64_t>()));
    if (!model.weights().W_pos.defined()) {
      REQUIRE_CLOSE(scores, golden.get("flow_routes"), 1e-9);
      return;
    }
    // The tool leaves position embeddings out of the input: its number, and that ours is another.
    auto writes = sender_writes(model, clean);
    const auto mlp = c.mlp_in(Layer{0});
    const auto stream = model.run(clean, record<hook::mlp_in>()).cache.template get<hook::mlp_in>();
    const auto shares = [&] { return detail::flow_shares(writes.narrow(0, 0, c.before(mlp)), stream); };
    const auto golden_shares = golden.get("flow_routes").select(1, mlp).narrow(0, 0, c.before(mlp));
    REQUIRE_FALSE(difference(shares(), golden_shares, 1e-2).close);
    REQUIRE_CLOSE(shares(), scores.select(1, mlp).narrow(0, 0, c.before(mlp)), 1e-12);
    writes[0].sub_(model.weights().W_pos.narrow(0, 0, clean.size(1)));
    REQUIRE_CLOSE(shares(), golden_shares, 1e-9);
  });
}
