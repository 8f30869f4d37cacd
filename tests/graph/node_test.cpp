#include "circuit/graph/node.hpp"

#include <sstream>
#include <string>
#include <unordered_set>
#include <vector>

#include "catch.hpp"

using namespace circuit;

namespace {

const std::vector<Node> one_of_each{Node::embedding(Position{4}),
                                    Node::position_embedding(Position{4}),
                                    Node::attn_feature(Layer{5}, Position{10}, Feature{7515}),
                                    Node::attn_error(Layer{3}, Position{4}),
                                    Node::attn_output(Layer{3}, Position{4}),
                                    Node::mlp_feature(Layer{3}, Position{5}, Feature{42}),
                                    Node::mlp_error(Layer{3}, Position{4}),
                                    Node::mlp_output(Layer{3}, Position{4}),
                                    Node::metric(),
                                    Node::logit(Position{4}, 42),
                                    Node::input(),
                                    Node::head(Layer{9}, Head{6}),
                                    Node::mlp_block(Layer{3}),
                                    Node::resid_feature(Layer{3}, Position{5}, Feature{42}),
                                    Node::resid_error(Layer{3}, Position{4})};

}  // namespace

TEST_CASE("a node prints its parts with dots, leaving out what its kind does not have") {
  std::ostringstream out;
  for (const auto& node : one_of_each) out << node << ' ';
  CHECK(out.str() ==
        "embed.4 pos_embed.4 attn.5.10.7515 attn_error.3.4 attn_out.3.4 mlp.3.5.42 mlp_error.3.4 mlp_out.3.4 metric "
        "logit.4.42 input head.9.6 mlp_block.3 resid.3.5.42 resid_error.3.4 ");
}

TEST_CASE("a printed node parses back to itself") {
  for (const auto& node : one_of_each) CHECK(parse_node(to_string(node)) == node);
}

TEST_CASE("text that no node prints is refused with the text in the message") {
  for (const auto* text : {"", "attn", "attn.1.2", "attn.1.2.3.4", "attn.1.2.x", "attn.-1.2.3", "attn.01.2.3", "embed",
                           "metric.1", "mlp_error.3.4.5", "neuron.1.2.3", "head.1", "head.1.2.3", "input.0",
                           "mlp_block.1.2", "attn.1.2.99999999999", " metric"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_node(text), NameError);
  }
  try {
    static_cast<void>(parse_node("attn.1.2"));
  } catch (const NameError& e) {
    CHECK(e.details().got == "\"attn.1.2\"");
  }
}

TEST_CASE("depth follows the residual stream") {
  const std::vector<Node> in_order{Node::embedding(Position{9}),
                                   Node::attn_feature(Layer{0}, Position{1}, Feature{1}),
                                   Node::mlp_error(Layer{0}, Position{0}),
                                   Node::attn_error(Layer{1}, Position{0}),
                                   Node::mlp_feature(Layer{1}, Position{0}, Feature{0}),
                                   Node::attn_output(Layer{2}, Position{0}),
                                   Node::metric()};
  for (std::size_t i = 1; i < in_order.size(); ++i) CHECK(depth(in_order[i - 1]) < depth(in_order[i]));
  CHECK(depth(Node::embedding(Position{0})) == depth(Node::position_embedding(Position{5})));
  const std::vector<Node> components{Node::input(), Node::head(Layer{0}, Head{3}), Node::mlp_block(Layer{0}),
                                     Node::head(Layer{1}, Head{0}), Node::metric()};
  for (std::size_t i = 1; i < components.size(); ++i) CHECK(depth(components[i - 1]) < depth(components[i]));
}

TEST_CASE("nodes that differ in one part are different keys of a hash set") {
  std::unordered_set<Node> seen;
  for (int layer = 0; layer < 4; ++layer) {
    for (int position = 0; position < 4; ++position) {
      for (int feature = 0; feature < 4; ++feature) {
        seen.insert(Node::attn_feature(Layer{layer}, Position{position}, Feature{feature}));
        seen.insert(Node::mlp_feature(Layer{layer}, Position{position}, Feature{feature}));
      }
    }
  }
  CHECK(seen.size() == 128);
  CHECK(seen.contains(Node::mlp_feature(Layer{3}, Position{2}, Feature{1})));
  CHECK_FALSE(seen.contains(Node::mlp_feature(Layer{4}, Position{2}, Feature{1})));
}
