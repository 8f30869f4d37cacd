#pragma once

#include <concepts>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// An attachment that gives Points the values of another run.
template <class Cache, HookPoint... Points>
class FreezeAt {
 public:
  FreezeAt(Cache cache, InLayers in) : cache_{std::move(cache)}, in_{std::move(in)} {}

  /// throws  NameError for a layer that was not recorded, ShapeError for a run of another batch or length
  template <HookPoint P>
    requires(std::same_as<P, Points> || ...)
  void visit(P point, Layer layer, at::Tensor& value) const {
    if (P::per_layer && !in_.contains(layer)) return;
    const auto& stored = cache_.template get<P>(layer);
    check_shape(stored, shape_of(value), hook_name(point, layer), {}, "the other run has the same batch and length");
    value = stored;
  }

 private:
  Cache cache_;
  InLayers in_;
};

/// Clean prompts with another run's attention patterns:
/// `model.run(clean, freeze_at<hook::attn::pattern>(model.run(corrupt, record<hook::attn::pattern>()).cache))`.
template <HookPoint... Points, class Cache>
  requires(Cache::template holds<Points> && ...)
[[nodiscard]] FreezeAt<Cache, Points...> freeze_at(Cache cache, InLayers in = {}) {
  return {std::move(cache), std::move(in)};
}

}  // namespace circuit
