#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// A number per prompt, read off the logits.
template <class M>
concept Metric = requires(const M& metric, const at::Tensor& logits) {
  { metric.per_prompt(logits) } -> std::same_as<at::Tensor>;
};

/// The metric's mean over prompts: a scalar tensor, differentiable where `logits` are.
/// logits  [batch, pos, d_vocab]
template <Metric M>
[[nodiscard]] at::Tensor mean(const M& metric, const at::Tensor& logits) {
  return metric.per_prompt(logits).mean();
}

/// How much of a metric an ablation took away, in percent of the clean value: 100 means all of it, a negative number
/// that the metric grew.
/// throws  ValueError  when the clean value is 0
[[nodiscard]] inline double percent_reduction(double clean, double ablated) {
  if (clean == 0.0) {
    throw ValueError{
        {.tensor = "clean metric", .problem = "a reduction is a share of it", .expected = "not 0", .got = "0"}};
  }
  return 100.0 * (clean - ablated) / clean;
}

}  // namespace circuit
