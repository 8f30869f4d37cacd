#include "circuit/search/step_targets.hpp"

#include "tensors.hpp"

using namespace circuit;

namespace {

Node neuron(std::int32_t position, std::int32_t feature) {
  return Node::mlp_feature(Layer{2}, Position{position}, Feature{feature});
}

}  // namespace

TEST_CASE("a step's targets say where and what they are, prompt by prompt") {
  StepTargets targets{{neuron(5, 3), neuron(5, 8), neuron(1, 4)}, 2};
  targets.at(Prompt{0}, 1) = {.slope = 1, .nodegrad = 2, .activation = 3};
  targets.at(Prompt{1}, 0) = {.slope = 1, .nodegrad = 4, .activation = 5};
  targets.at(Prompt{1}, 2) = {.slope = 1, .nodegrad = 6, .activation = 7};
  CHECK(targets.size() == 3);
  CHECK(targets.positions() == std::vector<std::int64_t>{5, 5, 1});
  REQUIRE_CLOSE(targets.features(), detail::ids_tensor({3, 8, 4}), 0);
  CHECK(targets.active(Prompt{0}) == std::vector<std::int64_t>{1});
  CHECK(targets.active(Prompt{1}) == std::vector<std::int64_t>{0, 2});
}

TEST_CASE("a block of features keeps the states of its targets") {
  StepTargets targets{{neuron(5, 3), neuron(5, 8), neuron(1, 4)}, 2};
  for (std::int32_t b = 0; b < 2; ++b) {
    for (std::int64_t t = 0; t < 3; ++t) targets.at(Prompt{b}, t).activation = 10.0 * b + static_cast<double>(t);
  }
  const auto block = targets.within(4, 5);
  REQUIRE(block.size() == 2);
  CHECK(block.node(0) == neuron(5, 8));
  CHECK(block.node(1) == neuron(1, 4));
  CHECK(block.at(Prompt{0}, 1).activation == 2);
  CHECK(block.at(Prompt{1}, 0).activation == 11);
  CHECK(block.at(Prompt{1}, 1).activation == 12);
}

TEST_CASE("the metric is a target at the last position whose gradient is 1") {
  const auto metric = StepTargets::metric(2, 6);
  CHECK(metric.size() == 1);
  CHECK(metric.positions() == std::vector<std::int64_t>{6});
  CHECK(metric.at(Prompt{1}, 0).nodegrad == 1);
  CHECK(metric.at(Prompt{1}, 0).slope == 1);
}
