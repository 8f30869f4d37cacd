#pragma once

#include <cmath>
#include <concepts>
#include <cstddef>

#include "circuit/core/tensor.hpp"
#include "circuit/model/config.hpp"

namespace circuit {

namespace positions {

/// By how much queries and keys of some positions turn, the same in every layer: cosine and sine of each (position, pair),
/// [n, 1, rotary_dims / 2], times the gain. Undefined where nothing turns.
struct Angles {
  at::Tensor cos{};
  at::Tensor sin{};
};

}  // namespace positions

/// How a model knows the order of its tokens: an embedding added at the start, or a rotation of queries and keys.
template <class P>
concept Positions = requires(const at::Tensor& x, const ModelConfig& config, const positions::Angles& angles) {
  { P::adds_embedding } -> std::convertible_to<bool>;
  { P::rotates } -> std::convertible_to<bool>;
  { P::angles(x, config, x.options()) } -> std::same_as<positions::Angles>;
  { P::rotate(x, angles) } -> std::same_as<at::Tensor>;
  { P::rotate_back(x, angles) } -> std::same_as<at::Tensor>;
};

namespace positions {

/// A learned vector per position, added to the token embedding.
struct Learned {
  static constexpr bool adds_embedding = true;
  static constexpr bool rotates = false;

  [[nodiscard]] static Angles angles(const at::Tensor& /*positions*/, const ModelConfig& /*config*/,
                                     const at::TensorOptions& /*options*/) {
    return {};
  }
  [[nodiscard]] static at::Tensor rotate(const at::Tensor& x, const Angles& /*angles*/) { return x; }
  [[nodiscard]] static at::Tensor rotate_back(const at::Tensor& x, const Angles& /*angles*/) { return x; }
};

/// Rotary positions (Su et al. 2021) in Hugging Face's half-split layout: dimension i turns with i + rotary_dims / 2.
struct Rotary {
  static constexpr bool adds_embedding = false;
  static constexpr bool rotates = true;

  /// positions  [n] int64   where each entry of an axis n stands in its prompt
  /// options    type and device of what is turned
  [[nodiscard]] static Angles angles(const at::Tensor& positions, const ModelConfig& config,
                                     const at::TensorOptions& options);
  /// x       [..., n, head, d_head]
  /// return  x's shape, the first rotary_dims of each entry turned by its position's angles
  [[nodiscard]] static at::Tensor rotate(const at::Tensor& x, const Angles& angles);
  /// The transpose of `rotate`; its inverse where the gain is 1.
  [[nodiscard]] static at::Tensor rotate_back(const at::Tensor& x, const Angles& angles);
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

[[nodiscard]] inline at::Tensor turn(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto half = cos.size(-1);
  const auto first = x.narrow(-1, 0, half);
  const auto second = x.narrow(-1, half, half);
  const auto rest = x.narrow(-1, 2 * half, x.size(-1) - 2 * half);
  return make::cat({first.mul(cos).sub(second.mul(sin)), second.mul(cos).add(first.mul(sin)), rest}, -1);
}

/// The angles of a run's positions, of which the first stands at `first` in its prompt. like  [batch, pos, ...]
template <Positions Place>
[[nodiscard]] positions::Angles angles_from(Position first, const at::Tensor& like, const ModelConfig& config) {
  auto places = make::arange(like.size(1), like.options().dtype(at::kLong));
  if (first != Position{0}) places = places.add(first.value);
  return Place::angles(places, config, like.options());
}

}  // namespace detail

inline positions::Angles positions::Rotary::angles(const at::Tensor& positions, const ModelConfig& config,
                                                   const at::TensorOptions& options) {
  const auto speeds = detail::rotary_speeds(config).to(options.device());
  const auto angle = positions.to(at::kDouble).unsqueeze(-1).mul(speeds).unsqueeze(1);
  const auto scaled = [&](const at::Tensor& t) {
    return (config.rotary_gain == 1.0 ? t : t.mul(config.rotary_gain)).to(c10::typeMetaToScalarType(options.dtype()));
  };
  return {scaled(angle.cos()), scaled(angle.sin())};
}

inline at::Tensor positions::Rotary::rotate(const at::Tensor& x, const Angles& angles) {
  return detail::turn(x, angles.cos, angles.sin);
}

inline at::Tensor positions::Rotary::rotate_back(const at::Tensor& x, const Angles& angles) {
  return detail::turn(x, angles.cos, angles.sin.neg());
}

}  // namespace circuit
