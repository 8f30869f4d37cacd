#include "circuit/graph/moved.hpp"

#include <map>

#include "catch.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

/// What a map says of each position; throws for others.
struct Places {
  std::map<std::int32_t, std::int32_t> of;

  Position operator()(Position p) const { return Position{of.at(p.value)}; }
};

const Places later{{{0, 0}, {1, 3}, {2, 4}, {3, 7}}};
const Places earlier{{{0, 0}, {3, 1}, {4, 2}, {7, 3}}};

}  // namespace

TEST_CASE("nodes move to their positions elsewhere, and those without a position stay") {
  const std::vector<Node> nodes{in::embed1, in::mover, in::metric, Node::head(Layer{1}, Head{2})};
  CHECK(moved(nodes, later) == std::vector<Node>{Node::embedding(Position{3}),
                                                 Node::attn_feature(Layer{1}, Position{7}, Feature{5}), in::metric,
                                                 Node::head(Layer{1}, Head{2})});
  CHECK_THROWS_AS(moved(Node::embedding(Position{5}), later), std::out_of_range);
}

TEST_CASE("a circuit moves whole, with the numbers it has, and back again") {
  const auto whole = in::circuit();
  const auto there = moved(whole, later);
  CHECK(there.node_count() == whole.node_count());
  CHECK(there.edge_count() == whole.edge_count());
  CHECK(there.info().tokens.empty());
  CHECK(there.info().settings == whole.info().settings);
  const auto mover = moved(in::mover, later);
  const auto dup = moved(in::dup, later);
  CHECK(*there.find_edge(dup, mover, EdgeType::q) == *whole.find_edge(in::dup, in::mover, EdgeType::q));
  CHECK(there.bundle(mover).attribution == whole.bundle(in::mover).attribution);
  CHECK(there.biases().front().target == mover);

  const auto again = moved(there, earlier);
  for (const auto& bundle : whole.nodes()) CHECK(again.bundle(bundle.node) == bundle);
  for (const auto& ref : whole.edges()) {
    REQUIRE(again.find_edge(ref.up, ref.down, ref.edge.type) != nullptr);
    CHECK(*again.find_edge(ref.up, ref.down, ref.edge.type) == ref.edge);
  }
  CHECK(std::vector<BiasRow>(again.biases().begin(), again.biases().end()) ==
        std::vector<BiasRow>(whole.biases().begin(), whole.biases().end()));
}

TEST_CASE("a circuit that makes no sense elsewhere is refused") {
  const Places together{{{0, 1}, {1, 1}, {2, 2}, {3, 3}}};
  CHECK_THROWS_AS(moved(in::circuit(), together), ValueError);
  const Places swapped{{{0, 0}, {1, 2}, {2, 1}, {3, 3}}};  // embed1 is read at position 2
  CHECK_THROWS_AS(moved(in::circuit(), swapped), ValueError);
}
