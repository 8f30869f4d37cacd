#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/search/component_circuit.hpp"

namespace circuit {

/// Which n edges of a scored graph make up a circuit of that size.
template <class S>
concept EdgeSelection = requires(const S& selection, const Components& c, const at::Tensor& scores, std::int64_t n) {
  { selection.choose(c, scores, n) } -> std::same_as<at::Tensor>;
};

namespace selection {

/// The n of largest magnitude, wherever they are.
struct Largest {
  /// scores [senders, receivers] float64   return the same shape, bool
  [[nodiscard]] at::Tensor choose(const Components& /*c*/, const at::Tensor& scores, std::int64_t n) const {
    return top_edges(scores, n);
  }
};

/// From the logits up: n times the largest edge into a component that is already read. Every chosen edge leads to the
/// logits, so scores need only rank the edges of one reader, as information flow routes do. source  Hanna et al. 2024
struct Greedy {
  [[nodiscard]] at::Tensor choose(const Components& c, const at::Tensor& scores, std::int64_t n) const;
};

}  // namespace selection
}  // namespace circuit

inline at::Tensor circuit::selection::Greedy::choose(const Components& c, const at::Tensor& scores,
                                                     std::int64_t n) const {
  check_edges(scores, c, "scores");
  const auto magnitude = scores.abs().to(at::kDouble).contiguous();
  auto chosen = make::zeros(scores.sizes(), at::kBool);
  std::vector<std::pair<double, std::int64_t>> reachable;  // a heap: magnitude and flat index
  const auto open = [&](std::int64_t receiver) {
    for (std::int64_t s = 0; s < c.before(receiver); ++s) {
      const auto flat = s * c.receivers() + receiver;
      reachable.emplace_back(data_of<double>(magnitude)[flat], flat);
      std::ranges::push_heap(reachable);
    }
  };
  std::vector<bool> read(static_cast<std::size_t>(c.senders()));
  read[0] = true;  // the input reads nothing
  open(c.logits());
  for (; n > 0 && !reachable.empty(); --n) {
    std::ranges::pop_heap(reachable);
    const auto [size, flat] = reachable.back();
    reachable.pop_back();
    chosen.data_ptr<bool>()[flat] = true;
    const auto sender = flat / c.receivers();
    if (read[static_cast<std::size_t>(sender)]) continue;
    read[static_cast<std::size_t>(sender)] = true;
    const auto node = sender_node(c, sender);
    if (node.kind == NodeKind::mlp_block) {
      open(c.mlp_in(node.layer));
    } else {
      for (const auto type : {EdgeType::q, EdgeType::k, EdgeType::ov}) open(receiver_index(c, node, type));
    }
  }
  return chosen;
}
