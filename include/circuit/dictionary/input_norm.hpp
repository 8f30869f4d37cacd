#pragma once

#include <cmath>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// A dictionary's normalisation at some inputs, its scale and mean held there: it divides what is read, and multiplies
/// and shifts what is written. [..., 1] each; undefined where it does nothing.
struct HeldInputNorm {
  at::Tensor divisor{};
  at::Tensor factor{};
  at::Tensor shift{};
};

/// What a dictionary makes of each input vector before all else, and whether its output is brought back to the input's
/// own scale. Scales that are the same for every input need none of this: they are folded into the weights.
/// source  SAELens' `normalize_activations`
struct InputNorm {
  enum class Kind {
    none,
    constant_norm,  ///< x sqrt(d_in) / |x|
    layer_norm,     ///< (x - mean) / (std + 1e-5), std with n - 1
  };
  Kind kind = Kind::none;
  bool undone =
      true;  ///< whether the output is multiplied by |x| / sqrt(d_in), or by std plus mean; a transcoder's is not

  /// x [..., d_in]  return the same shape
  [[nodiscard]] at::Tensor apply(const at::Tensor& x) const {
    if (kind == Kind::none) return x;
    if (kind == Kind::constant_norm) return x.div(norm(x));
    const auto centered = x.sub(x.mean(-1, /*keepdim=*/true));
    return centered.div(deviation(x).add(1e-5));
  }
  /// out [..., d_out]  of the dictionary  x [..., d_in]  what it read
  [[nodiscard]] at::Tensor undo(const at::Tensor& out, const at::Tensor& x) const {
    if (kind == Kind::none || !undone) return out;
    if (kind == Kind::constant_norm) return out.mul(norm(x));
    return out.mul(deviation(x)).add(x.mean(-1, /*keepdim=*/true));
  }

  /// Whether outputs are multiplied by what differs from input to input.
  [[nodiscard]] bool scales_output() const { return kind != Kind::none && undone; }

  /// At these inputs: `apply(x) = unscaled(x) / divisor`, `undo(out, x) = out factor + shift`. x [..., d_in]
  [[nodiscard]] HeldInputNorm held(const at::Tensor& x) const {
    if (kind == Kind::none) return {};
    const auto scale = kind == Kind::constant_norm ? norm(x) : deviation(x);
    HeldInputNorm out{.divisor = kind == Kind::constant_norm ? scale : scale.add(1e-5)};
    if (!undone) return out;
    out.factor = scale;
    if (kind == Kind::layer_norm) out.shift = x.mean(-1, /*keepdim=*/true);
    return out;
  }
  /// The linear part of the normalisation before it is divided by its scale; its own transpose. x [..., d_in]
  [[nodiscard]] at::Tensor unscaled(const at::Tensor& x) const {
    return kind == Kind::layer_norm ? x.sub(x.mean(-1, /*keepdim=*/true)) : x;
  }

 private:
  [[nodiscard]] static at::Tensor norm(const at::Tensor& x) {
    return x.norm(2, {-1}, /*keepdim=*/true).div(std::sqrt(static_cast<double>(x.size(-1))));
  }
  [[nodiscard]] static at::Tensor deviation(const at::Tensor& x) {
    return x.var(-1, /*unbiased=*/true, /*keepdim=*/true).sqrt();
  }
};

}  // namespace circuit
