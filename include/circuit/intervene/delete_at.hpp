#pragma once

#include <cassert>
#include <concepts>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/intervene/edit_features.hpp"
#include "circuit/intervene/feature.hpp"
#include "circuit/intervene/replace.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// A point of the residual stream.
template <class P>
concept ResidualPoint =
    std::same_as<P, hook::resid_pre> || std::same_as<P, hook::resid_mid> || std::same_as<P, hook::resid_post>;

namespace detail {

/// throws  ConfigError  for hook_resid_mid of an architecture that has none
template <ResidualPoint P, Architecture A>
void check_residual_point(Layer layer) {
  if constexpr (std::same_as<P, hook::resid_mid> && (A::Wiring::parallel || !has_mlp<A>)) {
    throw ConfigError{{.tensor = hook_name(P{}, layer), .problem = "this architecture has no such point"}};
  }
}

}  // namespace detail

/// How much of a feature is deleted.
template <class A>
concept DeletedAmount = requires(const A& a, const at::Tensor& activation) {
  { a.amount(activation) } -> std::same_as<at::Tensor>;
};

namespace amount {

/// Each prompt's own activation.
struct PerPrompt {
  [[nodiscard]] at::Tensor amount(const at::Tensor& activation) const { return activation; }
};

/// The batch's mean activation, the same in every prompt.
struct BatchMean {
  [[nodiscard]] at::Tensor amount(const at::Tensor& activation) const {
    return activation.mean(0, /*keepdim=*/true).expand_as(activation);
  }
};

}  // namespace amount

/// What features of one module write into the residual stream per unit of activation: decoder rows, those of a hook_z
/// dictionary through W_O.
/// return  [n, d_model]
/// throws  NameError, IndexError, ConfigError where a post-norm makes what they write differ by prompt and position
template <Architecture A, class... Kinds>
[[nodiscard]] at::Tensor write_vectors(const HookedTransformer<A>& model,
                                       const BasicDictionarySet<Kinds...>& dictionaries, Module module, Layer layer,
                                       const std::vector<Feature>& features);

/// An attachment that subtracts features from the residual stream at one later point ("grab and delete"): how much of
/// the metric passes through the features' direct effect on what reads there. The activation is the run's own.
template <ResidualPoint P, class Set, DeletedAmount Amount>
class DeleteAt {
 public:
  /// throws  as delete_at
  template <Architecture A>
  DeleteAt(Layer layer, const HookedTransformer<A>& model, Set dictionaries, const std::vector<FeatureId>& features,
           On where, Amount amount);

  template <class Point>
    requires(ModulePoint<Point> || std::same_as<Point, P>)
  void visit(Point point, Layer layer, at::Tensor& value) {
    if constexpr (ModulePoint<Point>) {
      modules_.visit(point, layer, value,
                     [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& /*output*/) {
                       grab(module, l, input);
                       return at::Tensor{};
                     });
    }
    if constexpr (std::same_as<Point, P>) {
      if (layer == layer_) remove(value);
    }
  }

 private:
  /// Features of one module.
  struct Group {
    at::Tensor features;       // [n] int64
    at::Tensor write_vectors;  // [n, d_model]
    at::Tensor grabbed{};      // [batch, positions, n], of the run at hand
  };

  void grab(Module module, Layer layer, const at::Tensor& input) {
    const auto found = groups_.find({module, layer});
    if (found == groups_.end()) return;
    found->second.grabbed =
        encode(modules_.dictionaries(), module, layer, detail::rows_on(input, where_), found->second.features);
  }
  void remove(at::Tensor& resid) {
    for (auto& [place, group] : groups_) {
      assert(group.grabbed.defined());
      const auto taken = amount_.amount(std::exchange(group.grabbed, {})).matmul(group.write_vectors);
      resid = detail::add_on(resid, where_, taken.neg());
    }
  }

  Layer layer_;
  AtModules<Set> modules_;
  On where_;
  [[no_unique_address]] Amount amount_;
  std::map<std::pair<Module, Layer>, Group> groups_;
};

/// `model.run(tokens, delete_at<hook::resid_pre>(Layer{8}, model, dictionaries, features, on(S2)))`.
/// throws  NameError   for a layer without a dictionary
/// throws  IndexError  for a feature or layer out of range
/// throws  ValueError  for no features, one named twice, or one that is written only after the point
/// throws  ConfigError  for hook_resid_mid of a model that has none, and as write_vectors
template <ResidualPoint P, Architecture A, class... Kinds, DeletedAmount Amount = amount::PerPrompt>
[[nodiscard]] DeleteAt<P, BasicDictionarySet<Kinds...>, Amount> delete_at(
    Layer layer, const HookedTransformer<A>& model, const BasicDictionarySet<Kinds...>& dictionaries,
    const std::vector<FeatureId>& features, const On& where, Amount amount = {}) {
  return {layer, model, dictionaries, features, where, std::move(amount)};
}

/// An attachment that adds a fixed multiple of what a feature writes to the residual stream at one point, earlier or
/// later than the feature's own.
///
/// throws  NameError, IndexError, ValueError (NaN or infinity)
/// throws  ConfigError  for hook_resid_mid of a model that has none, and as write_vectors
template <ResidualPoint P, Architecture A, class... Kinds>
[[nodiscard]] auto add_at(Layer layer, const HookedTransformer<A>& model,
                          const BasicDictionarySet<Kinds...>& dictionaries, const FeatureId& feature, double scale,
                          const On& where) {
  check_index(layer, model.config().n_layers);
  detail::check_residual_point<P, A>(layer);
  check_finite(make::full({}, scale, at::kDouble), "scale");
  const auto added =
      write_vectors(model, dictionaries, feature.module, feature.layer, {feature.feature}).squeeze(0).mul(scale);
  return replace<P>(with::Plus{added},
                    {.layers = {layer}, .positions = where.positions, .position_of = where.position_of});
}

}  // namespace circuit

namespace circuit::detail {

/// Place of a point along the residual stream.
template <ResidualPoint P>
[[nodiscard]] constexpr std::int32_t residual_order(Layer layer) {
  if constexpr (std::same_as<P, hook::resid_pre>) return 3 * layer.value;
  if constexpr (std::same_as<P, hook::resid_mid>) return 3 * layer.value + 1;
  return 3 * layer.value + 2;
}
/// The first point that holds what a module wrote.
[[nodiscard]] constexpr std::int32_t residual_order(const FeatureId& id) {
  if (id.module == Module::stream) return 3 * id.layer.value - 1;  // hook_resid_post of the layer before
  return id.module == Module::attn ? residual_order<hook::resid_mid>(id.layer)
                                   : residual_order<hook::resid_post>(id.layer);
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, class... Kinds>
at::Tensor write_vectors(const HookedTransformer<A>& model, const BasicDictionarySet<Kinds...>& dictionaries,
                         Module module, Layer layer, const std::vector<Feature>& features) {
  for (const auto feature : features) require_feature(dictionaries, {module, layer, feature});
  check_index(layer, model.config().n_layers + (module == Module::stream ? 1 : 0));
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  if (dictionary.later_layers() > 0) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = "W_later",
                       .problem = "its features write into several layers, so no one vector is what they write",
                       .hint = "ablate them instead"}};
  }
  if (dictionary.input_norm.scales_output()) {
    throw ConfigError{
        {.file = dictionary.name,
         .tensor = "input_norm",
         .problem = "what its features write is scaled to their input, so it differs by prompt and position",
         .hint = "ablate them instead"}};
  }
  const auto rows = dictionary.decoder_rows(detail::feature_index(features, dictionary));
  if (module != Module::attn || dictionaries.attn_site(layer) == AttentionSite::attn_out) return rows;
  if constexpr (A::Wiring::post_norms) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = hook_name(hook::attn::z{}, layer),
                       .problem = "what its features write passes a post-norm, so it differs by prompt and position",
                       .hint = "use a dictionary on hook_attn_out"}};
  }
  return product(rows, model.weights().blocks[static_cast<std::size_t>(layer.value)].attn.W_O);
}

template <ResidualPoint P, class Set, DeletedAmount Amount>
template <Architecture A>
DeleteAt<P, Set, Amount>::DeleteAt(Layer layer, const HookedTransformer<A>& model, Set dictionaries,
                                   const std::vector<FeatureId>& features, On where, Amount amount)
    : layer_{layer}, modules_{std::move(dictionaries)}, where_{std::move(where)}, amount_{std::move(amount)} {
  check_index(layer, model.config().n_layers);
  detail::check_residual_point<P, A>(layer);
  if (features.empty()) throw ValueError{{.tensor = "features", .expected = "at least one", .got = "none"}};
  std::map<std::pair<Module, Layer>, std::vector<Feature>> by_module;
  std::set<FeatureId> seen;
  for (const auto& id : features) {
    require_feature(modules_.dictionaries(), id);
    if (!seen.insert(id).second) throw ValueError{{.tensor = to_string(id), .problem = "is named twice"}};
    if (detail::residual_order<P>(layer) < detail::residual_order(id)) {
      throw ValueError{{.tensor = hook_name(P{}, layer),
                        .problem = "lies before the feature is written",
                        .expected = "a point after " + to_string(id)}};
    }
    by_module[{id.module, id.layer}].push_back(id.feature);
  }
  for (const auto& [place, ids] : by_module) {
    const auto& [module, at_layer] = place;
    groups_.emplace(place, Group{detail::feature_index(ids, *dictionary_of(modules_.dictionaries(), module, at_layer)),
                                 circuit::write_vectors(model, modules_.dictionaries(), module, at_layer, ids)});
  }
}

}  // namespace circuit
