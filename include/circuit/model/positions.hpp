#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/model/config.hpp"

namespace circuit {

/// How a model knows the order of its tokens: an embedding added at the start, or a rotation of queries and keys.
template <class P>
concept Positions = requires(const at::Tensor& x, const ModelConfig& config) {
  { P::adds_embedding } -> std::convertible_to<bool>;
  { P::rotates } -> std::convertible_to<bool>;
  { P::rotate(x, x, config) } -> std::same_as<at::Tensor>;
  { P::rotate_back(x, x, config) } -> std::same_as<at::Tensor>;
};

namespace positions {

/// A learned vector per position, added to the token embedding.
struct Learned {
  static constexpr bool adds_embedding = true;
  static constexpr bool rotates = false;

  [[nodiscard]] static at::Tensor rotate(const at::Tensor& x, const at::Tensor& /*positions*/,
                                         const ModelConfig& /*config*/) {
    return x;
  }
  [[nodiscard]] static at::Tensor rotate_back(const at::Tensor& x, const at::Tensor& /*positions*/,
                                              const ModelConfig& /*config*/) {
    return x;
  }
};

/// Rotary positions (Su et al. 2021) in Hugging Face's half-split layout: dimension i turns with i + rotary_dims / 2.
struct Rotary {
  static constexpr bool adds_embedding = false;
  static constexpr bool rotates = true;

  /// x          [..., n, head, d_head]
  /// positions  [n] int64   where each entry of the axis n stands in its prompt
  /// return     x's shape, the first rotary_dims of each entry turned by its position's angles
  [[nodiscard]] static at::Tensor rotate(const at::Tensor& x, const at::Tensor& positions, const ModelConfig& config);
  /// The transpose of `rotate`; its inverse where the gain is 1.
  [[nodiscard]] static at::Tensor rotate_back(const at::Tensor& x, const at::Tensor& positions,
                                              const ModelConfig& config);
};

}  // namespace positions

namespace detail {

/// By how much each pair turns per position, in radians: [rotary_dims / 2] of float64.
[[nodiscard]] inline at::Tensor rotary_speeds(const ModelConfig& config) {
  const auto pairs = config.rotary_dims / 2;
  auto speeds = make::empty({pairs}, at::kDouble);
  auto* out = speeds.data_ptr<double>();
  for (std::int64_t i = 0; i < pairs; ++i) {
    out[i] = config.rotary_speeds.empty()
                 ? std::pow(config.rotary_base, -static_cast<double>(i) / static_cast<double>(pairs))
                 : config.rotary_speeds[static_cast<std::size_t>(i)];
  }
  return speeds;
}

/// Cosine and sine of every (position, pair), [n, 1, rotary_dims / 2] in x's type, times the gain.
[[nodiscard]] inline std::pair<at::Tensor, at::Tensor> rotary_angles(const at::Tensor& x, const at::Tensor& positions,
                                                                     const ModelConfig& config) {
  const auto speeds = rotary_speeds(config).to(x.device());
  const auto angle = positions.to(at::kDouble).unsqueeze(-1).mul(speeds).unsqueeze(1);
  const auto scaled = [&](const at::Tensor& t) {
    return (config.rotary_gain == 1.0 ? t : t.mul(config.rotary_gain)).to(x.scalar_type());
  };
  return {scaled(angle.cos()), scaled(angle.sin())};
}

[[nodiscard]] inline at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                                     std::int64_t rotary_dims) {
  const auto half = rotary_dims / 2;
  const auto first = x.narrow(-1, 0, half);
  const auto second = x.narrow(-1, half, half);
  const auto rest = x.narrow(-1, rotary_dims, x.size(-1) - rotary_dims);
  return make::cat({first.mul(cos).sub(second.mul(sin)), second.mul(cos).add(first.mul(sin)), rest}, -1);
}

}  // namespace detail

inline at::Tensor positions::Rotary::rotate(const at::Tensor& x, const at::Tensor& positions,
                                            const ModelConfig& config) {
  const auto [cos, sin] = detail::rotary_angles(x, positions, config);
  return detail::turn(x, cos, sin, config.rotary_dims);
}

inline at::Tensor positions::Rotary::rotate_back(const at::Tensor& x, const at::Tensor& positions,
                                                 const ModelConfig& config) {
  const auto [cos, sin] = detail::rotary_angles(x, positions, config);
  return detail::turn(x, cos, sin.neg(), config.rotary_dims);
}

}  // namespace circuit
