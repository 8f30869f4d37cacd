#include "circuit/evaluate/clusters.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "catch.hpp"

using namespace circuit;

namespace {

const Position s2{5};
const Position last{8};
const Node early = Node::attn_feature(Layer{1}, s2, Feature{4});
const Node opposing = Node::attn_feature(Layer{1}, s2, Feature{9});
const Node corrupt_only = Node::attn_feature(Layer{2}, s2, Feature{10});
const Node mlp_at_s2 = Node::mlp_feature(Layer{1}, s2, Feature{1});
const Node steering = Node::attn_feature(Layer{2}, last, Feature{7});
const Node weak_steering = Node::attn_feature(Layer{1}, last, Feature{3});
const Node by_value = Node::attn_feature(Layer{0}, last, Feature{2});
const Node mover = Node::attn_feature(Layer{3}, last, Feature{6});
const Node other_mover = Node::attn_feature(Layer{2}, last, Feature{6});

/// S2 features feed two that steer; the steering ones are read by q and k of two movers.
Circuit made_up() {
  Circuit c;
  const auto node = [&](const Node& n, double attribution, double activation = 1) {
    c.add_node(
        {.node = n, .activation = activation, .contrast_activation = 0, .attribution = attribution, .nodegrad = 1});
  };
  node(Node::metric(), 5);
  node(early, 0.5);
  node(opposing, -2);
  node(corrupt_only, 7, 0);
  node(mlp_at_s2, 9);
  node(steering, 0.1);
  node(weak_steering, 3);
  node(by_value, 1);
  node(mover, 2);
  node(other_mover, 1);
  const auto edge = [&](const Node& up, const Node& down, EdgeType type, double em) {
    c.add_edge(up, down, {.type = type, .nn_grad = 1, .nn_attrib = 1, .em_grad = 1, .em_attrib = em, .prompts = 1});
  };
  edge(opposing, steering, EdgeType::q, 1);
  edge(steering, mover, EdgeType::q, -0.6);
  edge(weak_steering, mover, EdgeType::q, 0.2);
  edge(weak_steering, mover, EdgeType::k, 0.1);
  edge(weak_steering, other_mover, EdgeType::q, 0.2);
  edge(other_mover, mover, EdgeType::q, 4);
  edge(by_value, mover, EdgeType::ov, 8);
  edge(mover, Node::metric(), EdgeType::metric, 1.5);
  edge(other_mover, Node::metric(), EdgeType::metric, -0.9);
  edge(by_value, Node::metric(), EdgeType::metric, 0.3);
  edge(corrupt_only, Node::metric(), EdgeType::metric, 9);
  return c;
}

using Nodes = std::vector<Node>;

}  // namespace

TEST_CASE("features at a position come by attribution, and only attention's that clean prompts have") {
  REQUIRE(attention_features_at(made_up(), s2) == Nodes{early, opposing});
  REQUIRE(attention_features_at(made_up(), s2, 1) == Nodes{early});
  REQUIRE(attention_features_at(made_up(), Position{0}).empty());
}

TEST_CASE("features that write into the metric come by size of that edge, whatever its sign") {
  REQUIRE(largest_into_metric(made_up(), last) == Nodes{mover, other_mover, by_value});
  REQUIRE(largest_into_metric(made_up(), last, 2) == Nodes{mover, other_mover});
}

TEST_CASE("of a feature that writes into several outputs all its edges count") {
  auto c = made_up();
  const Node logit{.kind = NodeKind::logit, .position = last, .feature = Feature{3}};
  c.add_node({.node = logit, .activation = 1, .nodegrad = 1});
  c.add_edge(other_mover, logit, {.type = EdgeType::metric, .em_attrib = 0.8});
  REQUIRE(largest_into_metric(c, last, 2) == Nodes{other_mover, mover});
}

TEST_CASE("readers' upstream features are summed over targets and edge types") {
  const std::array targets{mover, other_mover};
  const std::array by_query_or_key{EdgeType::q, EdgeType::k};
  REQUIRE(attention_features_read_by(made_up(), targets, by_query_or_key, last) ==
          Nodes{other_mover, steering, weak_steering});
  const std::array by_key{EdgeType::k};
  REQUIRE(attention_features_read_by(made_up(), targets, by_key, last) == Nodes{weak_steering});
  const std::array by_output{EdgeType::ov};
  REQUIRE(attention_features_read_by(made_up(), targets, by_output, last) == Nodes{by_value});
}

TEST_CASE("a control takes for each member one other feature of its layer, of similar length") {
  const auto feature = [](std::int32_t layer, std::int32_t f) {
    return Node::attn_feature(Layer{layer}, s2, Feature{f});
  };
  const std::vector<WrittenFeature> cluster{{feature(1, 0), 1.0}, {feature(2, 0), 4.0}};
  const std::vector<WrittenFeature> others{{feature(1, 0), 1.0},  {feature(1, 1), 0.9},  {feature(1, 2), 1.2},
                                           {feature(1, 3), 50.0}, {feature(1, 4), 0.01}, {feature(2, 1), 3.0},
                                           {feature(2, 2), 0.0},  {feature(3, 1), 1.0}};
  data::Random random{3};
  std::set<Node> in_first;
  for (int i = 0; i < 40; ++i) {
    const auto drawn = draw_control(cluster, others, random, 2);
    REQUIRE(drawn.size() == 2);
    in_first.insert(drawn[0]);
    REQUIRE(drawn[1] == feature(2, 1));  // the other of that layer writes nothing
  }
  REQUIRE(in_first == std::set<Node>{feature(1, 1), feature(1, 2)});
}

TEST_CASE("a control never takes a feature twice, and is shorter where a layer has no more") {
  const auto feature = [](std::int32_t f) { return Node::attn_feature(Layer{1}, s2, Feature{f}); };
  const std::vector<WrittenFeature> cluster{{feature(0), 1.0}, {feature(1), 1.0}, {feature(2), 1.0}};
  const std::vector<WrittenFeature> others{{feature(5), 1.0}, {feature(6), 2.0}};
  data::Random random{4};
  auto drawn = draw_control(cluster, others, random);
  std::ranges::sort(drawn);
  REQUIRE(drawn == Nodes{feature(5), feature(6)});
  REQUIRE(draw_control(cluster, cluster, random).empty());
}

TEST_CASE("the same seed draws the same control") {
  std::vector<WrittenFeature> cluster;
  std::vector<WrittenFeature> others;
  for (std::int32_t f = 0; f < 30; ++f) {
    (f < 5 ? cluster : others).push_back({Node::attn_feature(Layer{f % 2}, s2, Feature{f}), 1.0 + f});
  }
  const auto draw = [&](std::uint64_t seed) {
    data::Random random{seed};
    return draw_control(cluster, others, random, 6);
  };
  REQUIRE(draw(1) == draw(1));
  REQUIRE(draw(1) != draw(2));
}
