#pragma once

#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation/jump_relu.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"

namespace circuit {

/// What a gated dictionary has instead of b_enc, each [d_sae].
struct GateParts {
  at::Tensor b_gate;
  at::Tensor b_mag;
  at::Tensor r_mag;
};

/// A gated dictionary, whose gate and magnitude share W_enc: 1[x W_enc + b_gate > 0] max(0, m) with the magnitude
/// m = x W_enc exp(r_mag) + b_mag. Since m is what the gate reads, scaled and moved, that is max(0, m) where
/// m > b_mag - exp(r_mag) b_gate: a JumpReLU of m. Its encoder is the magnitude's, in memory of its own.
/// weights  of the gated form, without b_enc
/// throws   ShapeError;  ValueError for an r_mag beyond what exp can take
/// source   Rajamanoharan et al. 2024, appendix on the JumpReLU form
[[nodiscard]] inline SparseDictionary<activation::JumpRelu> from_gated(DictionaryWeights weights,
                                                                       const GateParts& parts) {
  for (const auto& [part, name] : {std::pair{parts.b_gate, "b_gate"}, {parts.b_mag, "b_mag"}, {parts.r_mag, "r_mag"}}) {
    check_shape(part, {weights.d_sae()}, name, weights.name);
  }
  const auto scale = parts.r_mag.exp();
  weights.W_enc = widened(weights.W_enc).mul(scale);
  check_finite(weights.W_enc, "W_enc exp(r_mag)", weights.name);
  weights.b_enc = parts.b_mag;
  return {std::move(weights), {parts.b_mag.sub(parts.b_gate.mul(scale))}};
}

}  // namespace circuit
