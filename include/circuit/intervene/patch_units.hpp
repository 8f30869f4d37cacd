#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/config.hpp"

namespace circuit {

/// A choice of units, neurons and dimensions of hook_z, at positions.
class UnitMask {
 public:
  /// None chosen.
  UnitMask(const ModelConfig& config, std::int64_t length)
      : attn_(static_cast<std::size_t>(config.n_layers)), mlp_(attn_.size()) {
    for (auto& mask : attn_) mask = make::zeros({length, config.n_heads * config.d_head}, at::kBool);
    for (auto& mask : mlp_) mask = make::zeros({length, config.d_mlp}, at::kBool);
  }

  /// throws  IndexError  for a layer, position or unit that is not there
  void choose(bool attention, Layer layer, Position position, Feature unit) {
    auto& masks = attention ? attn_ : mlp_;
    check_index(layer, static_cast<std::int64_t>(masks.size()));
    auto& mask = masks[static_cast<std::size_t>(layer.value)];
    check_index(position, mask.size(0));
    check_index(unit, mask.size(1));
    mask.data_ptr<bool>()[position.value * mask.size(1) + unit.value] = true;
  }

  [[nodiscard]] bool has(bool attention, Layer layer, Position position, Feature unit) const {
    const auto& mask = (attention ? attn_ : mlp_)[static_cast<std::size_t>(layer.value)];
    return mask.data_ptr<bool>()[position.value * mask.size(1) + unit.value];
  }

  /// Every unit that is not chosen, at all positions from `first` on.
  [[nodiscard]] UnitMask others(std::int64_t first = 0) const {
    auto out = *this;
    for (auto* masks : {&out.attn_, &out.mlp_}) {
      for (auto& mask : *masks) {
        mask = mask.logical_not();
        mask.narrow(0, 0, first).zero_();
      }
    }
    return out;
  }

  [[nodiscard]] std::int64_t count() const {
    std::int64_t n = 0;
    for (const auto* masks : {&attn_, &mlp_}) {
      for (const auto& mask : *masks) n += mask.sum().item<std::int64_t>();
    }
    return n;
  }

  /// [pos, units] bool
  [[nodiscard]] const at::Tensor& of(bool attention, Layer layer) const {
    return (attention ? attn_ : mlp_)[static_cast<std::size_t>(layer.value)];
  }

 private:
  std::vector<at::Tensor> attn_;
  std::vector<at::Tensor> mlp_;
};

/// An attachment that gives chosen units the values that they have in another run, of as many prompts or of one (such
/// as a mean) that serves all.
template <class Cache>
  requires(Cache::template holds<hook::attn::z> && Cache::template holds<hook::mlp::post>)
class PatchUnits {
 public:
  PatchUnits(UnitMask mask, Cache cache) : mask_{std::move(mask)}, cache_{std::move(cache)} {}

  void visit(hook::attn::z point, Layer layer, at::Tensor& value) const { patch(point, true, layer, value); }
  void visit(hook::mlp::post point, Layer layer, at::Tensor& value) const { patch(point, false, layer, value); }

 private:
  template <class P>
  void patch(P point, bool attention, Layer layer, at::Tensor& value) const {
    const auto& mask = mask_.of(attention, layer);
    const auto units = value.flatten(2);
    const auto other = cache_.template get<P>(layer).flatten(2);
    check_shape(units, {-1, mask.size(0), mask.size(1)}, hook_name(point, layer), {}, "a mask has the prompt's length");
    if (other.size(0) != 1) check_shape(other, shape_of(units), hook_name(point, layer), {}, "of the other run");
    value = other.expand(units.sizes()).where(mask.to(value.device()), units).view(value.sizes());
  }

  UnitMask mask_;
  Cache cache_;
};

/// `model.run(clean, patch_units(mask, model.run(corrupt, record<hook::attn::z, hook::mlp::post>()).cache))`.
/// throws in the run  NameError for a layer that was not recorded, ShapeError for prompts of another length than the
///                    mask's
template <class Cache>
[[nodiscard]] PatchUnits<Cache> patch_units(UnitMask mask, Cache cache) {
  return {std::move(mask), std::move(cache)};
}

}  // namespace circuit
