#include "circuit/evaluate/knock_outs.hpp"

#include "circuit/evaluate/node_faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

/// Either of 1 and 2 is worth 1 (they back each other up), 3 is worth 2, 4 half, all else nothing.
double worth(std::span<const int> kept) {
  const auto has = [&](int part) { return std::find(kept.begin(), kept.end(), part) != kept.end(); };
  return (has(1) || has(2) ? 1.0 : 0.0) + (has(3) ? 2.0 : 0.0) + (has(4) ? 0.5 : 0.0);
}

using Parts = std::vector<int>;
std::span<const int> span_of(const Parts& parts) { return parts; }
std::span<const Parts> sets(const std::vector<Parts>& all) { return all; }

const Parts model{1, 2, 3, 4, 5};

}  // namespace

TEST_CASE("a circuit that lacks a backup is faithful and not complete") {
  const Parts circuit{1, 3, 4};  // 2 backs 1 up in the model alone
  CHECK(worth(circuit) == worth(model));
  const auto found = knock_out(span_of(circuit), span_of(model), sets({{}, {3}, {1}, {1, 4}}), worth);
  REQUIRE(found.size() == 4);
  CHECK(found[0].gap() == 0.0);
  CHECK(found[1].circuit == 1.5);
  CHECK(found[1].gap() == 0.0);
  CHECK(found[2].circuit == 2.5);
  CHECK(found[2].model == 3.5);
  CHECK(found[3].gap() == 1.0);
  data::Random random{1};
  const auto worst = greedy_knock_out(span_of(circuit), span_of(model), 1, 3, worth, random);
  CHECK(worst.removed == Parts{1});
  CHECK(worst.gap() == 1.0);
  CHECK(greedy_knock_out(span_of(circuit), span_of(model), 3, 9, worth, random).removed.size() == 3);
  CHECK(greedy_knock_out(span_of(circuit), span_of(model), 0, 1, worth, random).removed.empty());
  CHECK_THROWS_AS(greedy_knock_out(span_of(circuit), span_of(model), 4, 1, worth, random), ValueError);
}

TEST_CASE("a backup shows its worth where its partner is out, a useless part never") {
  const Parts circuit{1, 2, 3, 5};
  CHECK(minimality(span_of(circuit), sets({}), worth) == std::vector<double>{0, 0, 2, 0});
  CHECK(minimality(span_of(circuit), sets({{1}, {2, 3}}), worth) == std::vector<double>{1, 1, 2, 0});
}

TEST_CASE("drawn sets hold each part half of the time") {
  data::Random random{2};
  const Parts circuit{1, 2, 3, 5};
  const auto drawn = draw_sets(span_of(circuit), 2000, random);
  for (const int part : circuit) {
    const auto with = std::count_if(drawn.begin(), drawn.end(),
                                    [&](const Parts& set) { return std::count(set.begin(), set.end(), part) == 1; });
    CHECK(std::abs(static_cast<double>(with) / 2000 - 0.5) < 0.05);
  }
  CHECK(without(span_of(model), span_of(circuit)) == Parts{4});
}

TEST_CASE("an evaluation of edges judges knock-outs as masks do") {
  const auto m = random_model::make<Gpt2>(11);
  const PromptPair prompts{random_model::Source{13}.tokens(2, 5, 23), random_model::Source{14}.tokens(2, 5, 23)};
  const LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}}, {{4}, {1}}};
  const EdgeEvaluation judge{m, prompts, metric};
  const auto c = judge.components();
  const auto measure = [&](std::span<const ComponentEdge> kept) { return judge.faithfulness(mask_of(c, kept)); };
  const auto all = edges_of(c.edge_mask());
  CHECK(static_cast<std::int64_t>(all.size()) == c.edges());
  CHECK(mask_of(c, all).equal(c.edge_mask()));
  CHECK(measure(all) == Approx(1.0));
  const auto by_prompt = judge.per_prompt(c.edge_mask());
  CHECK(shape_of(by_prompt) == std::vector<std::int64_t>{2});
  REQUIRE_CLOSE(by_prompt, metric.per_prompt(m.run(prompts.clean).logits), 1e-12);
  std::vector<ComponentEdge> kept;
  for (std::size_t i = 0; i < all.size(); i += 30) kept.push_back(all[i]);
  const auto loss = judge.loss_by_edge(mask_of(c, kept));
  const auto least = minimality(std::span<const ComponentEdge>{kept}, {}, measure);
  for (std::size_t i = 0; i < kept.size(); ++i) {
    CHECK(least[i] == Approx(std::abs(loss[kept[i].sender][kept[i].receiver].item<double>())).margin(1e-12));
  }
  const std::vector<std::vector<ComponentEdge>> two{{kept[0], kept[2]}};
  const auto found = knock_out(std::span<const ComponentEdge>{kept}, std::span<const ComponentEdge>{all},
                               std::span<const std::vector<ComponentEdge>>{two}, measure);
  auto mask = c.edge_mask();
  for (const auto& edge : two[0]) mask[edge.sender][edge.receiver].fill_(false);
  CHECK(found[0].model == Approx(judge.faithfulness(mask)));
  CHECK_THROWS_AS(mask_of(c, std::vector{ComponentEdge{c.senders(), 0}}), IndexError);
}

TEST_CASE("an evaluation of features judges knock-outs too") {
  const auto m = random_model::make<Gpt2>(11);
  const auto dictionaries = random_model::dictionaries(m.config(), 12);
  const PromptPair prompts{random_model::Source{13}.tokens(2, 5, 23), random_model::Source{14}.tokens(2, 5, 23)};
  const LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}}, {{4}, {1}}};
  const NodeEvaluation judge{m, dictionaries, prompts, metric};
  const auto all = ranked_by_change(judge.changes());
  const auto measure = [&](std::span<const Node> kept) { return judge.range().share(judge.metric_of(kept)); };
  const std::vector<std::vector<Node>> none{{}};
  const auto found = knock_out(std::span<const Node>{all}.first(40), std::span<const Node>{all},
                               std::span<const std::vector<Node>>{none}, measure);
  CHECK(found[0].model == Approx(1.0));
  CHECK(found[0].circuit == Approx(measure(std::span<const Node>{all}.first(40))));
}
