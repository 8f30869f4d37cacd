#pragma once

#include "circuit/core/tensor.hpp"

namespace circuit {

/// Clean prompts and the corrupt ones that stand against them, [batch, pos] of int64 each.
struct PromptPair {
  at::Tensor clean{};
  at::Tensor corrupt{};

  /// throws  ShapeError  unless both are token tensors of one shape
  void check() const {
    check_shape(clean, {-1, -1}, "clean tokens");
    check_shape(corrupt, shape_of(clean), "corrupt tokens", {}, "every clean prompt has a corrupt one of its length");
  }
};

}  // namespace circuit
