#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/linear/dictionaries.hpp"
#include "circuit/linear/direct_effects.hpp"
#include "circuit/linear/modules.hpp"
#include "circuit/linear/pull_back.hpp"

namespace circuit::detail {

/// Gradients at one position each as gradients at every position.
/// grad [n, d_model]  positions [n] int64  return [n, length, d_model]
[[nodiscard]] inline at::Tensor at_positions(const at::Tensor& grad, const at::Tensor& positions, std::int64_t length) {
  const auto place = positions.view({-1, 1, 1}).expand({grad.size(0), 1, grad.size(1)});
  return make::zeros({grad.size(0), length, grad.size(1)}, grad.options()).scatter(1, place, grad.unsqueeze(1));
}

/// Whether a gradient meets transparent attention on its way down through what a target reads, and so spreads over
/// positions.
template <Dictionaries Set>
[[nodiscard]] bool transparent_below(const Set& set, const Upstream& range) {
  for (std::int32_t l = 0; attn_depth(Layer{l}) < range.to; ++l) {
    if (attn_depth(Layer{l}) > range.from && has_transparent_attention(set, Layer{l})) return true;
  }
  return false;
}

/// Adds to gradients what passes on through the modules of one layer that read at a depth: in a parallel block both do.
/// positions  [targets] int64  where each target of the step stands
/// return     whether there are any
template <Architecture A, SoftmaxJacobian Softmax, Dictionaries Set>
[[nodiscard]] bool pass_layer(const PullBack<A, Softmax>& pull_back, const Set& set,
                              std::vector<PromptGradients>& gradients, Layer layer, std::int64_t from,
                              const at::Tensor& positions) {
  const bool attention = from == attn_depth(layer) && has_transparent_attention(set, layer);
  const bool skip = has_mlp<A> && from == mlp_depth<A>(layer) && has_skip(set, layer);
  if (!attention && !skip) return false;
  for (auto& g : gradients) {
    const auto above = g.grad;
    if (attention) g.grad = g.grad.add(pull_back.attention(layer, g.prompt, above));
    if constexpr (has_mlp<A>) {
      if (!skip) continue;
      const auto own = positions.index_select(0, ids_tensor(g.target)).to(above.device());
      g.grad = g.grad.add(pull_back.skip(mlp_site(set, layer), layer, g.prompt, set.mlp(layer)->W_skip, above, own));
    }
  }
  return true;
}

/// The gradients of some targets at every depth that they read: what passes on through transparent attention and skip
/// paths is added.
template <Architecture A, SoftmaxJacobian Softmax, Dictionaries Set>
[[nodiscard]] std::vector<CarriedGradients> carry(const PullBack<A, Softmax>& pull_back, const Set& set,
                                                  std::vector<PromptGradients> gradients, const Upstream& range,
                                                  const at::Tensor& positions) {
  std::vector<CarriedGradients> carried;
  const auto pass = [&](Layer layer, std::int64_t from) {
    if (from >= range.to || from < range.from) return;
    auto below = gradients;
    if (pass_layer(pull_back, set, below, layer, from, positions)) {
      carried.push_back({from, std::exchange(gradients, std::move(below))});
    }
  };
  for (auto l = static_cast<std::int32_t>(range.to / 3); l >= 0; --l) {
    const Layer layer{l};
    if (attn_depth(layer) >= range.to) continue;
    if constexpr (!A::Wiring::parallel) pass(layer, mlp_depth<A>(layer));
    pass(layer, attn_depth(layer));
  }
  carried.push_back({range.from, std::move(gradients)});
  return carried;
}

}  // namespace circuit::detail
