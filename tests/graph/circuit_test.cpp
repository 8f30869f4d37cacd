#include "circuit/graph/circuit.hpp"

#include <boost/graph/topological_sort.hpp>
#include <cmath>
#include <iterator>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"

using namespace circuit;

namespace {

const Node embed = Node::embedding(Position{1});
const Node early = Node::attn_feature(Layer{0}, Position{1}, Feature{3});
const Node neuron = Node::mlp_feature(Layer{0}, Position{1}, Feature{8});
const Node late = Node::attn_feature(Layer{1}, Position{2}, Feature{5});
const Node end = Node::metric();

/// embed -ov-> early -mlp-> neuron -{ov,q,k}-> late -metric-> end
Circuit chain() {
  Circuit circuit;
  for (const auto& node : {embed, early, neuron, late, end}) circuit.add_node({.node = node, .activation = 1});
  circuit.add_edge(embed, early, {.type = EdgeType::ov, .nn_attrib = 1, .em_attrib = 0.5});
  circuit.add_edge(early, neuron, {.type = EdgeType::mlp, .nn_attrib = 2, .em_attrib = 0.25});
  for (const auto type : {EdgeType::ov, EdgeType::q, EdgeType::k}) circuit.add_edge(neuron, late, {.type = type});
  circuit.add_edge(late, end, {.type = EdgeType::metric, .nn_attrib = 3, .em_attrib = 3});
  return circuit;
}

std::string message(const Error& error) { return error.what(); }

}  // namespace

TEST_CASE("edges of different type run beside each other between the same nodes") {
  const auto circuit = chain();
  CHECK(circuit.edge_count() == 6);
  CHECK(circuit.incoming(late).size() == 3);
  for (const auto type : {EdgeType::ov, EdgeType::q, EdgeType::k}) {
    REQUIRE(circuit.find_edge(neuron, late, type) != nullptr);
    CHECK(circuit.find_edge(neuron, late, type)->type == type);
  }
  CHECK(circuit.find_edge(neuron, late, EdgeType::mlp) == nullptr);
  CHECK(circuit.find_edge(early, late, EdgeType::ov) == nullptr);
}

TEST_CASE("an edge of the same type between the same nodes is refused and names itself") {
  auto circuit = chain();
  CHECK_THROWS_AS(circuit.add_edge(neuron, late, {.type = EdgeType::q}), ValueError);
  try {
    circuit.add_edge(neuron, late, {.type = EdgeType::q});
  } catch (const ValueError& e) {
    CHECK(e.details().tensor == "mlp.0.1.8 -q-> attn.1.2.5");
  }
  CHECK(circuit.edge_count() == 6);
}

TEST_CASE("numbers that are not finite are refused with the edge's name, and nothing is added") {
  auto circuit = chain();
  const auto nan = std::numeric_limits<double>::quiet_NaN();
  const auto inf = std::numeric_limits<double>::infinity();
  const std::vector<Edge> bad{{.type = EdgeType::q, .nn_grad = nan},
                              {.type = EdgeType::q, .nn_attrib = inf},
                              {.type = EdgeType::q, .em_grad = -inf},
                              {.type = EdgeType::q, .em_attrib = nan}};
  for (const auto& edge : bad) {
    try {
      circuit.add_edge(embed, early, edge);
      FAIL("accepted");
    } catch (const ValueError& e) {
      CHECK(message(e).find("embed.1 -q-> attn.0.1.3") != std::string::npos);
      CHECK(message(e).find("is not finite") != std::string::npos);
    }
  }
  CHECK(circuit.edge_count() == 6);
  CHECK_THROWS_AS(circuit.add_node({.node = embed, .activation = nan}), ValueError);
  CHECK_THROWS_AS(circuit.add_node({.node = embed, .nodegrad = inf}), ValueError);
  CHECK_THROWS_AS(circuit.add_bias({.target = late, .type = EdgeType::ov, .nn_attrib = nan}), ValueError);
  CHECK(circuit.bundle(embed).activation == 1);
}

TEST_CASE("an edge needs both ends, a reader of its type, and an upstream node that comes first") {
  auto circuit = chain();
  const auto stranger = Node::mlp_feature(Layer{7}, Position{0}, Feature{0});
  CHECK_THROWS_AS(circuit.add_edge(stranger, end, {.type = EdgeType::metric}), NameError);
  CHECK_THROWS_AS(circuit.add_edge(embed, late, {.type = EdgeType::mlp}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(embed, neuron, {.type = EdgeType::ov}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(embed, late, {.type = EdgeType::metric}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(late, early, {.type = EdgeType::ov}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(late, late, {.type = EdgeType::ov}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(embed, early, {.type = EdgeType::k, .prompts = -1}), ValueError);
  CHECK_THROWS_AS(circuit.add_edge(Circuit::Vertex{0}, Circuit::Vertex{99}, {}), IndexError);
  CHECK_THROWS_AS(circuit.bundle(stranger), NameError);
  CHECK(circuit.find(stranger) == nullptr);
}

TEST_CASE("a bias is a row of its own and never a node") {
  auto circuit = chain();
  const Node bias{.kind = NodeKind::bias};
  CHECK_THROWS_AS(circuit.add_node({.node = bias}), ValueError);
  circuit.add_bias({.target = late, .type = EdgeType::ov, .nn_attrib = 0.5});
  REQUIRE(circuit.biases().size() == 1);
  CHECK(circuit.biases()[0].nn_attrib == 0.5);
  CHECK_THROWS_AS(circuit.add_bias({.target = late, .type = EdgeType::ov}), ValueError);
  CHECK_THROWS_AS(circuit.add_bias({.target = late, .type = EdgeType::mlp}), ValueError);
  CHECK_THROWS_AS(circuit.add_bias({.target = Node::mlp_error(Layer{0}, Position{0})}), NameError);
}

TEST_CASE("adding a node again replaces its values and keeps its edges") {
  auto circuit = chain();
  const auto before = circuit.vertex(late);
  CHECK(circuit.add_node({.node = late, .activation = 7, .attribution = 2}) == before);
  CHECK(circuit.node_count() == 5);
  CHECK(circuit.bundle(late).attribution == 2);
  CHECK(circuit.incoming(late).size() == 3);
}

TEST_CASE("a node with a negative part is refused") {
  Circuit circuit;
  CHECK_THROWS_AS(circuit.add_node({.node = Node::attn_error(Layer{-1}, Position{0})}), IndexError);
  CHECK_THROWS_AS(circuit.add_node({.node = Node::embedding(Position{-1})}), IndexError);
}

TEST_CASE("edges are counted by type, with mlp and metric together too") {
  const auto circuit = chain();
  std::ostringstream out;
  out << edge_counts(circuit);
  CHECK(out.str() == "ov 2  q 1  k 1  mlp 1  metric 1");
  CHECK(edge_counts(circuit).total() == circuit.edge_count());
  CHECK(edge_summary(circuit) == "ov 2  q 1  k 1  mlp 1  metric 1\nov 2  q 1  k 1  None (mlp+metric) 2");
}

TEST_CASE("edges are counted by the target's layer, metric edges by the writer's") {
  auto by_layer = edge_counts_by_layer(chain());
  REQUIRE(by_layer.size() == 2);
  CHECK(by_layer[Layer{0}].by_type == std::array<std::size_t, 6>{1, 0, 0, 1, 0, 0});
  CHECK(by_layer[Layer{1}].by_type == std::array<std::size_t, 6>{1, 1, 1, 0, 1, 0});
}

TEST_CASE("a circuit prints a one-line summary") {
  std::ostringstream out;
  out << chain();
  CHECK(out.str() == "5 nodes, 6 edges (ov 2  q 1  k 1  mlp 1  metric 1), mean over 1 prompt");
}

TEST_CASE("nodes and edges come back in the order in which they were added") {
  const auto circuit = chain();
  std::vector<Node> nodes;
  for (const auto& bundle : circuit.nodes()) nodes.push_back(bundle.node);
  CHECK(nodes == std::vector<Node>{embed, early, neuron, late, end});
  std::vector<EdgeType> types;
  for (const auto& [up, down, edge] : circuit.edges()) types.push_back(edge.type);
  CHECK(types ==
        std::vector<EdgeType>{EdgeType::ov, EdgeType::mlp, EdgeType::ov, EdgeType::q, EdgeType::k, EdgeType::metric});
}

TEST_CASE("a copy is equal and independent") {
  const auto original = chain();
  auto copy = original;
  CHECK(copy == original);
  copy.info().tokens = {"a"};
  CHECK_FALSE(copy == original);
  copy = original;
  copy.add_edge(embed, early, {.type = EdgeType::k});
  CHECK_FALSE(copy == original);
  CHECK(original.edge_count() == 6);
}

TEST_CASE("Boost's algorithms run on the graph") {
  const auto circuit = chain();
  std::vector<Circuit::Vertex> order;
  boost::topological_sort(circuit.graph(), std::back_inserter(order));
  REQUIRE(order.size() == 5);
  CHECK(circuit.graph()[order.front()].node == end);
  CHECK(circuit.graph()[order.back()].node == embed);
}
