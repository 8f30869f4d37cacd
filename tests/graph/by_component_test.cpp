#include "circuit/graph/by_component.hpp"

#include "catch.hpp"
#include "circuit/graph/view.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

TEST_CASE("a unit is a part of its head or MLP, an embedding of the input") {
  const Layer layer{2};
  const Position p{3};
  CHECK(component_of(Node::attn_feature(layer, p, Feature{11}), 4) == Node::head(layer, Head{2}));
  CHECK(component_of(Node::attn_feature(layer, p, Feature{12}), 4) == Node::head(layer, Head{3}));
  for (const auto& node :
       {Node::mlp_feature(layer, p, Feature{11}), Node::mlp_error(layer, p), Node::mlp_output(layer, p)}) {
    CHECK(component_of(node, 4) == Node::mlp_block(layer));
  }
  for (const auto& node : {Node::embedding(p), Node::position_embedding(p)}) {
    CHECK(component_of(node, 4) == Node::input());
  }
  for (const auto& node : {Node::input(), Node::head(layer, Head{1}), Node::metric(), Node::logit(p, 7)}) {
    CHECK(component_of(node, 4) == node);
  }
}

TEST_CASE("parts of several components are refused") {
  const Layer layer{2};
  const Position p{3};
  for (const auto& node : {Node::attn_error(layer, p), Node::attn_output(layer, p), Node::resid_error(layer, p),
                           Node::resid_feature(layer, p, Feature{1})}) {
    CHECK_THROWS_AS(component_of(node, 4), NameError);
  }
  CHECK_THROWS_AS(component_of(Node::metric(), 0), ValueError);
}

TEST_CASE("what units have adds up by component and type, with signs or without") {
  // Heads of two dimensions: dup and first are heads 1 and 4 of layer 0, mover is head 2 of layer 1.
  auto units = in::circuit();
  const auto twin = Node::attn_feature(Layer{0}, Position{1}, Feature{2});  // head 1 too
  units.add_node({.node = twin, .attribution = -0.5});
  units.add_edge(twin, in::mover, {.type = EdgeType::q, .nn_attrib = 0.75, .em_attrib = -5, .prompts = 1});
  const auto head1 = Node::head(Layer{0}, Head{1});
  const auto head2 = Node::head(Layer{1}, Head{2});

  const auto gross = by_component(units, 2);
  CHECK(gross.node_count() == 6);  // the input, heads 1 and 4, the MLP, head 2, the metric
  CHECK(gross.edge_count() == 10);
  CHECK(gross.bundle(head1).attribution == 2.5);
  CHECK(gross.bundle(Node::input()).attribution == 4);
  CHECK(gross.bundle(Node::mlp_block(Layer{0})).attribution == 4);  // a neuron and an error
  CHECK(gross.bundle(in::metric) == units.bundle(in::metric));
  CHECK(gross.find_edge(head1, head2, EdgeType::q)->em_attrib == 7);
  CHECK(gross.find_edge(head1, head2, EdgeType::q)->nn_attrib == Approx(2.0 / 3 + 0.75));
  CHECK(gross.find_edge(head1, head2, EdgeType::q)->prompts == 2);
  CHECK(gross.find_edge(head1, head2, EdgeType::ov)->em_attrib == 0.5);
  CHECK(gross.find_edge(Node::mlp_block(Layer{0}), head2, EdgeType::q)->em_attrib == 3);

  const auto net = by_component(units, 2, Totals::net);
  CHECK(net.bundle(head1).attribution == 1.5);
  CHECK(net.find_edge(head1, head2, EdgeType::q)->em_attrib == -3);
  CHECK(net.find_edge(Node::head(Layer{0}, Head{4}), head2, EdgeType::k)->em_attrib == -0.25);
  CHECK(by_component(net, 2, Totals::net).edge_count() == net.edge_count());
  CHECK(net.biases().empty());
}
