#pragma once

#include <concepts>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/graph/circuit.hpp"

namespace circuit {

/// Says where what stands at a position stands in other prompts, such as `ByRole` (data/by_role.hpp).
template <class F>
concept PositionMap = requires(const F& f, Position p) {
  { f(p) } -> std::same_as<Position>;
};

/// A node at the place of its position in other prompts; one without a position as it is.
template <PositionMap F>
[[nodiscard]] Node moved(Node node, const F& place) {
  if (has_position(node.kind)) node.position = place(node.position);
  return node;
}

template <PositionMap F>
[[nodiscard]] std::vector<Node> moved(std::span<const Node> nodes, const F& place) {
  std::vector<Node> out;
  for (const auto& node : nodes) out.push_back(moved(node, place));
  return out;
}

/// A circuit found on some prompts, as a circuit of others: to be run there, with the numbers that were measured here.
/// The prompt's tokens are left out.
/// throws  ValueError  when two nodes fall together, or an edge would run back to an earlier position; as `place` does
template <PositionMap F>
[[nodiscard]] Circuit moved(const Circuit& circuit, const F& place) {
  auto info = circuit.info();
  info.tokens.clear();
  Circuit out{std::move(info)};
  for (auto bundle : circuit.nodes()) {
    const auto from = bundle.node;
    bundle.node = moved(from, place);
    if (out.contains(bundle.node)) {
      throw ValueError{
          {.tensor = to_string(from), .problem = "falls together with another node", .got = to_string(bundle.node)}};
    }
    out.add_node(bundle);
  }
  for (const auto& ref : circuit.edges()) {
    const auto up = moved(ref.up, place);
    const auto down = moved(ref.down, place);
    if (has_position(up.kind) && has_position(down.kind) && up.position > down.position) {
      throw ValueError{{.tensor = to_string(ref.up) + " -> " + to_string(ref.down),
                        .problem = "would run back to an earlier position",
                        .got = to_string(up) + " -> " + to_string(down)}};
    }
    out.add_edge(up, down, ref.edge);
  }
  for (auto row : circuit.biases()) {
    row.target = moved(row.target, place);
    out.add_bias(row);
  }
  return out;
}

}  // namespace circuit
