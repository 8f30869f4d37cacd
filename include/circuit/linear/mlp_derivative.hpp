#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// Functionals of a layer's hook_mlp_out as ones of its ln2.hook_normalized: the MLP's own derivative at what it read,
/// the scale of a norm behind it held.
/// read     [n, d_model]  ln2.hook_normalized
/// readers  [n, d_model]  one at each row of `read`
/// return   [n, d_model]
template <Architecture A>
[[nodiscard]] at::Tensor through_mlp(const HookedTransformer<A>& model, Layer layer, const at::Tensor& read,
                                     const at::Tensor& readers)
  requires(has_mlp<A>)
{
  const c10::AutoGradMode with_gradient{true};
  const auto& w = model.weights().blocks[static_cast<std::size_t>(layer.value)];
  std::vector<at::Tensor> parts;
  constexpr std::int64_t block = std::int64_t{1} << 12;  // each row needs a few vectors of the MLP's width
  for (std::int64_t first = 0; first < read.size(0); first += block) {
    const auto count = std::min(block, read.size(0) - first);
    const auto input = read.narrow(0, first, count).detach().requires_grad_(true);
    auto out = A::Mlp::forward(A::Norm::output(input, w.ln2), w.mlp, [](auto, at::Tensor&) {});
    if constexpr (A::Wiring::post_norms) {
      const auto scale = A::Norm::scale(out, model.config().norm_eps).detach();
      out = A::Norm::unscaled(out, w.ln2_post).div(scale);
    }
    parts.push_back(gradient_of(out.mul(readers.narrow(0, first, count)).sum(), {input}).front());
  }
  return parts.empty() ? readers : make::cat(parts, 0);
}

}  // namespace circuit
