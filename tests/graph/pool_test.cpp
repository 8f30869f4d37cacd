#include "circuit/graph/pool.hpp"

#include "catch.hpp"
#include "circuit/graph/influence.hpp"

using namespace circuit;

namespace {

Node mlp_feature(std::int32_t f) { return Node::mlp_feature(Layer{0}, Position{1}, Feature{f}); }
const Node start = Node::embedding(Position{1});
const Node logit = Node::logit(Position{1}, 3);

/// An embedding, one feature and a logit.
Circuit graph(std::int32_t f, double in, double out) {
  Circuit c{CircuitInfo{.settings = {{"keep", "all"}}, .tokens = {"a", "b"}}};
  c.add_node({.node = start, .activation = 1});
  c.add_node({.node = mlp_feature(f), .activation = in, .attribution = out});
  c.add_node({.node = logit, .activation = out + 0.5, .nodegrad = 0.25});
  c.add_edge(start, mlp_feature(f), {.type = EdgeType::mlp, .nn_grad = 1, .nn_attrib = in, .em_attrib = 2 * in});
  c.add_edge(mlp_feature(f), logit, {.type = EdgeType::metric, .nn_attrib = out});
  c.add_bias({.target = logit, .type = EdgeType::metric, .nn_attrib = 0.5, .em_map = 2});
  return c;
}

}  // namespace

TEST_CASE("pooled graphs hold all their nodes and edges, the numbers pooled by a rule") {
  const std::vector<Circuit> graphs{graph(1, 3, 2), graph(2, 4, -6), graph(1, 1, -4)};
  const auto mean = pool(graphs);
  REQUIRE(mean.node_count() == 4);
  REQUIRE(mean.edge_count() == 4);
  REQUIRE(mean.info().prompts == 3);
  REQUIRE(mean.info().tokens == std::vector<std::string>{"a", "b"});
  REQUIRE(mean.info().settings.at("keep") == "all");
  const auto& into_first = *mean.find_edge(start, mlp_feature(1), EdgeType::mlp);
  REQUIRE(into_first.nn_attrib == Approx(4.0 / 3));
  REQUIRE(into_first.em_attrib == Approx(8.0 / 3));
  REQUIRE(into_first.nn_grad == Approx(2.0 / 3));
  REQUIRE(into_first.prompts == 2);
  REQUIRE(mean.bundle(mlp_feature(2)).activation == Approx(4.0 / 3));
  REQUIRE(mean.bundle(logit).nodegrad == Approx(0.25));
  REQUIRE(mean.biases().size() == 1);
  REQUIRE(mean.biases().front().em_map == Approx(2));

  double into_end = mean.biases().front().nn_attrib;
  for (const auto& e : mean.incoming(logit)) into_end += e.edge.nn_attrib;
  REQUIRE(into_end == Approx(mean.bundle(logit).activation));

  const auto present = pool(graphs, pooling::MeanWherePresent{});
  REQUIRE(present.find_edge(start, mlp_feature(1), EdgeType::mlp)->nn_attrib == Approx(2));
  REQUIRE(present.find_edge(mlp_feature(2), logit, EdgeType::metric)->nn_attrib == Approx(-6));
  const auto largest = pool(graphs, pooling::Largest{});
  REQUIRE(largest.find_edge(mlp_feature(1), logit, EdgeType::metric)->nn_attrib == Approx(-4));
}

TEST_CASE("pooling keeps what enough of the graphs have") {
  const std::vector<Circuit> graphs{graph(1, 3, 2), graph(2, 4, -6), graph(1, 1, -4)};
  const auto most = pool(graphs, pooling::Mean{}, 2.0 / 3);
  REQUIRE(most.contains(mlp_feature(1)));
  REQUIRE(!most.contains(mlp_feature(2)));
  REQUIRE(most.edge_count() == 2);
  const auto all = pool(graphs, pooling::Mean{}, 1);
  REQUIRE(all.node_count() == 2);
  REQUIRE(all.edge_count() == 0);
  REQUIRE(all.biases().size() == 1);
}

TEST_CASE("one graph pooled is itself, and influence reads a pooled graph as any other") {
  const std::vector<Circuit> one{graph(1, 3, 2)};
  auto same = pool(one);
  same.info().settings.erase("pooled");
  REQUIRE(same == one.front());
  const std::vector<Circuit> graphs{graph(1, 3, 2), graph(2, 4, -6)};
  const auto found = influence(pool(graphs));
  REQUIRE(found.at(mlp_feature(1)) == Approx(0.25 * 2 / 8));
  REQUIRE(found.at(mlp_feature(2)) == Approx(0.25 * 6 / 8));
}

TEST_CASE("nothing to pool is one clear error") {
  REQUIRE_THROWS_AS(pool({}), ValueError);
  const std::vector<Circuit> one{graph(1, 3, 2)};
  REQUIRE_THROWS_AS(pool(one, pooling::Mean{}, 1.5), ValueError);
}
