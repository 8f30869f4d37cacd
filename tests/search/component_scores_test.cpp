#include "circuit/search/component_scores.hpp"

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/attribution_graph.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/node_patching.hpp"
#include "circuit/search/sparse_feature_circuit.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

constexpr double tolerance = 1e-10;

template <class A>
struct ScoresSetup {
  HookedTransformer<A> model = random_model::make<A>(7);
  PromptPair prompts{random_model::Source{9}.tokens(2, 5, model.config().d_vocab),
                     random_model::Source{10}.tokens(2, 5, model.config().d_vocab)};
  std::vector<std::int64_t> right{3, 5};
  std::vector<std::int64_t> wrong{4, 1};
  LogitDifference metric{std::span<const std::int64_t>{right}, std::span<const std::int64_t>{wrong}};
  Components components = Components::of(model);

  ComponentScores net(const Circuit& circuit) const {
    return ComponentScores::of(components, by_component(circuit, model.config().d_head, Totals::net));
  }
};

}  // namespace

TEMPLATE_TEST_CASE("without norms LEAP's edges and nodes, summed over units, are attribution patching's", "", Plain,
                   AttentionOnly) {
  const ScoresSetup<TestType> s;
  const auto found =
      Leap{.keep = keep::All{}, .targets = targets::AllActive{}}(s.model, NeuronBasis{s.model}, s.prompts, s.metric);
  const auto scores = s.net(found);
  REQUIRE_CLOSE(scores.edges, Eap{}.scores(s.model, s.prompts, s.metric), tolerance);
  REQUIRE_CLOSE(scores.nodes, AttributionPatching{}.scores(s.model, s.prompts, s.metric), tolerance);
}

TEMPLATE_TEST_CASE("so are a sparse feature circuit's at one step, with norms too", "", Plain, Gpt2, GptNeox) {
  const ScoresSetup<TestType> s;
  const SparseFeatureCircuit<keep::All> search{.node_threshold = 0, .steps = 1};
  const auto scores = s.net(search(s.model, NeuronBasis{s.model}, s.prompts, s.metric));
  REQUIRE_CLOSE(scores.edges, Eap{}.scores(s.model, s.prompts, s.metric), tolerance);
  REQUIRE_CLOSE(scores.nodes, AttributionPatching{}.scores(s.model, s.prompts, s.metric), tolerance);
}

TEST_CASE("an attribution graph's are the same products with what senders write on the clean prompt alone") {
  const ScoresSetup<AttentionOnly> s;
  const AttributionGraph<keep::All, modules::ReadElseOpaque> search{.budget = 0};
  const auto tokens = s.prompts.clean.narrow(0, 0, 1);
  const auto scores = s.net(search(s.model, NeuronBasis{s.model}, tokens));
  const ExpectedLogit expected{search.logits.choose(s.model.run(tokens).logits[0][-1])};
  REQUIRE_CLOSE(
      scores.edges,
      edge_products(s.components, sender_writes(s.model, tokens), receiver_gradients(s.model, tokens, expected)),
      tolerance);
  REQUIRE_CLOSE(scores.nodes, scores.edges.sum(1), tolerance);
}

TEST_CASE("what a circuit of components does not hold scores 0, and strangers are refused") {
  const ScoresSetup<Plain> s;
  Circuit circuit;
  const auto head = Node::head(Layer{1}, Head{2});
  circuit.add_node({.node = head, .attribution = -2});
  circuit.add_node({.node = Node::input(), .attribution = 3});
  circuit.add_node({.node = Node::logit(Position{4}, 6)});
  circuit.add_node({.node = Node::logit(Position{4}, 7)});
  circuit.add_edge(Node::input(), head, {.type = EdgeType::q, .nn_attrib = 0.25, .em_attrib = 5});
  circuit.add_edge(head, Node::logit(Position{4}, 6), {.type = EdgeType::metric, .em_attrib = 1});
  circuit.add_edge(head, Node::logit(Position{4}, 7), {.type = EdgeType::metric, .em_attrib = 1.5});
  const auto c = s.components;
  const auto scores = ComponentScores::of(c, circuit);
  REQUIRE(scores.nodes[c.first_head(Layer{1}) + 2].item<double>() == -2);
  REQUIRE(scores.nodes.sum().item<double>() == 1);
  REQUIRE(scores.edges[0][c.first_query(Layer{1}) + 2].item<double>() == 5);
  REQUIRE(scores.edges[c.first_head(Layer{1}) + 2][c.logits()].item<double>() == 2.5);
  REQUIRE(scores.edges.sum().item<double>() == 7.5);
  REQUIRE(ComponentScores::of(c, circuit, Attribution::nn).edges.sum().item<double>() == 0.25);

  circuit.add_node({.node = Node::head(Layer{1}, Head{9})});
  REQUIRE_THROWS_AS(ComponentScores::of(c, circuit), NameError);
}
