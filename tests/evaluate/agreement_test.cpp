#include "circuit/evaluate/agreement.hpp"

#include "catch.hpp"

using namespace circuit;

namespace {

/// A circuit of edges from heads of layer 0 to the metric, by head and attribution.
Circuit heads(const std::vector<std::pair<int, double>>& edges) {
  Circuit circuit;
  circuit.add_node({.node = Node::metric()});
  for (const auto& [head, value] : edges) {
    circuit.add_node({.node = Node::head(Layer{0}, Head{head})});
    circuit.add_edge(Node::head(Layer{0}, Head{head}), Node::metric(), {.type = EdgeType::metric, .em_attrib = value});
  }
  return circuit;
}

}  // namespace

TEST_CASE("rank correlation by hand") {
  const std::vector<double> a{1, 2, 3, 4};
  REQUIRE(rank_correlation(a, std::vector<double>{10, 20, 30, 400}) == Approx(1.0));
  REQUIRE(rank_correlation(a, std::vector<double>{4, 3, 2, 1}) == Approx(-1.0));
  // Differences of ranks 0, 1, 1, 0: 1 - 6 * 2 / (4 * 15).
  REQUIRE(rank_correlation(a, std::vector<double>{1, 3, 2, 4}) == Approx(0.8));
  // Ties at ranks 0.5, 0.5, 2, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
  REQUIRE(rank_correlation(std::vector<double>{1, 1, 2, 3}, a) == Approx(4.5 / std::sqrt(4.5 * 5)));
  REQUIRE_THROWS_AS(rank_correlation(a, std::vector<double>{1, 2}), ValueError);
  REQUIRE_THROWS_AS(rank_correlation(a, std::vector<double>{1, 1, 1, 1}), ValueError);
  REQUIRE_THROWS_AS(rank_correlation(std::vector<double>{}, std::vector<double>{}), ValueError);
  REQUIRE_THROWS_AS(rank_correlation(a, std::vector<double>{1, std::nan(""), 3, 4}), ValueError);
}

TEST_CASE("circuits rank edges by magnitude, an edge that one lacks counting as 0") {
  const auto first = heads({{0, 3.0}, {1, -2.0}, {2, 1.0}});
  const auto second = heads({{0, -5.0}, {1, 4.0}, {3, 1.0}});
  // Magnitudes by head 0..3: 3, 2, 1, 0 and 5, 4, 0, 1: ranks 3 2 1 0 and 3 2 0 1.
  REQUIRE(rank_correlation(first, second) == Approx(0.8));
  const std::vector<std::size_t> sizes{0, 1, 2, 3, 9};
  const auto shared = overlap_by_size(first, second, sizes);
  REQUIRE(shared == std::vector<double>{1.0, 1.0, 1.0, 0.5, 0.5});
  REQUIRE(overlap_by_size(first, heads({{2, 1.0}, {0, 0.5}}), std::vector<std::size_t>{1, 2})[0] == 0.0);
}
