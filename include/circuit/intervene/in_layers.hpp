#pragma once

#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/model/attach.hpp"

namespace circuit {

/// Layers from `first` to `last`, both included.
struct LayerRange {
  Layer first{0};
  Layer last{0};

  [[nodiscard]] bool contains(Layer layer) const { return first <= layer && layer <= last; }
  /// throws  ValueError  for a range that holds no layer
  void check() const {
    if (first.value >= 0 && first <= last) return;
    throw ValueError{{.tensor = "layers",
                      .expected = "the first not behind the last",
                      .got = std::to_string(first.value) + " to " + std::to_string(last.value)}};
  }
};

/// An attachment that shows another the layers of a range alone; points without a layer pass always. For one that acts
/// on modules with dictionaries a layer is the module's: the stream before layer 3 belongs to layer 3, and the one behind
/// the last layer to a layer of its own. It suits those that treat each layer by itself, not one that follows the run as
/// a whole, such as `patch_edges`.
template <class A>
class InRange {
 public:
  /// throws  ValueError  for a range that holds no layer
  InRange(LayerRange range, A attached) : range_{range}, attached_{std::move(attached)} { range_.check(); }

  template <HookPoint P>
    requires AttachedTo<A, P>
  void visit(P point, Layer layer, at::Tensor& value) {
    if (!P::per_layer || range_.contains(layer_of(point, layer))) attached_.visit(point, layer, value);
  }

 private:
  template <HookPoint P>
  [[nodiscard]] static constexpr Layer layer_of(P point, Layer layer) {
    if constexpr (ActsAtModules<A> && ModulePoint<P>) return module_layer(point, layer);
    return layer;
  }

  LayerRange range_;
  A attached_;
};

/// `model.run(tokens, in_layers({Layer{3}, Layer{5}}, splice(dictionaries, error::Dropped{})))`.
template <class A>
[[nodiscard]] InRange<A> in_layers(LayerRange range, A attached) {
  return {range, std::move(attached)};
}

}  // namespace circuit
