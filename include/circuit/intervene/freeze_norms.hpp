#pragma once

#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/intervene/freeze_at.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// An attachment that records the scale of every norm on the residual stream.
[[nodiscard]] inline auto record_norms(InLayers in = {}) {
  return record<hook::ln1::scale, hook::ln2::scale, hook::ln1_post::scale, hook::ln2_post::scale,
                hook::ln_final::scale>(std::move(in));
}

/// An attachment that gives norms the scales they have in another run, also where a run splits head inputs
/// (`patch_edges`). With frozen patterns beside it, attention is a linear map of the stream.
template <class Cache>
  requires(Cache::template holds<hook::ln1::scale> && Cache::template holds<hook::ln_final::scale>)
class FreezeNorms {
 public:
  FreezeNorms(Cache cache, InLayers in) : cache_{std::move(cache)}, in_{std::move(in)} {}

  /// throws  NameError for a layer that was not recorded, ShapeError for a run of another batch or length
  template <HookPoint P>
    requires(Cache::template holds<P>)
  void visit(P point, Layer layer, at::Tensor& value) const {
    if (P::per_layer && !in_.contains(layer)) return;
    const auto& stored = cache_.template get<P>(layer);
    check_shape(stored, shape_of(value), hook_name(point, layer), {}, "the other run has the same batch and length");
    value = stored;
  }
  void visit(hook::ln1::head_scale point, Layer layer, at::Tensor& value) const {
    if (!in_.contains(layer)) return;
    const auto stored = cache_.template get<hook::ln1::scale>(layer).unsqueeze(2);
    check_shape(stored, {value.size(0), value.size(1), 1, 1}, hook_name(point, layer), {},
                "the other run has the same batch and length");
    value = stored.expand(value.sizes());
  }

 private:
  Cache cache_;
  InLayers in_;
};

/// `model.run(tokens, freeze_norms(model.run(clean, record_norms()).cache), patch_edges(...))`
template <class Cache>
[[nodiscard]] FreezeNorms<Cache> freeze_norms(Cache cache, InLayers in = {}) {
  return {std::move(cache), std::move(in)};
}

/// An attachment that records what `constrain` holds.
[[nodiscard]] inline auto record_constraints(InLayers in = {}) {
  return record<hook::attn::pattern, hook::ln1::scale, hook::ln2::scale, hook::ln2::normalized, hook::ln1_post::scale,
                hook::ln2_post::scale, hook::ln_final::scale>(std::move(in));
}

/// Holds layers at another run's patterns and scales, and their MLPs at its inputs, so that a change of the stream
/// passes them along direct paths alone: the residual stream, and values through frozen attention. What an intervention
/// named behind it writes at a module comes on top: `model.run(tokens, constrain(cache, layers), ablate(...))`. The
/// final norm stays live unless `freeze_at<hook::ln_final::scale>(cache)` is named too.
template <class Cache>
[[nodiscard]] auto constrain(Cache cache, InLayers in = {}) {
  return freeze_at<hook::attn::pattern, hook::ln1::scale, hook::ln2::scale, hook::ln2::normalized,
                   hook::ln1_post::scale, hook::ln2_post::scale>(std::move(cache), std::move(in));
}

}  // namespace circuit
