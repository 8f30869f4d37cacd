#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/linear/linearization.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/model/gradient.hpp"

namespace circuit {

/// Gradients of each prompt's metric on what every module writes, averaged on the straight line from the module's clean
/// output to its corrupt one, a module at a time and everything before it clean. A dictionary's features and error
/// moved together, as sparse feature circuits have it, are this line, since decoding is linear: gradients on features
/// and errors are these along what they write.
/// corrupt  undefined: the line ends at 0, that of embeddings where token and position are both 0
/// steps    how many points: at (k + offset) / steps of the way, k from 0
/// streams  layers before which (n_layers: behind the last) the residual stream is moved too
/// throws   ShapeError for prompts that do not line up, ValueError for no steps
/// source   Marks et al. 2024 (offset 0)
template <Architecture A, Metric M>
[[nodiscard]] OutputGradients integrated_gradients(const HookedTransformer<A>& model, const at::Tensor& clean,
                                                   const at::Tensor& corrupt, const M& metric, std::int64_t steps = 10,
                                                   double offset = 0.0, const std::vector<Layer>& streams = {}) {
  check_count(steps, "steps");
  if (corrupt.defined()) check_shape(corrupt, shape_of(clean), "corrupt tokens");
  const auto points = [] {
    return record<hook::embed, hook::attn_out, hook::mlp_out, hook::resid_pre, hook::resid_post>();
  };
  const auto at_clean = model.run(clean, points()).cache;
  const auto at_corrupt = corrupt.defined() ? model.run(corrupt, points()).cache : decltype(at_clean){};

  const auto mean_gradient = [&]<HookPoint P>(P, Layer layer) {
    const auto& from = at_clean.template get<P>(layer);
    const auto change = corrupt.defined() ? at_corrupt.template get<P>(layer).sub(from) : from.neg();
    auto sum = make::zeros_like(from);
    for (std::int64_t k = 0; k < steps; ++k) {
      const c10::AutoGradMode with_gradient{true};
      const auto share = (static_cast<double>(k) + offset) / static_cast<double>(steps);
      const auto output = from.add(change.mul(share)).detach().requires_grad_(true);
      const auto moved =
          edit<P>([&](const at::Tensor&, Layer) { return output; }, P::per_layer ? Where{.layers = {layer}} : Where{});
      const auto value = metric.per_prompt(model.uncapped_logits(clean, moved)).sum();
      sum = sum.add(gradient_of(value, {output}).front(), 1.0 / static_cast<double>(steps));
    }
    return sum.detach();
  };
  OutputGradients out;
  // Corrupt prompts have the same positions; towards 0 these go with the tokens.
  out.embed = corrupt.defined() || !A::Positions::adds_embedding ? mean_gradient(hook::embed{}, Layer{0})
                                                                 : mean_gradient(hook::resid_pre{}, Layer{0});
  const auto layers = static_cast<std::int32_t>(model.config().n_layers);
  for (std::int32_t l = 0; l < layers; ++l) {
    out.attn_out.push_back(mean_gradient(hook::attn_out{}, Layer{l}));
    if constexpr (has_mlp<A>) out.mlp_out.push_back(mean_gradient(hook::mlp_out{}, Layer{l}));
  }
  out.last = mean_gradient(hook::resid_post{}, Layer{layers - 1});
  out.stream.resize(static_cast<std::size_t>(layers) + 1);
  for (const Layer layer : streams) {
    out.stream[static_cast<std::size_t>(layer.value)] =
        layer.value == layers ? out.last : mean_gradient(hook::resid_pre{}, layer);
  }
  return out;
}

}  // namespace circuit
