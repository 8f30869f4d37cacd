#include "circuit/graph/influence.hpp"

#include "catch.hpp"

using namespace circuit;

namespace {

Node feature(std::int32_t layer, std::int32_t f) { return Node::mlp_feature(Layer{layer}, Position{1}, Feature{f}); }

/// Two embeddings, features of three layers, an error, two logits; weights with signs.
Circuit example() {
  Circuit c;
  const std::vector<Node> nodes{Node::embedding(Position{0}),
                                Node::embedding(Position{1}),
                                feature(0, 1),
                                feature(0, 2),
                                feature(1, 1),
                                Node::mlp_error(Layer{1}, Position{1}),
                                feature(2, 1),
                                Node::logit(Position{1}, 7),
                                Node::logit(Position{1}, 8)};
  for (const auto& node : nodes) c.add_node({.node = node, .activation = 1});
  c.add_node({.node = nodes[7], .activation = 1, .nodegrad = 0.6});
  c.add_node({.node = nodes[8], .activation = 1, .nodegrad = 0.3});
  const auto edge = [&](std::size_t up, std::size_t down, double weight) {
    c.add_edge(nodes[up], nodes[down], {.type = down >= 7 ? EdgeType::metric : EdgeType::mlp, .nn_attrib = weight});
  };
  edge(0, 2, 1), edge(1, 2, -2), edge(1, 3, 0.5), edge(2, 4, 3), edge(3, 4, -1), edge(0, 4, 1), edge(5, 6, 2);
  edge(4, 6, -1.5), edge(2, 6, 0.01), edge(6, 7, 4), edge(5, 7, 1), edge(4, 8, -2), edge(5, 8, -2), edge(1, 8, 0.001);
  return c;
}

/// w (P + P^2 + ...) by powers of a dense matrix.
std::vector<double> by_powers(const Circuit& c) {
  const auto n = c.node_count();
  std::vector<std::vector<double>> P(n, std::vector<double>(n, 0.0));
  for (const auto& e : c.edges()) P[c.vertex(e.down)][c.vertex(e.up)] += std::abs(e.edge.nn_attrib);
  for (auto& row : P) {
    double sum = 0;
    for (const auto v : row) sum += v;
    for (auto& v : row) v /= sum > 0 ? sum : 1;
  }
  std::vector<double> step(n, 0.0);
  std::vector<double> total(n, 0.0);
  for (const auto& b : c.nodes()) step[c.vertex(b.node)] = is_output(b.node.kind) ? b.nodegrad : 0;
  for (std::size_t power = 0; power < n; ++power) {
    std::vector<double> next(n, 0.0);
    for (std::size_t t = 0; t < n; ++t) {
      for (std::size_t s = 0; s < n; ++s) next[s] += step[t] * P[t][s];
    }
    for (std::size_t s = 0; s < n; ++s) total[s] += next[s];
    step = next;
  }
  return total;
}

}  // namespace

TEST_CASE("influence is the sum of powers of the normalised matrix") {
  const auto c = example();
  const auto expected = by_powers(c);
  const auto found = influence(c);
  double ends = 0;
  for (const auto& b : c.nodes()) {
    INFO(b.node);
    const auto at = found.find(b.node);
    REQUIRE((at == found.end() ? 0.0 : at->second) == Approx(expected[c.vertex(b.node)]).margin(1e-12));
    if (c.incoming(b.node).empty()) ends += expected[c.vertex(b.node)];
  }
  REQUIRE(ends == Approx(0.9));  // all of the outputs' weight ends somewhere
}

TEST_CASE("influence of edges that have shares of the metric alone is refused, not 0") {
  Circuit c;
  c.add_node({.node = Node::input()});
  c.add_node({.node = Node::metric(), .activation = 1, .nodegrad = 1});
  REQUIRE(influence(c).empty());
  c.add_edge(Node::input(), Node::metric(), {.type = EdgeType::metric, .em_attrib = 2});
  REQUIRE_THROWS_AS(influence(c), ValueError);
  REQUIRE_THROWS_AS(prune_by_influence(c), ValueError);
}

TEST_CASE("scores are shares of influence that is no error's") {
  const auto c = example();
  const auto v = by_powers(c);
  const auto of = [&](const Node& node) { return v[c.vertex(node)]; };
  const auto explained = of(Node::embedding(Position{0})) + of(Node::embedding(Position{1}));
  const auto scores = graph_scores(c);
  REQUIRE(scores.replacement == Approx(explained / 0.9));
  const auto all = 0.9 + explained + of(feature(0, 1)) + of(feature(0, 2)) + of(feature(1, 1)) + of(feature(2, 1)) +
                   of(Node::mlp_error(Layer{1}, Position{1}));
  const auto missed = of(feature(2, 1)) * 2 / 3.51 + 0.6 * 0.2 + 0.3 * 2 / 4.001;
  REQUIRE(scores.completeness == Approx(1 - missed / all));
}

TEST_CASE("cuts keep outputs and embeddings, and no feature that nothing enters or leaves") {
  const auto c = example();
  const auto pruned = prune_by_influence(c, {.nodes = 0.8, .edges = 0.98});
  REQUIRE(pruned.contains(Node::embedding(Position{0})));
  REQUIRE(pruned.contains(Node::logit(Position{1}, 8)));
  REQUIRE(pruned.find_edge(feature(0, 1), feature(2, 1), EdgeType::mlp) == nullptr);
  for (const auto& b : pruned.nodes()) {
    if (is_feature(b.node.kind)) {
      REQUIRE_FALSE(pruned.incoming(b.node).empty());
      REQUIRE_FALSE(pruned.outgoing(b.node).empty());
    }
  }
  REQUIRE(prune_by_influence(c, {.nodes = 1, .edges = 1}) == c);
  REQUIRE_THROWS_AS(prune_by_influence(c, {.nodes = 1.5}), ValueError);
  REQUIRE_THROWS_AS(prune_by_influence(c, {.edges = -0.1}), ValueError);
}

TEST_CASE("cumulative influence is 1 at the least and smallest at the greatest") {
  const auto c = example();
  const auto v = by_powers(c);
  const auto shares = cumulative_influence(c);
  const auto best = static_cast<std::size_t>(std::max_element(v.begin(), v.end()) - v.begin());
  double sum = 0;
  for (const auto x : v) sum += x;
  double largest = 0;
  for (const auto& [node, share] : shares) largest = std::max(largest, share);
  REQUIRE(largest == Approx(1.0));
  for (const auto& b : c.nodes()) {
    if (c.vertex(b.node) == best) REQUIRE(shares.at(b.node) == Approx(v[best] / sum));
  }
}
