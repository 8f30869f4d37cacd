#pragma once

#include <concepts>
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
  /// return     x's shape, each entry turned by its position's angle
  [[nodiscard]] static at::Tensor rotate(const at::Tensor& x, const at::Tensor& positions, const ModelConfig& config);
  /// The transpose of `rotate`, which is its inverse.
  [[nodiscard]] static at::Tensor rotate_back(const at::Tensor& x, const at::Tensor& positions,
                                              const ModelConfig& config);
};

}  // namespace positions

namespace detail {

/// Cosine and sine of every (position, pair), [n, 1, rotary_dims / 2] in x's type.
[[nodiscard]] inline std::pair<at::Tensor, at::Tensor> rotary_angles(const at::Tensor& x, const at::Tensor& positions,
                                                                     const ModelConfig& config) {
  const auto half = config.rotary_dims / 2;
  const auto in_double = x.options().dtype(at::kDouble);
  const auto frequency = make::arange(half, in_double).mul(-2.0 / static_cast<double>(config.rotary_dims));
  const auto speed = make::full({}, config.rotary_base, in_double).pow(frequency);
  const auto angle = positions.to(at::kDouble).unsqueeze(-1).mul(speed).unsqueeze(1);
  return {angle.cos().to(x.scalar_type()), angle.sin().to(x.scalar_type())};
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
