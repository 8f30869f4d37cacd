#pragma once

#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"

namespace circuit {

/// Clean prompts and the corrupt ones that stand against them, [batch, pos] of int64 each. `corrupt` may be undefined where
/// a search has no use for it.
struct PromptPair {
  at::Tensor clean{};
  at::Tensor corrupt{};

  PromptPair() = default;
  PromptPair(at::Tensor clean_tokens, at::Tensor corrupt_tokens)
      : clean{std::move(clean_tokens)}, corrupt{std::move(corrupt_tokens)} {}
  PromptPair(const ContrastBatch& batch)  // NOLINT(google-explicit-constructor): a batch is its prompts
      : clean{to_tokens(batch.clean)}, corrupt{to_tokens(batch.corrupt)} {}

  /// throws  ShapeError  unless both are token tensors of one shape
  void check() const {
    check_shape(clean, {-1, -1}, "clean tokens");
    check_shape(corrupt, shape_of(clean), "corrupt tokens", {}, "every clean prompt has a corrupt one of its length");
  }
};

}  // namespace circuit
