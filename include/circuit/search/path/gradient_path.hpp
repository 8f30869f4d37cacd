#pragma once

#include <concepts>
#include <cstdint>

#include "circuit/core/tensor.hpp"
#include "circuit/model/components.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// What a path between a clean and a corrupt run is laid out from.
struct PathEnds {
  Components components{};
  PromptPair prompts{};
  at::Tensor clean{};  ///< what senders write, [senders, batch, pos, d_model]
  at::Tensor corrupt{};
};

namespace detail {

/// Stands for a callable `add(weight, tokens, attachments...)` in the concept below.
struct AnyPoint {
  template <class... Attached>
  void operator()(double /*weight*/, const at::Tensor& /*tokens*/, Attached... /*attached*/) const {}
};

}  // namespace detail

/// Where gradients are taken between the clean and the corrupt run: calls `add(weight, tokens, attachments...)` for
/// every run whose gradients count, with weights that sum to 1.
template <class P>
concept GradientPath = requires(const P& path, const PathEnds& ends, const detail::AnyPoint& add) {
  { path.walk(ends, add) } -> std::same_as<void>;
};

}  // namespace circuit
