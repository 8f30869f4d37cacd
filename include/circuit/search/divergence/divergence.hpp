#pragma once

#include <concepts>

#include "circuit/metric/metric.hpp"
#include "circuit/metric/to_clean.hpp"

namespace circuit {

/// How far what a circuit says lies from what the whole model says. Logits are [batch, pos, d_vocab].
template <class D>
concept DivergenceRule = requires(const D& d, const at::Tensor& whole, const at::Tensor& circuit) {
  { d.distance(whole, circuit) } -> std::same_as<double>;
};

namespace divergence {

/// Kullback-Leibler divergence of the circuit's next token from the model's at the last position, nats, mean over
/// prompts.
struct Kl {
  [[nodiscard]] double distance(const at::Tensor& whole, const at::Tensor& circuit) const {
    return mean(KlToClean{whole}, circuit).template item<double>();
  }
};

/// How much of a metric is lost; a gain is no distance.
template <Metric M>
struct MetricLoss {
  M metric;

  [[nodiscard]] double distance(const at::Tensor& whole, const at::Tensor& circuit) const {
    return mean(metric, whole).sub(mean(metric, circuit)).template item<double>();
  }
};

/// How much a metric that should be small rises, such as one of `KlToClean` where prompts are read at their own places.
template <Metric M>
struct MetricRise {
  M metric;

  [[nodiscard]] double distance(const at::Tensor& whole, const at::Tensor& circuit) const {
    return mean(metric, circuit).sub(mean(metric, whole)).template item<double>();
  }
};

}  // namespace divergence
}  // namespace circuit
