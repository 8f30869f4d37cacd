#include "circuit/search/node_attributions.hpp"

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"

using namespace circuit;

TEMPLATE_TEST_CASE("every feature's attribution is the one that a search gives its node", "", Gpt2, Llama, Gemma2) {
  const auto model = random_model::make<TestType>(7);
  const auto clean = random_model::Source{9}.tokens(2, 5, model.config().d_vocab);
  const auto corrupt = random_model::Source{10}.tokens(2, 5, model.config().d_vocab);
  const std::vector<std::int64_t> right{3, 5};
  const std::vector<std::int64_t> wrong{4, 1};
  const LogitDifference metric{std::span{right}, std::span{wrong}};
  const auto compare = [&](const auto& set) {
    const auto found = Leap{.keep = keep::All{}}(model, set, {clean, corrupt}, metric);
    const auto nodes = node_attributions(model, set, clean, corrupt, metric);
    std::size_t compared = 0;
    for (const auto& a : nodes) {
      INFO(a.node);
      REQUIRE(a.attribution == Approx(found.bundle(a.node).attribution).epsilon(1e-9).margin(1e-12));
      ++compared;
    }
    std::size_t features = 0;
    for (const auto& bundle : found.nodes()) features += is_feature(bundle.node.kind) ? 1 : 0;
    REQUIRE(compared == features);
    REQUIRE(compared > 50);
  };
  compare(random_model::dictionaries(model.config(), 8));
  compare(NeuronBasis{model});
}

TEST_CASE("the strongest come first, and only those that are admitted") {
  const auto node = [](std::int32_t unit) { return Node{NodeKind::mlp_feature, Layer{0}, Position{1}, Feature{unit}}; };
  const std::vector<NodeAttribution> all{{node(0), 0.1}, {node(1), -0.5}, {node(2), 0.3}, {node(3), 2.0}};
  const auto best = strongest(all, 2, [](const Node& n) { return n.feature != Feature{3}; });
  REQUIRE(best.size() == 2);
  REQUIRE(best[0].node == node(1));
  REQUIRE(best[1].node == node(2));
}

TEST_CASE("nodes come in order, by magnitude or by value") {
  const auto node = [](std::int32_t unit) { return Node{NodeKind::mlp_feature, Layer{0}, Position{1}, Feature{unit}}; };
  const std::vector<NodeAttribution> all{{node(0), 0.1}, {node(1), -0.5}, {node(2), 0.3}};
  REQUIRE(in_order(all) == std::vector{node(1), node(2), node(0)});
  REQUIRE(in_order(all, ByValue{}) == std::vector{node(2), node(0), node(1)});
}
