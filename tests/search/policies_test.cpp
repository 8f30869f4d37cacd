#include <ATen/ops/arange.h>

#include <cmath>
#include <set>
#include <thread>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/keep/prompts.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

struct PoliciesSetup {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(7);
  DictionarySet set = random_model::dictionaries(model.config(), 8);
  PromptPair prompts{random_model::Source{9}.tokens(3, 6, model.config().d_vocab),
                     random_model::Source{10}.tokens(3, 6, model.config().d_vocab)};
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}, {7}}, {{4}, {1}, {2}}};

  template <class Search>
  Circuit operator()(const Search& search) const {
    return search(model, set, prompts, metric);
  }
};

bool subset(const Circuit& small, const Circuit& large) {
  for (const auto& e : small.edges()) {
    if (!large.contains(e.up) || !large.contains(e.down) || large.find_edge(e.up, e.down, e.edge.type) == nullptr)
      return false;
  }
  return true;
}

EdgeScores scores(std::vector<double> values, std::int64_t rows) {
  auto mean =
      at::from_blob(values.data(), {rows, static_cast<std::int64_t>(values.size()) / rows}, at::kDouble).clone();
  return {.type = EdgeType::ov, .mean = mean, .passed = {}, .prompts = 4};
}

std::vector<int> kept(const EdgeMask& mask) {
  std::vector<int> out;
  const auto flat = mask.kept.contiguous().flatten();
  for (std::int64_t i = 0; i < flat.numel(); ++i) out.push_back(flat[i].item<bool>() ? 1 : 0);
  return out;
}

}  // namespace

TEST_CASE("keep rules decide as they say") {
  const auto s = scores({3, -4, 0, 1, 0, 2, -1, 0.5}, 2);
  REQUIRE_THROWS_AS(keep::Above{.threshold = std::nan("")}.keep(s), ValueError);
  REQUIRE_THROWS_AS(keep::PositiveAbove{.threshold = std::nan("")}.keep(s), ValueError);
  REQUIRE(kept(keep::Above{.threshold = 1}.keep(s)) == std::vector{1, 1, 0, 0, 0, 1, 0, 0});
  REQUIRE(kept(keep::PositiveAbove{.threshold = 1}.keep(s)) == std::vector{1, 0, 0, 0, 0, 1, 0, 0});
  REQUIRE(kept(keep::TopPerTarget{.n = 2}.keep(s)) == std::vector{1, 1, 0, 0, 0, 1, 1, 0});
  REQUIRE(kept(keep::TopPerLayer{.n = 3}.keep(s)) == std::vector{1, 1, 0, 0, 0, 1, 0, 0});
  REQUIRE(kept(keep::CumulativeShare{.share = 0.8}.keep(s)) == std::vector{1, 1, 0, 0, 0, 1, 1, 0});
  REQUIRE(kept(keep::All{}.keep(s)) == std::vector{1, 1, 1, 1, 1, 1, 1, 1});
  REQUIRE(kept(keep::TopPerTarget{.n = 9}.keep(scores({0, 0, 1}, 1))) == std::vector{0, 0, 1});

  auto counted = s;
  counted.passed = at::arange(8, at::kInt).view({2, 4}).remainder(5);
  REQUIRE(kept(keep::AnyPrompt{}.keep(counted)) == std::vector{0, 1, 1, 1, 1, 0, 1, 1});
  REQUIRE(kept(keep::ShareOfPrompts{.share = 0.5}.keep(counted)) == std::vector{0, 0, 1, 1, 1, 0, 0, 1});
}

TEST_CASE("a rule chosen at run time decides as the rule itself") {
  const PoliciesSetup s;
  const std::vector<keep::AnyRule> rules{keep::Above{.threshold = 0.05},
                                         keep::ShareOfPrompts{.threshold = 0.05, .share = 0.6},
                                         keep::TopPerTarget{.n = 2}};
  REQUIRE(!rules[0].needs_counts());
  REQUIRE(rules[1].needs_counts());
  const std::vector chosen{s(Leap{.keep = rules[0]}), s(Leap{.keep = rules[1]}), s(Leap{.keep = rules[2]})};
  const std::vector own{s(Leap{.keep = keep::Above{.threshold = 0.05}}),
                        s(Leap{.keep = keep::ShareOfPrompts{.threshold = 0.05, .share = 0.6}}),
                        s(Leap{.keep = keep::TopPerTarget{.n = 2}})};
  for (std::size_t i = 0; i < rules.size(); ++i) {
    CAPTURE(i);
    REQUIRE(own[i].edge_count() > 0);
    REQUIRE(subset(own[i], chosen[i]));
    REQUIRE(subset(chosen[i], own[i]));
  }
  REQUIRE(own[0].edge_count() != own[1].edge_count());
}

TEST_CASE("a higher threshold keeps a part of what a lower one keeps, and a kept edge is over it") {
  const PoliciesSetup s;
  const auto low = s(Leap{.keep = keep::Above{.threshold = 0.02}});
  const auto high = s(Leap{.keep = keep::Above{.threshold = 0.1}});
  REQUIRE(high.edge_count() > 20);
  REQUIRE(low.edge_count() > high.edge_count());
  REQUIRE(subset(high, low));
  for (const auto& e : low.edges()) REQUIRE(std::abs(e.edge.em_attrib) > 0.02);
}

TEST_CASE("only features that a kept edge leaves become targets") {
  const PoliciesSetup s;
  const auto found = s(Leap{.keep = keep::Above{.threshold = 0.1}});
  const auto all = s(Leap{.keep = keep::Above{.threshold = 0.1}, .targets = targets::AllActive{}});
  REQUIRE(subset(found, all));
  REQUIRE(all.edge_count() > found.edge_count());
  for (const auto& e : found.edges()) {
    if (e.down.kind != NodeKind::metric) REQUIRE_FALSE(found.outgoing(e.down).empty());
  }
}

TEST_CASE("any prompt keeps at least what the mean keeps over the same threshold, and counts prompts") {
  const PoliciesSetup s;
  const auto mean = s(Leap{.keep = keep::Above{.threshold = 0.1}, .targets = targets::AllActive{}});
  const auto any = s(Leap{.keep = keep::AnyPrompt{.threshold = 0.1}, .targets = targets::AllActive{}});
  REQUIRE(subset(mean, any));
  for (const auto& e : any.edges()) REQUIRE(e.edge.prompts >= 1);
}

TEST_CASE("leaving out errors, embeddings or queries and keys leaves out exactly those edges") {
  const PoliciesSetup s;
  auto search = Leap{.keep = keep::Above{.threshold = 0.02}, .targets = targets::AllActive{}};
  const auto all = s(search);
  search.sources = {.errors = false, .embeddings = false};
  search.attention = AttentionPaths::values;
  const auto fewer = s(search);
  std::size_t expected = 0;
  for (const auto& e : all.edges()) {
    expected += is_feature(e.up.kind) && e.edge.type != EdgeType::q && e.edge.type != EdgeType::k ? 1U : 0U;
  }
  REQUIRE(expected > 20);
  REQUIRE(fewer.edge_count() == expected);
  REQUIRE(subset(fewer, all));
}

TEST_CASE("split embeddings sum to the joined one") {
  const PoliciesSetup s;
  auto search = Leap{.keep = keep::All{}, .contrast = contrast::None{}};
  const auto joined = s(search);
  search.sources.split_embedding = true;
  const auto split = s(search);
  int compared = 0;
  for (const auto& e : joined.edges()) {
    if (e.up.kind != NodeKind::embedding) continue;
    const auto* token = split.find_edge(e.up, e.down, e.edge.type);
    const auto* position = split.find_edge(Node::position_embedding(e.up.position), e.down, e.edge.type);
    REQUIRE(token != nullptr);
    REQUIRE(position != nullptr);
    REQUIRE(token->nn_attrib + position->nn_attrib == Approx(e.edge.nn_attrib).margin(1e-10));
    ++compared;
  }
  REQUIRE(compared > 20);
}

TEST_CASE("a layer without a dictionary is one node without readers, and sums stay complete") {
  PoliciesSetup s;
  DictionarySet some;
  some.set_mlp(Layer{1}, SparseDictionary<>{*s.set.mlp(Layer{1})});
  s.set = some;
  const auto found = s(Leap{.keep = keep::All{}, .contrast = contrast::None{}});
  REQUIRE(found.contains(Node::attn_output(Layer{0}, Position{2})));
  REQUIRE(found.incoming(Node::attn_output(Layer{0}, Position{2})).empty());
  double sum = found.biases().front().nn_attrib;
  for (const auto& e : found.incoming(Node::metric())) sum += e.edge.nn_attrib;
  REQUIRE(found.biases().front().target == Node::metric());
  REQUIRE(sum == Approx(s.metric.per_prompt(s.model.run(s.prompts.clean).logits).mean().item<double>()).epsilon(1e-9));
}

TEST_CASE("averaging first is another number than averaging last, and the same for one prompt") {
  PoliciesSetup s;
  const auto exact = Leap{.keep = keep::All{}, .contrast = contrast::None{}};
  const auto first = Leap{.keep = keep::All{}, .contrast = contrast::None{}, .batching = batching::MeanFirst{}};
  const auto gap = [&](const Circuit& a, const Circuit& b) {
    double largest = 0;
    for (const auto& e : a.edges()) {
      if (!b.contains(e.up) || !b.contains(e.down)) continue;
      if (const auto* other = b.find_edge(e.up, e.down, e.edge.type))
        largest = std::max(largest, std::abs(other->em_attrib - e.edge.em_attrib));
    }
    return largest;
  };
  REQUIRE(gap(s(exact), s(first)) > 1e-3);
  s.prompts = {s.prompts.clean.narrow(0, 1, 1), {}};
  s.metric = LogitDifference{std::vector<std::vector<std::int64_t>>{{5}}, {{1}}};
  const auto a = s(exact);
  REQUIRE(a.edge_count() > 100);
  REQUIRE(gap(a, s(first)) < 1e-10);
}

TEST_CASE("averaging first, paths and graph paths agree where dictionaries undo a normalisation") {
  PoliciesSetup s;
  s.set = random_model::normalizing_dictionaries(s.model.config(), 5);
  const auto graph = Leap{.keep = keep::All{}, .chain = chain::GraphPath{}, .batching = batching::MeanFirst{}};
  const auto all = Leap{.keep = keep::All{}, .chain = chain::AllPaths{}, .batching = batching::MeanFirst{}};
  const auto expected = s(graph);
  const auto found = s(all);
  REQUIRE(found.edge_count() > 100);
  for (const auto& e : found.edges()) {
    const auto* other = expected.find_edge(e.up, e.down, e.edge.type);
    REQUIRE(other != nullptr);
    REQUIRE(e.edge.em_attrib == Approx(other->em_attrib).epsilon(1e-8).margin(1e-10));
  }
}

TEST_CASE("the seed's bundle keeps positive, clipped edges") {
  const PoliciesSetup s;
  const auto found = s(seed_policies(0.01));
  REQUIRE(found.edge_count() > 10);
  for (const auto& e : found.edges()) {
    if (e.down.kind == NodeKind::metric) continue;
    REQUIRE(e.edge.em_attrib > 0.01);
  }
  const TargetState target{.slope = 1, .nodegrad = -2, .activation = 0.5};
  REQUIRE(score::ChainedClipped{}.score(3.0, target) == -1.0);
  REQUIRE(score::ChainedClipped{}.score(0.25, target) == -0.5);
}

TEST_CASE("two threads find bitwise what one does") {
  const PoliciesSetup s;
  const auto search = Leap{.keep = keep::Above{.threshold = 0.02}};
  const auto serial = s(search);
  Circuit a;
  Circuit b;
  std::thread one{[&] { a = s(search); }};
  std::thread two{[&] { b = s(search); }};
  one.join();
  two.join();
  REQUIRE(a == serial);
  REQUIRE(b == serial);
}

TEST_CASE("observers are told of every layer and stage, and a search can be stopped") {
  const PoliciesSetup s;
  std::vector<std::int32_t> layers;
  std::set<std::string> stages;
  const Leap search{.keep = keep::Above{.threshold = 0.02}};
  const auto found = search(
      s.model, s.set, s.prompts, s.metric, [&](const LayerDone& e) { layers.push_back(e.layer.value); },
      [&](const StageDone& e) { stages.insert(std::string{e.stage}); });
  REQUIRE(layers == std::vector{1, 0});
  REQUIRE(stages.size() == 4);

  std::stop_source source;
  auto stopped = search;
  stopped.stop = source.get_token();
  REQUIRE_THROWS_AS(stopped(s.model, s.set, s.prompts, s.metric, [&](const LayerDone&) { source.request_stop(); }),
                    Cancelled);
}

TEST_CASE("bad input to a search ends in one clear exception") {
  const PoliciesSetup s;
  const Leap search{.keep = keep::Above{.threshold = 0.02}};
  const auto with = [&](PromptPair prompts) { return search(s.model, s.set, prompts, s.metric); };
  REQUIRE_THROWS_AS(with({s.prompts.clean, {}}), ValueError);
  REQUIRE_THROWS_AS(with({s.prompts.clean, s.prompts.corrupt.narrow(1, 0, 5)}), ShapeError);
  REQUIRE_THROWS_AS(with({s.prompts.clean.narrow(0, 0, 0), s.prompts.corrupt.narrow(0, 0, 0)}), ValueError);
  REQUIRE_THROWS_AS(with({s.prompts.clean.add(1000), s.prompts.corrupt}), IndexError);

  auto wrong_size = random_model::dictionaries(
      [] {
        auto c = random_model::small_config();
        c.d_model = 12;
        return c;
      }(),
      8);
  REQUIRE_THROWS_AS(search(s.model, wrong_size, s.prompts, s.metric), ShapeError);
  REQUIRE_THROWS_AS(search(s.model, random_model::dictionaries(s.model.config(), 8, at::kFloat), s.prompts, s.metric),
                    DTypeError);
  auto expecting = s.set;
  expecting.expect(weights::folded_and_centered);
  REQUIRE_THROWS_AS(search(s.model, expecting, s.prompts, s.metric), ConfigError);
  auto weights = s.model.weights();
  weights.blocks[1].mlp.b_out = weights.blocks[1].mlp.b_out.mul(std::numeric_limits<double>::quiet_NaN());
  const HookedTransformer<Gpt2> nan{s.model.config(), weights};
  REQUIRE_THROWS_AS(search(nan, s.set, s.prompts, s.metric), ValueError);
}
