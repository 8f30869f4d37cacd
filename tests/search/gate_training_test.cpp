#include "circuit/search/gate_training.hpp"

#include "tensors.hpp"

using namespace circuit;

namespace {

const Layer layer{0};

Node gated_neuron(std::int32_t position, std::int32_t feature) {
  return Node::mlp_feature(layer, Position{position}, Feature{feature});
}

/// Two positions of an MLP's three features and error, and of embeddings.
detail::NodeGates no_gates() {
  detail::NodeGates out;
  out.modules[{Module::mlp, layer}] = make::zeros({2, 4}, at::kDouble);
  out.embedding = make::zeros({2, 1}, at::kDouble);
  return out;
}

const std::vector<Node> start{gated_neuron(1, 2), Node::embedding(Position{0}), Node::mlp_error(layer, Position{0}),
                              gated_neuron(0, 1)};

}  // namespace

TEST_CASE("log odds start from the spread down, and only nodes of the start have a gate") {
  const auto none = no_gates();
  detail::GateTraining training{none, start, 2};
  REQUIRE(none.modules.at({Module::mlp, layer}).abs().max().item<double>() == 0);
  std::mt19937_64 bits{1};
  const c10::AutoGradMode with_gradient{true};
  for (int i = 0; i < 5; ++i) {
    const auto drawn = training.draw(bits);
    const auto& gates = drawn.gates.modules.at({Module::mlp, layer});
    for (std::int64_t p = 0; p < 2; ++p) {
      for (std::int64_t f = 0; f < 4; ++f) {
        const bool has_gate = (p == 1 && f == 2) || (p == 0 && (f == 1 || f == 3));
        if (!has_gate) REQUIRE(gates[p][f].item<double>() == 0);
      }
    }
    const auto expected = hard_concrete::open_probability(make::arange(4, at::kDouble).neg().add(2)).sum();
    REQUIRE_CLOSE(drawn.open, expected, 1e-12);  // 2, 1, 0, -1
  }
  const auto found = std::move(training).found();
  REQUIRE(found.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    REQUIRE(found[i].node == start[i]);
    REQUIRE(found[i].attribution == Approx(2.0 - static_cast<double>(i)));
  }
}

TEST_CASE("an update moves gates against the gradient, and shut ones not at all") {
  detail::GateTraining training{no_gates(), start, 2};
  const std::vector<at::Tensor> gradients{make::ones({2, 4}, at::kDouble), make::ones({2, 1}, at::kDouble).neg()};
  training.update(gradients, 1, 0.5);  // Adam's first step is the rate itself
  const auto found = std::move(training).found();
  REQUIRE(found[0].attribution == Approx(1.5));  // neuron
  REQUIRE(found[1].attribution == Approx(1.5));  // embedding, whose gradient is negative
  REQUIRE(found[2].attribution == Approx(-0.5));
  REQUIRE(found[3].attribution == Approx(-1.5));
  detail::GateTraining other{no_gates(), start, 2};
  const std::vector<at::Tensor> bad{gradients[0].div(0.0), gradients[1]};
  REQUIRE_THROWS_AS(other.update(bad, 1, 0.5), ValueError);
}
