#pragma once

#include <ATen/ops/randn.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "circuit/metric/metric.hpp"
#include "circuit/model/gradient.hpp"
#include "tensors.hpp"

/// Metrics computed with plain loops, and gradients by differences.
namespace by_hand {

/// Seeded logits [batch, pos, d_vocab] in float64.
inline at::Tensor logits(std::int64_t batch = 3, std::int64_t length = 4, std::int64_t d_vocab = 6) {
  auto out = circuit::make::empty({batch, length, d_vocab}, at::kDouble);
  auto* values = out.data_ptr<double>();
  for (std::int64_t i = 0; i < out.numel(); ++i) values[i] = 2.0 * std::sin(1.7 * static_cast<double>(i) + 0.3);
  return out;
}

inline double item(const at::Tensor& t, std::int64_t i) { return t[i].item<double>(); }

inline double at(const at::Tensor& t, std::int64_t b, std::int64_t p, std::int64_t v) {
  return t[b][p][v].item<double>();
}

/// Probability of one token.
inline double probability(const at::Tensor& t, std::int64_t b, std::int64_t p, std::int64_t v) {
  double sum = 0;
  for (std::int64_t u = 0; u < t.size(2); ++u) sum += std::exp(at(t, b, p, u));
  return std::exp(at(t, b, p, v)) / sum;
}

/// Largest difference between autograd's gradient of the metric's mean and central differences of it.
template <circuit::Metric M>
double gradient_gap(const M& metric, const at::Tensor& where = logits()) {
  const c10::AutoGradMode gradient{true};
  const auto leaf = where.clone().requires_grad_(true);
  const auto found = circuit::gradient_of(circuit::mean(metric, leaf), {leaf})[0];
  double worst = 0;
  double largest = 0;
  for (std::int64_t i = 0; i < where.numel(); ++i) {
    const auto moved = [&](double by) {
      auto x = where.clone();
      x.data_ptr<double>()[i] += by;
      return circuit::mean(metric, x).template item<double>();
    };
    constexpr double h = 1e-5;
    const auto expected = (moved(h) - moved(-h)) / (2 * h);
    worst = std::max(worst, std::abs(expected - found.flatten()[i].template item<double>()));
    largest = std::max(largest, std::abs(expected));
  }
  REQUIRE(largest > 1e-3);  // a gradient of zeros would agree with anything flat
  return worst;
}

}  // namespace by_hand
