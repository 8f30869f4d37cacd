#pragma once

#include <concepts>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/search/mask_run.hpp"

namespace circuit::detail {

/// As AtStrength, of a model's own units, held where they are and not behind what they write.
class UnitsAtStrength {
 public:
  using Places = MaskPlaces;

  UnitsAtStrength(const Places& places, at::Tensor strength, at::Tensor unkept_embedding)
      : places_{&places}, strength_{std::move(strength)}, unkept_embedding_{std::move(unkept_embedding)} {}

  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) {
    hold_embedding(unkept_embedding_, strength_, value, embedding, embedding_change);
  }
  void visit(hook::attn::z /*point*/, Layer layer, at::Tensor& value) { hold(Module::attn, layer, value); }
  void visit(hook::mlp::post /*point*/, Layer layer, at::Tensor& value) { hold(Module::mlp, layer, value); }

  at::Tensor embedding{};         ///< [batch, pos, d_model], the graph's leaf
  at::Tensor embedding_change{};  ///< [batch, pos, d_model]; undefined where embeddings are no nodes
  std::vector<MaskPoint> points{};

 private:
  void hold(Module module, Layer layer, at::Tensor& value) {
    const auto& unkept = places_->at({module, layer}).activations;
    const auto change = value.flatten(2).sub(unkept);
    points.push_back({module, layer, change.detach(), unkept.add(change.mul(strength_))});
    value = points.back().output.view(value.sizes());
  }

  const Places* places_;
  at::Tensor strength_;
  at::Tensor unkept_embedding_;
};

/// The units' values in a run where none is kept.
template <class Cache>
  requires(Cache::template holds<hook::attn::z> && Cache::template holds<hook::mlp::post>)
[[nodiscard]] UnitsAtStrength::Places unit_places(const Cache& reference, Outside outside) {
  UnitsAtStrength::Places places;
  reference.for_each([&]<class P>(P, Layer layer, const at::Tensor& value) {
    const auto units = value.flatten(2);
    places[{std::same_as<P, hook::attn::z> ? Module::attn : Module::mlp, layer}].activations =
        outside == Outside::reference ? units : units.mean(0, /*keepdim=*/true);
  });
  return places;
}

}  // namespace circuit::detail
