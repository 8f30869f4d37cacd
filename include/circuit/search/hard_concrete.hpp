#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>

#include "circuit/core/tensor.hpp"

/// Gates between 0 and 1 that learn to be one or the other: noisy sigmoids of log odds, stretched beyond both ends and
/// clamped. source  Louizos et al. 2018
namespace circuit::hard_concrete {

inline constexpr double temperature = 2.0 / 3.0;
inline constexpr double low = -0.1;  ///< gates are stretched to [low, high] and clamped to [0, 1]
inline constexpr double high = 1.1;

[[nodiscard]] inline at::Tensor stretched(const at::Tensor& share) {
  return share.mul(high - low).add(low).clamp(0.0, 1.0);
}

/// How open each gate is without noise.
[[nodiscard]] inline at::Tensor gate(const at::Tensor& log_odds) { return stretched(log_odds.sigmoid()); }

/// The probability that a gate is not 0.
[[nodiscard]] inline at::Tensor open_probability(const at::Tensor& log_odds) {
  return log_odds.sub(temperature * std::log(-low / high)).sigmoid();
}

/// One draw of every gate. bits are the same on every platform
[[nodiscard]] inline at::Tensor draw(const at::Tensor& log_odds, std::mt19937_64& bits) {
  auto u = make::empty(log_odds.sizes(), at::kDouble);  // strictly between 0 and 1
  auto* value = u.template data_ptr<double>();
  for (std::int64_t i = 0; i < u.numel(); ++i) {
    value[i] = (static_cast<double>(bits() >> 11U) + 0.5) / 9007199254740992.0;
  }
  const auto noise = u.log().sub(u.neg().add(1.0).log()).to(log_odds.options());
  return stretched(log_odds.add(noise).div(temperature).sigmoid());
}

/// Adam's moments of one tensor.
class AdamStep {
 public:
  explicit AdamStep(const at::Tensor& like) : first_{make::zeros_like(like)}, second_{first_} {}

  /// What to subtract, times the rate. step  from 1
  [[nodiscard]] at::Tensor change(const at::Tensor& gradient, std::int64_t step) {
    first_ = first_.mul(0.9).add(gradient, 0.1);
    second_ = second_.mul(0.999).add(gradient.square(), 0.001);
    const auto t = static_cast<double>(step);
    return first_.div(1 - std::pow(0.9, t)).div(second_.div(1 - std::pow(0.999, t)).sqrt().add(1e-8));
  }

 private:
  at::Tensor first_;
  at::Tensor second_;
};

}  // namespace circuit::hard_concrete
