#pragma once

#include <cstdint>

#include "circuit/search/path/gradient_path.hpp"
#include "circuit/search/receiver_gradients.hpp"

namespace circuit::path {

/// Along a straight line between the activations, one module at a time (the input, each layer's attention with all its
/// heads, each MLP), everything before it clean: at (k + offset) / steps from corrupt (0) to clean (1), k from 0. A
/// mean over all modules and steps, as EAP-IG's tool has it.
struct Activations {
  std::int64_t steps = 5;
  double offset = 1.0;

  template <class Add>
  void walk(const PathEnds& ends, Add&& add) const;
};

}  // namespace circuit::path

namespace circuit::detail {

/// An attachment that moves what one module adds to the stream by a constant; gradients stop there.
template <HookPoint Point>
struct Moved {
  Layer layer;
  at::Tensor by;

  void visit(Point /*point*/, Layer here, at::Tensor& value) const {
    if (here == layer) value = value.detach().add(by);
  }
};

}  // namespace circuit::detail

template <class Add>
void circuit::path::Activations::walk(const PathEnds& ends, Add&& add) const {
  check_count(steps, "steps");
  const auto& c = ends.components;
  const auto& tokens = ends.prompts.clean;
  const auto weight = 1.0 / static_cast<double>(steps * (1 + c.n_layers * (c.mlps ? 2 : 1)));
  const auto change = ends.clean.sub(ends.corrupt);
  for (std::int64_t k = 0; k < steps; ++k) {
    const auto back = (static_cast<double>(k) + offset) / static_cast<double>(steps) - 1.0;  // from the clean run
    add(weight, tokens, StartFrom{ends.clean[0].add(change[0].mul(back))});
    for (std::int32_t l = 0; l < c.n_layers; ++l) {
      const Layer layer{l};
      const auto heads = change.narrow(0, c.first_head(layer), c.n_heads).sum(0);
      add(weight, tokens, detail::Moved<hook::attn_out>{layer, heads.mul(back)});
      if (c.mlps) add(weight, tokens, detail::Moved<hook::mlp_out>{layer, change[c.mlp(layer)].mul(back)});
    }
  }
}
