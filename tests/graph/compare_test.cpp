#include "circuit/graph/compare.hpp"

#include <sstream>

#include "catch.hpp"
#include "circuit/graph/view.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

TEST_CASE("a circuit equals itself in every overlap") {
  const auto same = compare(in::circuit(), in::circuit());
  CHECK(same.nodes.jaccard() == 1);
  CHECK(same.edges == Overlap{10, 0, 0});
  CHECK(same.common_nodes.size() == 8);
}

TEST_CASE("overlaps count what is shared and what only one side has, by type") {
  const auto whole = in::circuit();
  auto other = without_errors(above(whole, 0.6));  // loses the ov edge of 0.5, k, two metric edges
  other.add_node({.node = in::first, .activation = 1});
  other.add_edge(in::first, in::mover, {.type = EdgeType::ov});
  const auto c = compare(whole, other);
  CHECK(c[EdgeType::ov] == Overlap{2, 1, 1});
  CHECK(c[EdgeType::ov].jaccard() == 0.5);
  CHECK(c[EdgeType::q] == Overlap{2, 0, 0});
  CHECK(c[EdgeType::k] == Overlap{0, 1, 0});
  CHECK(c[EdgeType::metric] == Overlap{1, 2, 0});
  CHECK(c.edges == Overlap{6, 4, 1});
  CHECK(c.nodes == Overlap{7, 1, 0});
  std::ostringstream out;
  out << c;
  CHECK(out.str() == "Jaccard: nodes 0.875, edges 0.545455 (ov 0.5, q 1, k 0, mlp 1, metric 0.333333)");
}

TEST_CASE("two empty circuits are the same") { CHECK(compare(Circuit{}, Circuit{}).edges.jaccard() == 1); }

TEST_CASE("common features are found at whatever position they sit") {
  Circuit a;
  Circuit b;
  for (const int p : {7, 2}) a.add_node({.node = Node::attn_feature(Layer{1}, Position{p}, Feature{5})});
  b.add_node({.node = Node::attn_feature(Layer{1}, Position{4}, Feature{5})});
  a.add_node({.node = Node::mlp_feature(Layer{1}, Position{4}, Feature{6})});
  b.add_node({.node = Node::mlp_feature(Layer{2}, Position{4}, Feature{6})});
  for (auto* c : {&a, &b}) c->add_node({.node = Node::attn_error(Layer{1}, Position{4})});
  const auto common = common_features(a, b);
  REQUIRE(common.size() == 1);
  CHECK(common[0].site == FeatureSite{NodeKind::attn_feature, Layer{1}, Feature{5}});
  CHECK(common[0].in_first == std::vector{Position{2}, Position{7}});
  CHECK(common[0].in_second == std::vector{Position{4}});
}
