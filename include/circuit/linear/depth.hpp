#pragma once

#include <cstdint>

#include "circuit/core/id.hpp"
#include "circuit/model/architecture.hpp"

namespace circuit {

/// How many modules lie upstream of one along the residual stream: 2 l for attention of layer l, 2 l + 1 for its MLP,
/// all for the metric. In a parallel block neither is upstream of the other.
[[nodiscard]] constexpr std::int64_t attn_depth(Layer layer) { return 2 * layer.value; }
template <Architecture A>
[[nodiscard]] constexpr std::int64_t mlp_depth(Layer layer) {
  return 2 * layer.value + (A::Wiring::parallel ? 0 : 1);
}

}  // namespace circuit
