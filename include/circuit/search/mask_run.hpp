#pragma once

#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/search/mask_places.hpp"

namespace circuit::detail {

/// What one run at one strength left for the backward pass.
struct MaskPoint {
  Module module{};
  Layer layer{};
  at::Tensor change{};  ///< [batch, pos, features]  own activations less the reference's, as multiples of decoder rows
  at::Tensor output{};  ///< [batch, pos, d_out]  in the gradient graph
};

/// Holds token embeddings at one strength, and begins the gradient graph at them.
/// unkept    where no node is kept; undefined: embeddings are clean
/// leaf      gets what the graph begins with, `change` what they are less `unkept`
inline void hold_embedding(const at::Tensor& unkept, const at::Tensor& strength, at::Tensor& value, at::Tensor& leaf,
                           at::Tensor& change) {
  if (unkept.defined()) {
    change = value.sub(unkept);
    value = unkept.add(change.mul(strength));
  }
  value = value.detach().requires_grad_(true);
  leaf = value;
}

/// An attachment that holds every node at one strength.
template <class Set>
class AtStrength {
 public:
  static constexpr bool acts_at_modules = true;

  using Places = MaskPlaces;

  /// strength  [pos, 1]   unkept_embedding [batch or 1, pos, d_model] where no node is kept; undefined: embeddings are
  /// clean
  AtStrength(const Set& set, const Places& places, at::Tensor strength, at::Tensor unkept_embedding)
      : modules_{set},
        places_{&places},
        strength_{std::move(strength)},
        unkept_embedding_{std::move(unkept_embedding)} {}

  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) {
    hold_embedding(unkept_embedding_, strength_, value, embedding, embedding_change);
  }

  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    modules_.visit(point, layer, value, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      const auto& here = places_->at({module, l});
      auto activations = dense_writes(modules_.dictionaries(), module, l, input);
      auto change = output;
      if constexpr (!describes_exactly<Set>) {
        change = described_by(*dictionary_of(modules_.dictionaries(), module, l), activations);
      }
      change = change.sub(here.described);
      if (here.rest_change.defined()) change = change.add(here.rest_change);
      auto base = here.rest.defined() ? here.described.add(here.rest) : here.described;
      if constexpr (!describes_exactly<Set>) {
        base = with_own(std::move(base), *dictionary_of(modules_.dictionaries(), module, l), input);
      }
      points.push_back({module, l, activations.detach().sub(here.activations), base.add(change.mul(strength_))});
      return points.back().output;
    });
  }

  at::Tensor embedding{};         ///< [batch, pos, d_model], the graph's leaf
  at::Tensor embedding_change{};  ///< [batch, pos, d_model]; undefined where embeddings are no nodes
  std::vector<MaskPoint> points{};

 private:
  AtModules<Set> modules_;
  const Places* places_;
  at::Tensor strength_;
  at::Tensor unkept_embedding_;
};

}  // namespace circuit::detail
