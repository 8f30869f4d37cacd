#pragma once

#include <concepts>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/metric.hpp"

namespace circuit {

/// A metric and what it counts for.
template <Metric M>
struct Weighted {
  double weight = 1.0;
  M metric;
};

/// Several metrics at once, prompt by prompt: `WeightedSum{Weighted{0.7, a}, Weighted{-0.3, b}}`.
template <Metric... Ms>
  requires(sizeof...(Ms) > 0)
class WeightedSum {
 public:
  /// throws  ValueError  for a weight that is NaN or infinite
  explicit WeightedSum(Weighted<Ms>... parts) : parts_{std::move(parts)...} {
    std::apply([](const auto&... part) { (check_finite(make::full({}, part.weight, at::kDouble), "weight"), ...); },
               parts_);
  }

  /// logits  [batch, pos, d_vocab]   return  [batch]
  /// throws  as the parts;  ShapeError when they do not give a number for the same prompts
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return std::apply(
        [&](const auto&... part) {
          at::Tensor sum;
          const auto add = [&](const auto& p) {
            const auto value = p.metric.per_prompt(logits).mul(p.weight);
            if (sum.defined())
              check_shape(value, shape_of(sum), "metric", {}, "parts of one sum read the same prompts");
            sum = sum.defined() ? sum.add(value) : value;
          };
          (add(part), ...);
          return sum;
        },
        parts_);
  }

 private:
  std::tuple<Weighted<Ms>...> parts_;
};

/// A metric of your own: any callable that makes [batch] of logits [batch, pos, d_vocab].
/// `metric_by([](const at::Tensor& logits) -> at::Tensor { return logits.select(1, -1).amax(-1); })`
template <class F>
  requires std::convertible_to<std::invoke_result_t<const F&, const at::Tensor&>, at::Tensor>
class MetricBy {
 public:
  explicit MetricBy(F function) : function_{std::move(function)} {}

  /// throws  ShapeError  when the function does not give one number per prompt
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    at::Tensor values = std::invoke(function_, logits);
    check_shape(values, {logits.size(0)}, "metric", {}, "a metric is one number per prompt");
    return values;
  }

 private:
  F function_;
};

template <class F>
[[nodiscard]] MetricBy<F> metric_by(F function) {
  return MetricBy<F>{std::move(function)};
}

}  // namespace circuit
