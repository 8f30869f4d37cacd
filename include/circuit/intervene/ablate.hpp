#pragma once

#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/edit_features.hpp"
#include "circuit/intervene/module_values.hpp"

namespace circuit {

/// Sets features to 0 at some positions:
/// `model.run(tokens, ablate(dictionaries, {attn_feature(Layer{5}, Feature{7515})}, on(Position{10})))`.
/// throws  as FeatureEdits
template <class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] auto ablate(const BasicDictionarySet<Kinds...>& dictionaries, const std::vector<FeatureId>& features,
                          const On& where, Errors errors = {}) {
  std::vector<FeatureEdit> edits;
  for (const auto& feature : features) edits.push_back({.feature = feature, .where = where});
  return edit_features(dictionaries, std::move(edits), std::move(errors));
}

/// Sets features to one value, in units of their activation.
/// throws  as FeatureEdits;  ValueError for NaN or infinity
template <class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] auto set_to(double value, const BasicDictionarySet<Kinds...>& dictionaries,
                          const std::vector<FeatureId>& features, const On& where, Errors errors = {}) {
  const auto same = make::full({}, value, at::kDouble);
  check_finite(same, "value");
  std::vector<FeatureEdit> edits;
  for (const auto& feature : features) edits.push_back({.feature = feature, .where = where, .value = same});
  return edit_features(dictionaries, std::move(edits), std::move(errors));
}

/// Multiplies features' activations.
/// throws  as FeatureEdits;  ValueError for NaN or infinity
template <class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] auto scale_by(double factor, const BasicDictionarySet<Kinds...>& dictionaries,
                            const std::vector<FeatureId>& features, const On& where, Errors errors = {}) {
  check_finite(make::full({}, factor, at::kDouble), "factor");
  std::vector<FeatureEdit> edits;
  for (const auto& feature : features) edits.push_back({.feature = feature, .where = where, .scale = factor});
  return edit_features(dictionaries, std::move(edits), std::move(errors));
}

/// Gives features the activations that they have in another run, such as the corrupt one, at the same positions:
/// `patch_from(model.run(corrupt, record_modules()).cache, dictionaries, features, on(S2))`.
/// throws  as FeatureEdits;  NameError when that run's module was not recorded, IndexError for a position it lacks
template <ModuleCache Cache, class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] auto patch_from(const Cache& other, const BasicDictionarySet<Kinds...>& dictionaries,
                              const std::vector<FeatureId>& features, const On& where, Errors errors = {}) {
  std::vector<FeatureEdit> edits;
  for (const auto& id : features) {
    const auto& dictionary = require_feature(dictionaries, id);
    const auto input = input_of(dictionaries, other, id.module, id.layer);
    const auto acts = encode(dictionaries, id.module, id.layer, detail::rows_on(input, where),
                             detail::feature_index({id.feature}, dictionary));
    edits.push_back({.feature = id, .where = where, .value = acts.squeeze(-1)});
  }
  return edit_features(dictionaries, std::move(edits), std::move(errors));
}

}  // namespace circuit
