#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/replace.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// How the optimal constant is looked for: Adam from the mean activation, with steps that shrink to none.
struct DescentOptions {
  std::int64_t steps = 200;
  double rate = 0.03;  ///< size of the first steps, in standard deviations of the activation
};

/// A constant in an activation's place, and what it costs.
struct OptimalAblation {
  at::Tensor value;            ///< [...] of the activation's axes behind batch and position
  std::vector<double> losses;  ///< the mean loss before each step, and after the last
};

/// The constant that, put in the place of a part of an activation on every prompt, costs least: what the part gives
/// that no constant could. Outside the part the value is the mean and used nowhere. tokens  [batch, pos]   loss  a
/// metric to be made small, such as KlToClean or the loss throws  ValueError for no steps, a rate that is not positive,
/// or a loss without a gradient; and as `replace` source  Li and Janson 2024, arXiv 2409.09951
template <HookPoint P, Architecture A, Metric M>
[[nodiscard]] OptimalAblation optimal_ablation(const HookedTransformer<A>& model, const at::Tensor& tokens,
                                               const M& loss, Part part, const DescentOptions& options = {}) {
  if (options.steps < 1 || !(options.rate > 0)) {
    throw ValueError{{.tensor = "descent", .expected = "at least one step, of a positive rate"}};
  }
  if (P::per_layer && part.layers.size() != 1) {
    throw ValueError{{.tensor = "layers", .expected = "one", .got = std::to_string(part.layers.size())}};
  }
  const auto layer = P::per_layer ? part.layers.front() : Layer{0};
  const auto rows = model.run(tokens, record<P>()).cache.template get<P>(layer).flatten(0, 1);
  auto value = rows.mean(0);
  const auto first_step = rows.std().template item<double>() * options.rate;
  auto slope = make::zeros_like(value);
  auto square = make::zeros_like(value);
  OptimalAblation found;
  const auto cost = [&](const at::Tensor& constant) {
    auto ablated = replace<P>(with::Value{constant}, part);
    return mean(loss, model.forward(tokens, ablated));
  };
  constexpr double slow = 0.9;
  constexpr double slower = 0.999;
  double slow_left = 1;
  double slower_left = 1;
  for (std::int64_t step = 0; step < options.steps; ++step) {
    const c10::AutoGradMode with_gradient{true};
    const auto leaf = value.detach().requires_grad_(true);
    const auto now = cost(leaf);
    found.losses.push_back(now.template item<double>());
    const auto gradient = gradient_of(now, {leaf})[0];
    slope = slope.mul(slow).add(gradient, 1 - slow);
    square = square.mul(slower).addcmul(gradient, gradient, 1 - slower);
    slow_left *= slow;
    slower_left *= slower;
    const auto size = square.div(1 - slower_left).sqrt().add(1e-8);
    value =
        value.detach().sub(slope.div(1 - slow_left).div(size),
                           first_step * static_cast<double>(options.steps - step) / static_cast<double>(options.steps));
  }
  const c10::AutoGradMode no_gradient{false};
  found.losses.push_back(cost(value).template item<double>());
  found.value = value;
  return found;
}

}  // namespace circuit
