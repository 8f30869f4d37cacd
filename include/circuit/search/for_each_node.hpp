#pragma once

#include <cstdint>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"

namespace circuit {

/// Calls `use(node, value)` for every entry that is not 0, position by position.
/// values  [pos, n]  of nodes 0 to n - 1 of one kind and layer
template <class Use>
void for_each_node(NodeKind kind, Layer layer, const at::Tensor& values, Use&& use) {
  const auto host = values.to(at::kCPU, at::kDouble).contiguous();
  const auto* value = data_of<double>(host);
  for (std::int32_t p = 0; p < host.size(0); ++p) {
    for (std::int32_t i = 0; i < host.size(1); ++i, ++value) {
      if (*value != 0) use(Node{kind, layer, Position{p}, Feature{i}}, *value);
    }
  }
}

}  // namespace circuit
