#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// Gain and bias of a norm; both undefined where they were folded into the readers.
struct NormWeights {
  at::Tensor gain;  ///< [d_model]
  at::Tensor bias;  ///< [d_model]
};

/// A norm in the two steps that TransformerLens names: `hook_scale`, then `hook_normalized`; plus what a reader reads and
/// the transpose of its linear part at a frozen scale.
template <class N>
concept Norm = requires(const at::Tensor& x, const NormWeights& w, double eps) {
  { N::scale(x, eps) } -> std::same_as<at::Tensor>;
  { N::normalized(x, x, w) } -> std::same_as<at::Tensor>;
  { N::output(x, w) } -> std::same_as<at::Tensor>;
  { N::unscaled(x, w) } -> std::same_as<at::Tensor>;
  { N::pull_back(x, x, w) } -> std::same_as<at::Tensor>;
  { N::pull_back_normalized(x, x, w) } -> std::same_as<at::Tensor>;
  { N::centers } -> std::convertible_to<bool>;
};

namespace norm {

/// (x - mean) / sqrt(var + eps), times gain, plus bias. `hook_normalized` stands after gain and bias.
struct LayerNorm {
  /// Whether the norm subtracts the mean, so that writers may be centred without changing the function.
  static constexpr bool centers = true;

  /// x [..., d_model]  return [..., 1]
  [[nodiscard]] static at::Tensor scale(const at::Tensor& x, double eps) {
    return x.var(-1, /*unbiased=*/false, /*keepdim=*/true).add(eps).sqrt();
  }
  /// What `hook_normalized` holds.
  [[nodiscard]] static at::Tensor normalized(const at::Tensor& x, const at::Tensor& scale, const NormWeights& w) {
    auto y = x.sub(x.mean(-1, /*keepdim=*/true)).div(scale);
    if (w.gain.defined()) y = y.mul(w.gain);
    if (w.bias.defined()) y = y.add(w.bias);
    return y;
  }
  /// What the reader multiplies, from `hook_normalized`.
  [[nodiscard]] static at::Tensor output(const at::Tensor& normalized, const NormWeights& /*w*/) { return normalized; }

  /// The linear part of the map from x to `output`, before it is divided by the scale: gain (I - 11^T/d) x.
  [[nodiscard]] static at::Tensor unscaled(const at::Tensor& x, const NormWeights& w) {
    const auto y = x.sub(x.mean(-1, /*keepdim=*/true));
    return w.gain.defined() ? y.mul(w.gain) : y;
  }
  /// Transpose of the map from x to `output`, the scale held fixed: g -> (I - 11^T/d) (gain g) / s.
  [[nodiscard]] static at::Tensor pull_back(const at::Tensor& grad, const at::Tensor& scale, const NormWeights& w) {
    auto g = w.gain.defined() ? grad.mul(w.gain) : grad;
    return g.sub(g.mean(-1, /*keepdim=*/true)).div(scale);
  }
  /// The same for a reader of `hook_normalized`.
  [[nodiscard]] static at::Tensor pull_back_normalized(const at::Tensor& grad, const at::Tensor& scale,
                                                       const NormWeights& w) {
    return pull_back(grad, scale, w);
  }
};

/// x / sqrt(mean square + eps), times gain. `hook_normalized` stands before the gain.
struct RmsNorm {
  static constexpr bool centers = false;

  [[nodiscard]] static at::Tensor scale(const at::Tensor& x, double eps) {
    return x.square().mean(-1, /*keepdim=*/true).add(eps).sqrt();
  }
  [[nodiscard]] static at::Tensor normalized(const at::Tensor& x, const at::Tensor& scale, const NormWeights& /*w*/) {
    return x.div(scale);
  }
  [[nodiscard]] static at::Tensor output(const at::Tensor& normalized, const NormWeights& w) {
    return w.gain.defined() ? normalized.mul(w.gain) : normalized;
  }
  [[nodiscard]] static at::Tensor unscaled(const at::Tensor& x, const NormWeights& w) {
    return w.gain.defined() ? x.mul(w.gain) : x;
  }
  [[nodiscard]] static at::Tensor pull_back(const at::Tensor& grad, const at::Tensor& scale, const NormWeights& w) {
    return (w.gain.defined() ? grad.mul(w.gain) : grad).div(scale);
  }
  [[nodiscard]] static at::Tensor pull_back_normalized(const at::Tensor& grad, const at::Tensor& scale,
                                                       const NormWeights& /*w*/) {
    return grad.div(scale);
  }
};

/// No norm: readers see the stream itself, and hook_scale is 1.
struct None {
  static constexpr bool centers = false;

  [[nodiscard]] static at::Tensor scale(const at::Tensor& x, double /*eps*/) {
    return make::ones({1}, x.options()).expand(x.sizes().slice(0, static_cast<std::size_t>(x.dim()) - 1)).unsqueeze(-1);
  }
  [[nodiscard]] static at::Tensor normalized(const at::Tensor& x, const at::Tensor& /*scale*/,
                                             const NormWeights& /*w*/) {
    return x;
  }
  [[nodiscard]] static at::Tensor output(const at::Tensor& normalized, const NormWeights& /*w*/) { return normalized; }
  [[nodiscard]] static at::Tensor unscaled(const at::Tensor& x, const NormWeights& /*w*/) { return x; }
  [[nodiscard]] static at::Tensor pull_back(const at::Tensor& grad, const at::Tensor& /*scale*/,
                                            const NormWeights& /*w*/) {
    return grad;
  }
  [[nodiscard]] static at::Tensor pull_back_normalized(const at::Tensor& grad, const at::Tensor& /*scale*/,
                                                       const NormWeights& /*w*/) {
    return grad;
  }
};

}  // namespace norm
}  // namespace circuit
