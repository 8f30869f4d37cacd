#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/threshold_backward_ops.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation/any.hpp"

namespace circuit::train {

/// What an activation adds to a step: its part of the loss and of the gradients, all of the mean over the batch.
struct Pull {
  at::Tensor grad_pre;              ///< [n, d_sae]  d loss / d pre-activations
  double price = 0.0;               ///< what is paid for features being active
  at::Tensor grad_lengths{};        ///< [d_sae]  d price / d length of the decoder's rows; undefined: none
  std::vector<at::Tensor> grads{};  ///< of the activation's own parameters
};

/// A batch on its way back. pre, acts, grad_acts [n, d_sae], the last for the policy to use up; lengths [d_sae], of the
/// decoder's rows; price_scale rises from 0 to 1 over the first steps.
struct Backward {
  const at::Tensor& pre;
  const at::Tensor& acts;
  at::Tensor grad_acts;
  const at::Tensor& lengths;
  double active = 0.0;  ///< mean number of active features per token
  double price_scale = 1.0;
};

/// How a dictionary in training becomes sparse: its nonlinearity, the gradient through it, and what being active costs.
/// Policies lie in dictionary/train/activation/.
///   start        once, with the number of features and a tensor of the dtype and device to use
///   activate     pre [n, d_sae] to activations; may learn from the batch
///   finish       the nonlinearity of the trained dictionary, for the features `kept` [n], whose pre-activations were
///                multiplied by `scale` [n]
///   visit_state  calls use(name, tensor or number) for all that later steps depend on, parameters apart
template <class A>
concept TrainableActivation =
    std::copyable<A> && requires(A a, const A& c, const at::Tensor& t, const Backward& batch, std::int64_t d_sae) {
      { A::rescales } -> std::convertible_to<bool>;  ///< whether features may be scaled apart from each other
      { A::initial_bias } -> std::convertible_to<double>;
      a.start(d_sae, t);
      { a.activate(t) } -> std::same_as<at::Tensor>;
      { a.pull_back(batch) } -> std::same_as<Pull>;
      { c.params() } -> std::same_as<std::vector<at::Tensor>>;
      { c.finish(t, t) } -> std::same_as<activation::Any>;
      a.visit_state([](const std::string&, auto&) {});
    };

/// What an active feature costs: a number, or one that moves until a token has `wished` active features.
struct Price {
  double price = 0.02;
  double wished = 0.0;  ///< mean number of active features per token; 0: the price stays
  double lowest = 1e-5;
  double highest = 100.0;

  void follow(double active) {
    if (wished <= 0.0) return;
    price = std::clamp(price * (1.0 + 0.02 * std::clamp(active / wished - 1.0, -1.0, 1.0)), lowest, highest);
  }
};

}  // namespace circuit::train

namespace circuit::train::detail {

/// Sets `grad` to 0 where `value` is not over 0, in place, and returns it.
[[nodiscard]] inline at::Tensor where_positive(at::Tensor grad, const at::Tensor& value) {
  at::_ops::threshold_backward_grad_input::call(grad, value, 0.0, grad);
  return grad;
}

/// throws  ConfigError  unless 1 <= k <= d_sae
inline void check_k(std::int64_t k, std::int64_t d_sae) {
  if (k >= 1 && k <= d_sae) return;
  throw ConfigError{{.tensor = "k",
                     .problem = "a token cannot keep so many features",
                     .expected = "1 to " + std::to_string(d_sae),
                     .got = std::to_string(k)}};
}

/// throws  ConfigError  unless a number is over 0 (or 0, where that is allowed) and finite
inline void check_number(double value, const char* name, bool zero_allowed = true) {
  if (value > 0.0 ? value < 1e30 : zero_allowed && value == 0.0) return;
  throw ConfigError{{.tensor = name,
                     .expected = zero_allowed ? "a number of at least 0" : "a number over 0",
                     .got = std::to_string(value)}};
}

}  // namespace circuit::train::detail
