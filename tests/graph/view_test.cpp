#include "circuit/graph/view.hpp"

#include "catch.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

TEST_CASE("a view by type holds the edges of that type and their ends, and the metric") {
  const auto part = of_type(in::circuit(), EdgeType::q);
  CHECK(part.edge_count() == 2);
  CHECK(edge_counts(part)[EdgeType::q] == 2);
  CHECK(part.node_count() == 4);
  CHECK(part.contains(in::metric));
  CHECK_FALSE(part.contains(in::embed1));
}

TEST_CASE("a view keeps values, information and the constants of the targets that are left") {
  const auto whole = in::circuit();
  const auto part = of_type(whole, EdgeType::metric);
  CHECK(part.info() == whole.info());
  CHECK(part.bundle(in::mover) == whole.bundle(in::mover));
  CHECK(*part.find_edge(in::mover, in::metric, EdgeType::metric) ==
        *whole.find_edge(in::mover, in::metric, EdgeType::metric));
  CHECK(part.biases().size() == 2);
  CHECK(with_nodes(whole, [](const NodeBundle& b) { return b.node != in::mover; }).biases().size() == 1);
}

TEST_CASE("a threshold looks at the size of the attribution it is told to look at") {
  const auto whole = in::circuit();
  CHECK(above(whole, 1.0).edge_count() == 5);  // 4, 3, 2, 6, 5; the -1 is not larger than 1
  CHECK(above(whole, 0.99).edge_count() == 6);
  CHECK(above(whole, 1.0, Attribution::nn).edge_count() == 3);  // |em| / 3: 4, 6, 5
  CHECK(above(whole, 100.0).edge_count() == 0);
}

TEST_CASE("dropping a position drops its nodes, but not the metric") {
  const auto part = without_position(in::circuit());
  CHECK_FALSE(part.contains(in::embed0));
  CHECK_FALSE(part.contains(in::first));
  CHECK(part.contains(in::metric));
  CHECK(part.edge_count() == 8);
  CHECK(without_position(in::circuit(), Position{3}).contains(in::embed0));
}

TEST_CASE("dropping the errors drops the edges that leave them") {
  const auto part = without_errors(in::circuit());
  CHECK_FALSE(part.contains(in::error));
  CHECK(part.edge_count() == 9);
}

TEST_CASE("nodes and edges are chosen by any predicate") {
  const auto layer0 = with_nodes(in::circuit(), [](const NodeBundle& b) { return b.node.layer == Layer{0}; });
  CHECK_FALSE(layer0.contains(in::mover));
  const auto negative = with_edges(in::circuit(), [](const EdgeRef& ref) { return ref.edge.em_attrib < 0; });
  CHECK(negative.edge_count() == 2);
}

TEST_CASE("what a node reaches, and what reaches it") {
  const auto whole = in::circuit();
  const auto down = downstream_of(whole, in::dup);
  CHECK(down.node_count() == 4);
  CHECK(down.edge_count() == 5);
  const auto up = upstream_of(whole, in::neuron);
  CHECK(up.node_count() == 3);
  CHECK(up.edge_count() == 2);
  CHECK_THROWS_AS(upstream_of(whole, Node::attn_error(Layer{9}, Position{9})), NameError);
}

TEST_CASE("the paths through a node leave out the edges that pass it by") {
  const auto part = through(in::circuit(), in::neuron);
  CHECK(part.edge_count() == 4);
  CHECK(part.find_edge(in::neuron, in::mover, EdgeType::q) != nullptr);
  CHECK(part.contains(in::dup));
  CHECK(part.find_edge(in::dup, in::mover, EdgeType::q) == nullptr);
  CHECK(part.find_edge(in::embed1, in::metric, EdgeType::metric) == nullptr);
}

TEST_CASE("views of an empty circuit are empty") {
  CHECK(above(Circuit{}, 0).empty());
  CHECK(without_position(Circuit{}).empty());
  CHECK(of_type(Circuit{}, EdgeType::ov).empty());
}
