#pragma once

#include <cstdint>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/in_layers.hpp"
#include "circuit/model/components.hpp"

// Masks of components and edges, to be joined by `logical_and`, `logical_or` and `logical_not` and given to
// `patch_edges`: knock-outs of nodes are cuts of all that they send, layer ranges are intersections.

namespace circuit {

/// The heads and MLPs of layers in a range; the input is in none.  [senders] bool
/// throws  ValueError  for a range that holds no layer
[[nodiscard]] inline at::Tensor senders_in(const Components& c, LayerRange range) {
  range.check();
  auto mask = make::zeros({c.senders()}, at::kBool);
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    if (!range.contains(Layer{l})) continue;
    const auto first = c.first_head(Layer{l});
    mask.narrow(0, first, c.first_head(Layer{l + 1}) - first).fill_(true);
  }
  return mask;
}

/// The edges that leave some senders: to cut them is to ablate these nodes, to cut all others is to keep them alone.
/// senders  [senders] bool   return  [senders, receivers] bool
/// throws   ShapeError  for another number of senders
[[nodiscard]] inline at::Tensor edges_from(const Components& c, const at::Tensor& senders) {
  check_shape(senders, {c.senders()}, "senders", {}, "one for each component that writes");
  return senders.unsqueeze(1).logical_and(c.edge_mask());
}

/// The edges that arrive in layers of a range; the logits read as layer n_layers. With a range from the first ablated
/// layer on, earlier ones read as they do.  [senders, receivers] bool
/// throws  ValueError  for a range that holds no layer
[[nodiscard]] inline at::Tensor edges_into(const Components& c, LayerRange range) {
  range.check();
  auto mask = make::zeros({c.receivers()}, at::kBool);
  for (std::int32_t l = 0; l <= c.n_layers; ++l) {
    if (!range.contains(Layer{l})) continue;
    const auto first = c.first_query(Layer{l});
    const auto next = l == c.n_layers ? c.receivers() : c.first_query(Layer{l + 1});
    mask.narrow(0, first, next - first).fill_(true);
  }
  return mask.unsqueeze(0).logical_and(c.edge_mask());
}

}  // namespace circuit
