#include "circuit/search/targets.hpp"

#include "circuit/search/asked_targets.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

Node neuron_in_layer_2(std::int32_t position, std::int32_t feature) {
  return Node::mlp_feature(Layer{2}, Position{position}, Feature{feature});
}

/// Two prompts of two positions: features 3 and 5 at (0, 0), 5 at (0, 1), none at (1, 0), 3 and 9 at (1, 1).
ActiveFeatures features() {
  const auto values = [](double first) { return make::arange(5, at::kDouble).add(first); };
  return {.row_begin = {0, 2, 3, 3, 5},
          .feature = {3, 5, 5, 3, 9},
          .activation = values(1),  // 1, 2, 3, 4, 5
          .slope = values(11)};
}

StepTargets take(TargetSet& set) { return set.take(NodeKind::mlp_feature, Layer{2}, features(), 2, 2); }

}  // namespace

TEST_CASE("waiting features are taken once, the last position first, with their state on every prompt") {
  TargetSet set;
  for (const auto& node : {neuron_in_layer_2(0, 3), neuron_in_layer_2(1, 9), neuron_in_layer_2(1, 3),
                           neuron_in_layer_2(0, 3), neuron_in_layer_2(0, 7)})
    set.insert(node);
  set.insert(Node::attn_feature(Layer{2}, Position{0}, Feature{3}));
  const auto taken = take(set);
  REQUIRE(taken.size() == 3);  // feature 7 is active nowhere
  CHECK(taken.node(0) == neuron_in_layer_2(1, 3));
  CHECK(taken.node(1) == neuron_in_layer_2(1, 9));
  CHECK(taken.node(2) == neuron_in_layer_2(0, 3));
  CHECK(taken.at(Prompt{0}, 0).activation == 0);
  CHECK(taken.at(Prompt{1}, 0).activation == 4);
  CHECK(taken.at(Prompt{1}, 1).slope == 15);
  CHECK(taken.at(Prompt{0}, 2).activation == 1);
  CHECK(taken.at(Prompt{1}, 2).slope == 0);
  CHECK(take(set).size() == 0);
}

TEST_CASE("rules say which features wait") {
  const auto waiting = [](const auto& rule) {
    TargetSet set;
    rule.add(set, NodeKind::mlp_feature, Layer{2}, features(), 2);
    rule.reached(set, neuron_in_layer_2(1, 9));
    return take(set).size();
  };
  CHECK(waiting(targets::FromKept{}) == 1);
  CHECK(waiting(targets::AllActive{}) == 5);  // (0, 3), (0, 5), (1, 5), (1, 3), (1, 9)
  CHECK(waiting(targets::Asked{}) == 0);
  CHECK(waiting(targets::Asked{.all = true}) == 1);
}
