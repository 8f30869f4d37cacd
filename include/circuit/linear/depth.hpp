#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/core/id.hpp"
#include "circuit/model/architecture.hpp"

namespace circuit {

/// Places along the residual stream, in the order in which they are met: the stream before layer l at 3 l, the layer's
/// attention at 3 l + 1 and its MLP at 3 l + 2, the stream behind the last layer at 3 n_layers; embeddings lie before
/// all. What reads at a depth reads what lies before it. In a parallel block neither module is upstream of the other.
[[nodiscard]] constexpr std::int64_t stream_depth(Layer layer) { return std::int64_t{3} * layer.value; }
[[nodiscard]] constexpr std::int64_t attn_depth(Layer layer) { return stream_depth(layer) + 1; }
template <Architecture A>
[[nodiscard]] constexpr std::int64_t mlp_depth(Layer layer) {
  return 3 * layer.value + (A::Wiring::parallel ? 1 : 2);
}
/// Of the metric, before which all lies.
[[nodiscard]] constexpr std::int64_t end_depth(std::int64_t n_layers) { return 3 * n_layers + 1; }

/// What a target at depth `to` reads: everything from the last dictionary of the stream before it on.
struct Upstream {
  std::int64_t from = -1;  ///< the depth of that dictionary; -1: from the embeddings on
  std::int64_t to = 0;

  /// before  [depths]  how many of something lie before each depth
  [[nodiscard]] std::int64_t first(const std::vector<std::int64_t>& before) const {
    return from < 0 ? 0 : before[static_cast<std::size_t>(from)];
  }
  [[nodiscard]] std::int64_t last(const std::vector<std::int64_t>& before) const {
    return before[static_cast<std::size_t>(to)];
  }
  [[nodiscard]] std::int64_t count(const std::vector<std::int64_t>& before) const {
    return last(before) - first(before);
  }
};

}  // namespace circuit
