#include <ATen/core/Formatting.h>

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/evaluate/faithfulness.hpp"
#include "circuit/evaluate/known_truth.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/known/duplicate_token.hpp"
#include "circuit/model/known/induction.hpp"
#include "circuit/model/known/repeated_pair.hpp"
#include "circuit/search/acdc.hpp"
#include "circuit/search/attribution_graph.hpp"
#include "circuit/search/component_scores.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/sparse_feature_circuit.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

template <class Known>
LogitDifference metric_of(const Known& known) {
  return LogitDifference{std::span{known.answers}, std::span{known.wrong_answers}};
}

template <class Known>
Separation separation_of(const Known& known, const at::Tensor& scores) {
  const auto c = Components::of(known.model);
  std::vector<Judged> judged;
  for (std::int64_t r = 0; r < c.receivers(); ++r) {
    for (std::int64_t s = 0; s < c.before(r); ++s) {
      judged.push_back({std::abs(scores[s][r].template item<double>()), known.edges[s][r].template item<bool>()});
    }
  }
  return separation(judged);
}

template <class Known>
void check_promises(const Known& known) {
  const auto metric = metric_of(known);
  const auto chosen = known.model.run(known.clean).logits.select(1, -1).argmax(-1);
  for (std::size_t b = 0; b < known.answers.size(); ++b) {
    REQUIRE(chosen[static_cast<std::int64_t>(b)].template item<std::int64_t>() == known.answers[b]);
  }
  const EdgeEvaluation judge{known.model, PromptPair{known.clean, known.corrupt}, metric};
  REQUIRE(judge.range().full > 1);
  REQUIRE(judge.range().empty < -1);
  REQUIRE(judge.faithfulness(known.edges) == Approx(1.0).margin(1e-9));
  REQUIRE(judge.faithfulness_of_rest(known.edges) == Approx(0.0).margin(1e-9));
  const auto needed = judge.loss_by_edge(known.edges).masked_select(known.edges);
  REQUIRE(needed.min().template item<double>() > 0.1);
}

}  // namespace

TEST_CASE("a known circuit solves its task, and without noise its edges are all of it and each is needed") {
  check_promises(induction_circuit({.noise = 0}));
  check_promises(duplicate_token_circuit({.noise = 0}));
  check_promises(repeated_pair_circuit({.noise = 0}));
  check_promises(repeated_pair_circuit({.prompts = 8, .length = 6, .words = 8, .distractors = 0, .sharpness = 8}));
  check_promises(induction_circuit({.prompts = 8, .length = 6, .words = 30, .distractors = 0, .seed = 5}));
}

TEST_CASE("searches find the known circuits among distractors") {
  const auto compare = [](const auto& known) {
    const auto metric = metric_of(known);
    const PromptPair pair{known.clean, known.corrupt};
    const auto eap = separation_of(known, Eap{}.scores(known.model, pair, metric)).auroc;
    const auto inputs =
        separation_of(known, EapIgInputs{.path = {.steps = 20}}.scores(known.model, pair, metric)).auroc;
    const auto acdc = separation_of(known, Acdc<>{.threshold = 0.05}.decide(known.model, pair).rise).auroc;
    CAPTURE(eap, inputs, acdc);
    REQUIRE(eap > 0.9);
    REQUIRE(inputs > 0.95);
    REQUIRE(acdc > 0.95);
  };
  compare(induction_circuit());
  compare(duplicate_token_circuit());
  compare(repeated_pair_circuit({.prompts = 8, .length = 7, .words = 8}));
}

TEST_CASE("searches of features find them in a model's own units, and LEAP without q and k edges but a part") {
  const auto known = induction_circuit({.prompts = 8});
  const auto metric = metric_of(known);
  const PromptPair pair{known.clean, known.corrupt};
  const NeuronBasis basis{known.model};
  const auto auroc = [&](const Circuit& found) {
    const auto by_head = by_component(found, known.model.config().d_head, Totals::net);
    return separation_of(known, ComponentScores::of(Components::of(known.model), by_head).edges).auroc;
  };
  const keep::Above above{0.001};
  CHECK(auroc(Leap{.keep = above}(known.model, basis, pair, metric)) > 0.98);
  CHECK(auroc(SparseFeatureCircuit<>{.node_threshold = 0.001, .keep = above}(known.model, basis, pair, metric)) > 0.98);
  const AttributionGraph<keep::TopPerTarget, modules::ReadElseOpaque> graph{.keep = {.n = 50}};  // no corrupt prompts
  CHECK(auroc(graph.pooled(known.model, basis, known.clean)) > 0.9);
  const Leap values{.keep = above, .attention = AttentionPaths::values};
  CHECK(auroc(values(known.model, basis, pair, metric)) < 0.85);  // two of five edges are a query's and a key's
}

TEST_CASE("the same options make the same circuit, and impossible ones are refused") {
  REQUIRE(induction_circuit().clean.equal(induction_circuit().clean));
  REQUIRE_FALSE(induction_circuit({.seed = 2}).clean.equal(induction_circuit().clean));
  REQUIRE_THROWS_AS(induction_circuit({.length = 3}), ValueError);
  REQUIRE_THROWS_AS(duplicate_token_circuit({.length = 9, .words = 9}), ValueError);
  REQUIRE_THROWS_AS(induction_circuit({.prompts = 0}), ValueError);
  REQUIRE_THROWS_AS(repeated_pair_circuit({.length = 4}), ValueError);
}
