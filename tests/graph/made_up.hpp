#pragma once

#include "circuit/graph/circuit.hpp"

/// A hand-made circuit with known paths, shared by the tests of this room.
namespace made_up {

using namespace circuit;

inline const Node embed1 = Node::embedding(Position{1});
inline const Node embed0 = Node::embedding(Position{0});
inline const Node dup = Node::attn_feature(Layer{0}, Position{2}, Feature{3});
inline const Node first = Node::attn_feature(Layer{0}, Position{0}, Feature{9});
inline const Node error = Node::mlp_error(Layer{0}, Position{2});
inline const Node neuron = Node::mlp_feature(Layer{0}, Position{2}, Feature{8});
inline const Node mover = Node::attn_feature(Layer{1}, Position{3}, Feature{5});
inline const Node metric = Node::metric();

/// embed1 -ov 4-> dup -mlp 1-> neuron -q 3-> mover -metric 5-> metric   (the number is |em|)
///                dup -q 2-> mover, dup -ov 0.5-> mover, embed0 -ov 6-> first -k 0.25-> mover,
///                error -metric 0.75-> metric, embed1 -metric 0.125-> metric
inline Circuit circuit() {
  Circuit c{{.settings = {{"chain", "model gradient"}}, .tokens = {"<s>", " a", " \"b", " c"}, .prompts = 2}};
  for (const auto& node : {embed0, embed1, dup, first, error, neuron, mover, metric}) {
    c.add_node({.node = node, .activation = 1, .contrast_activation = 0.5, .attribution = 2, .nodegrad = 4});
  }
  const auto add = [&c](const Node& up, const Node& down, EdgeType type, double em) {
    c.add_edge(up, down,
               {.type = type, .nn_grad = 0.1, .nn_attrib = -em / 3, .em_grad = 0.7, .em_attrib = em, .prompts = 2});
  };
  add(embed1, dup, EdgeType::ov, 4);
  add(dup, neuron, EdgeType::mlp, -1);
  add(neuron, mover, EdgeType::q, 3);
  add(dup, mover, EdgeType::q, 2);
  add(dup, mover, EdgeType::ov, 0.5);
  add(embed0, first, EdgeType::ov, 6);
  add(first, mover, EdgeType::k, -0.25);
  add(mover, metric, EdgeType::metric, 5);
  add(error, metric, EdgeType::metric, 0.75);
  add(embed1, metric, EdgeType::metric, 0.125);
  c.add_bias({.target = mover, .type = EdgeType::ov, .nn_attrib = 0.1, .em_attrib = 0.3});
  c.add_bias({.target = metric, .type = EdgeType::metric, .nn_attrib = -0.1, .em_attrib = -0.1});
  return c;
}

}  // namespace made_up
