#pragma once

#include <cstdint>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/model/components.hpp"

namespace circuit {

/// An attachment under which chosen edges between components carry what the sender writes in another run: the receiver
/// reads the stream with that sender's current part replaced, every other reader reads it as it is. What a sender
/// writes is computed anew from what it reads, so a change flows on through every edge that is not cut.
template <Architecture A>
class PatchEdges {
 public:
  /// cut    [senders, receivers] bool: the edges that carry the other run
  /// other  [senders, batch or 1, pos, d_model]: `sender_writes` of that run, or a mean, or zeros
  /// so_far  of a run that goes on at some layer (`run_from`): what the senders below it wrote, as of `writes`
  /// throws  ShapeError  when these do not have the model's components
  PatchEdges(const HookedTransformer<A>& model, const at::Tensor& cut, at::Tensor other, const at::Tensor& so_far = {});

  void visit(hook::q_input /*point*/, Layer layer, at::Tensor& value) { patch(components_.first_query(layer), value); }
  void visit(hook::k_input /*point*/, Layer layer, at::Tensor& value) { patch(components_.first_key(layer), value); }
  void visit(hook::v_input /*point*/, Layer layer, at::Tensor& value) { patch(components_.first_value(layer), value); }
  void visit(hook::mlp_in /*point*/, Layer layer, at::Tensor& value) { patch(components_.mlp_in(layer), value); }
  void visit(hook::resid_post /*point*/, Layer layer, at::Tensor& value) {
    if (layer.value + 1 == components_.n_layers) patch(components_.logits(), value);
  }

  template <HookPoint P>
    requires AttachedTo<SenderRecorder<A>, P>
  void visit(P point, Layer layer, at::Tensor& value) {
    current_.visit(point, layer, value);
  }

  /// What the senders so far wrote in this run.  [senders so far, batch, pos, d_model]
  [[nodiscard]] at::Tensor writes() const { return current_.writes(); }

 private:
  /// value  [batch, pos, head, d_model] for the receivers from `first` on, or [batch, pos, d_model] for one
  void patch(std::int64_t first, at::Tensor& value) const;

  Components components_;
  at::Tensor cut_;  ///< [receivers, senders], 1 or 0
  at::Tensor other_;
  SenderRecorder<A> current_;
};

/// `model.run(clean, patch_edges(model, cut, sender_writes(model, corrupt)))`
template <Architecture A>
[[nodiscard]] PatchEdges<A> patch_edges(const HookedTransformer<A>& model, const at::Tensor& cut, at::Tensor other) {
  return {model, cut, std::move(other)};
}

/// The same with every edge cut but the kept ones.
template <Architecture A>
[[nodiscard]] PatchEdges<A> keep_only_edges(const HookedTransformer<A>& model, const at::Tensor& kept, at::Tensor other,
                                            const at::Tensor& so_far = {}) {
  const auto components = Components::of(model);
  check_edges(kept, components, "kept edges");
  return {model, components.edge_mask().logical_and(kept.logical_not()), std::move(other), so_far};
}

}  // namespace circuit

template <circuit::Architecture A>
circuit::PatchEdges<A>::PatchEdges(const HookedTransformer<A>& model, const at::Tensor& cut, at::Tensor other,
                                   const at::Tensor& so_far)
    : components_{Components::of(model)}, other_{std::move(other)}, current_{model, so_far} {
  check_edges(cut, components_, "cut edges");
  check_shape(other_, {components_.senders(), -1, -1, model.config().d_model}, "the other run's writes", {},
              "sender_writes gives them");
  cut_ = cut.t().to(other_.options());
}

template <circuit::Architecture A>
void circuit::PatchEdges<A>::patch(std::int64_t first, at::Tensor& value) const {
  const auto readers = value.dim() == 4 ? value.size(2) : 1;
  const auto before = components_.before(first);
  const auto cut = cut_.narrow(0, first, readers).narrow(1, 0, before);
  if (!cut.any().template item<bool>()) return;
  const auto current = current_.writes();
  if (other_.size(1) != 1) check_shape(other_[0], shape_of(current[0]), "the other run's writes", {}, "same prompts");
  const auto change = other_.narrow(0, 0, before).sub(current.narrow(0, 0, before));
  auto shape = shape_of(change);
  shape.front() = readers;
  const auto moved = cut.matmul(change.flatten(1)).view(shape);  // [readers, batch, pos, d_model]
  value = value.add(value.dim() == 4 ? moved.permute({1, 2, 0, 3}) : moved[0]);
}
