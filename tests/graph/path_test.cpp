#include "circuit/graph/path.hpp"

#include <sstream>

#include "catch.hpp"
#include "circuit/graph/view.hpp"
#include "made_up.hpp"

using namespace circuit;
namespace in = made_up;

namespace {

const PathPattern name_mover{NodeKind::embedding,
                             {{{}, NodeKind::attn_feature},
                              {{EdgeType::q, EdgeType::k}, NodeKind::attn_feature},
                              {{EdgeType::metric}, NodeKind::metric}}};

std::string text(const Path& path) {
  std::ostringstream out;
  out << path;
  return out.str();
}

}  // namespace

TEST_CASE("the longest path has the most edges, not the strongest") {
  const auto path = longest_path(in::circuit());
  CHECK(text(path) == "embed.1 -ov-> attn.0.2.3 -mlp-> mlp.0.2.8 -q-> attn.1.3.5 -metric-> metric");
  CHECK(path.length() == 4);
}

TEST_CASE("the longest path does not depend on the order in which nodes and edges were added") {
  const auto forward = in::circuit();
  Circuit backward;
  std::vector<NodeBundle> nodes(forward.nodes().begin(), forward.nodes().end());
  for (auto it = nodes.rbegin(); it != nodes.rend(); ++it) backward.add_node(*it);
  std::vector<EdgeRef> edges;
  for (const auto& ref : forward.edges()) edges.push_back(ref);
  for (auto it = edges.rbegin(); it != edges.rend(); ++it) backward.add_edge(it->up, it->down, it->edge);
  CHECK(longest_path(backward) == longest_path(forward));
}

TEST_CASE("without edges there is no longest path") {
  CHECK(longest_path(Circuit{}).empty());
  Circuit lonely;
  lonely.add_node({.node = in::metric});
  CHECK(longest_path(lonely).length() == 0);
}

TEST_CASE("the strongest path by its weakest link, and by the product, may differ") {
  const auto whole = in::circuit();
  // By weakest link: over neuron min(1, 3) = 1, direct q edge 2. By product: 1 * 3 = 3 beats 2.
  const auto weakest = strongest_path(whole, in::dup, in::mover);
  REQUIRE(weakest);
  CHECK(text(*weakest) == "attn.0.2.3 -q-> attn.1.3.5");
  const auto product = strongest_path(whole, in::dup, in::mover, PathStrength::product);
  REQUIRE(product);
  CHECK(text(*product) == "attn.0.2.3 -mlp-> mlp.0.2.8 -q-> attn.1.3.5");
}

TEST_CASE("there is no path against the edges or from a node to itself") {
  const auto whole = in::circuit();
  CHECK_FALSE(strongest_path(whole, in::mover, in::dup));
  CHECK_FALSE(strongest_path(whole, in::dup, in::dup));
  CHECK_FALSE(strongest_path(whole, in::embed0, in::neuron));
  CHECK_THROWS_AS(strongest_path(whole, in::dup, Node::attn_error(Layer{9}, Position{0})), NameError);
}

TEST_CASE("a pattern finds its strongest path, edge types and kinds of node in order") {
  const auto path = strongest_path(in::circuit(), name_mover);
  REQUIRE(path);
  CHECK(text(*path) == "embed.1 -ov-> attn.0.2.3 -q-> attn.1.3.5 -metric-> metric");
}

TEST_CASE("a pattern is not found once one of its steps is gone") {
  const auto whole = in::circuit();
  CHECK(has_path(whole, name_mover));
  CHECK(has_path(with_edges(whole, [](const EdgeRef& ref) { return ref.edge.type != EdgeType::q; }), name_mover));
  const auto without = with_edges(
      whole, [](const EdgeRef& ref) { return ref.edge.type != EdgeType::q && ref.edge.type != EdgeType::k; });
  CHECK_FALSE(has_path(without, name_mover));
  CHECK_FALSE(has_path(of_type(whole, EdgeType::q), name_mover));
  CHECK_FALSE(has_path(Circuit{}, name_mover));
  CHECK_FALSE(has_path(whole, {NodeKind::embedding, {}}));
}
