#include "circuit/evaluate/nodes_around.hpp"

#include "circuit/evaluate/knock_outs.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct AroundSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(11);
  PromptPair prompts{random_model::Source{13}.tokens(3, 6, model.config().d_vocab),
                     random_model::Source{14}.tokens(3, 6, model.config().d_vocab)};
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}, {7}}, {{4}, {1}, {2}}};
};

std::vector<Node> every_other(std::span<const NodeChange> changes) {
  std::vector<Node> out;
  for (std::size_t i = 0; i < changes.size(); i += 2) out.push_back(changes[i].node);
  return out;
}

/// Every single node taken out of a circuit or added to it, each judged by a run of its own and from where it is.
template <class Set>
void check_each(const AroundSetting& s, const Set& dictionaries, std::int32_t stream_begins_before,
                bool whole_runs = false) {
  const NodeEvaluation judge{s.model, dictionaries, s.prompts, s.metric};
  const auto circuit = every_other(judge.changes());
  const NodesAround around{judge, circuit};
  REQUIRE_CLOSE(around.per_prompt(circuit), judge.per_prompt(circuit), 1e-12);
  REQUIRE(around.first_change(circuit) > Layer{2});
  const std::span<const Node> all{circuit};
  std::set<NodeKind> kinds;
  std::size_t checked = 0;
  for (const auto& change : judge.changes()) {
    const auto& node = change.node;
    if (++checked % 3 != 0 && kinds.contains(node.kind)) continue;  // some of each kind
    kinds.insert(node.kind);
    auto other = without(all, std::span{&node, 1});
    if (other.size() == circuit.size()) other.push_back(node);
    REQUIRE_CLOSE(around.per_prompt(other), judge.per_prompt(other), 1e-12);
    const auto layer = node.layer.value - (is_stream(node.kind) ? stream_begins_before : 0);
    REQUIRE(around.first_change(other) == Layer{whole_runs ? 0 : std::max(0, layer)});
  }
  REQUIRE(kinds.contains(NodeKind::embedding));
  REQUIRE(kinds.size() > 3);
}

}  // namespace

TEST_CASE("nodes around a circuit are judged as by runs of their own, from the lowest change on") {
  const AroundSetting s;
  check_each(s, random_model::dictionaries(s.model.config(), 12), 0);
}

TEST_CASE("features of the stream are held behind the layer before theirs") {
  const AroundSetting s;
  check_each(s, random_model::residual_dictionaries(s.model.config(), 12), 1);
}

TEST_CASE("cross-layer features need the whole run") {
  const AroundSetting s;
  check_each(s, random_model::cross_layer_dictionaries(s.model.config(), 12), 0, /*whole_runs=*/true);
}

TEST_CASE("minimality around a circuit is minimality") {
  const AroundSetting s;
  const auto dictionaries = random_model::dictionaries(s.model.config(), 12);
  const NodeEvaluation judge{s.model, dictionaries, s.prompts, s.metric};
  const auto all = every_other(judge.changes());
  const auto circuit = std::span{all}.first(20);
  const NodesAround around{judge, circuit};
  const auto fast = minimality(circuit, {}, [&](std::span<const Node> kept) { return around.faithfulness(kept); });
  const auto slow = minimality(circuit, {}, [&](std::span<const Node> kept) { return judge.faithfulness(kept); });
  for (std::size_t i = 0; i < fast.size(); ++i) REQUIRE(fast[i] == Approx(slow[i]).margin(1e-12));
  REQUIRE(*std::max_element(slow.begin(), slow.end()) > 1e-3);
}
