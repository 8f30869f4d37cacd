#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"

namespace circuit {

/// An attachment that keeps keys and values, so that the next run goes on from the tokens of those before it and
/// computes its own positions alone. It is named last, behind edits of keys and values: what these made of a position
/// is what later ones see.
class KeyValueCache {
 public:
  /// Where the next run's first token stands.
  [[nodiscard]] Position first_position() const noexcept { return length_; }

  /// throws  ShapeError  for a run of another batch than those before it
  void visit(hook::attn::rot_k point, Layer layer, at::Tensor& value) {
    extend(keys_, hook_name(point, layer), layer, value);
  }
  void visit(hook::attn::v point, Layer layer, at::Tensor& value) {
    extend(values_, hook_name(point, layer), layer, value);
  }
  void visit(hook::ln_final::scale /*point*/, Layer /*layer*/, at::Tensor& value) {
    length_.value += static_cast<std::int32_t>(value.size(1));
  }

 private:
  static void extend(std::vector<at::Tensor>& kept, const std::string& name, Layer layer, at::Tensor& value) {
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= kept.size()) kept.resize(slot + 1);
    auto& earlier = kept[slot];
    if (earlier.defined()) {
      check_shape(value, {earlier.size(0), -1, earlier.size(2), earlier.size(3)}, name, {},
                  "a run goes on from earlier tokens of the same prompts");
      value = make::cat({earlier, value}, 1);
    }
    earlier = value;
  }

  Position length_{0};
  std::vector<at::Tensor> keys_;  // by layer: [batch, pos, head, d_head]
  std::vector<at::Tensor> values_;
};

}  // namespace circuit
