#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/intervene/edit_features.hpp"
#include "circuit/intervene/feature.hpp"
#include "circuit/intervene/module_values.hpp"

namespace circuit {

/// A feature at one position.
struct FeatureAt {
  FeatureId feature{};
  Position position{};

  friend constexpr auto operator<=>(const FeatureAt&, const FeatureAt&) = default;
};

/// A module's error at one position.
struct ErrorAt {
  Module module{};
  Layer layer{};
  Position position{};

  friend constexpr auto operator<=>(const ErrorAt&, const ErrorAt&) = default;
};

/// The nodes that keep the values of the run at hand.
struct KeptNodes {
  std::vector<FeatureAt> features{};
  std::vector<ErrorAt> errors{};
};

/// What becomes of nodes outside the circuit.
enum class Outside : std::uint8_t {
  reference_mean,  ///< the reference batch's mean at the same position
  reference,       ///< the reference's own value, prompt by prompt: what resampling from corrupt prompts is
  zero,
  left,  ///< they stay as in the run at hand
};

struct KeepCircuitOptions {
  Outside features = Outside::reference_mean;
  Outside errors = Outside::reference_mean;
  Layer first_layer{0};  ///< layers before it are left alone
  /// What kept errors hold, such as another run's; by default the run's own.
  std::optional<ErrorTerms> kept_errors{};
};

/// An attachment that runs the model on a circuit alone: at every module with a dictionary, features and errors outside
/// the circuit are replaced. Kept errors are the run's own (what the module computes on the replaced stream, minus the
/// reconstruction of that) unless others are given. A skip path is no node: it passes on the stream as it is. No dense
/// activations are formed beyond one module's encoding.
template <class Set>
class CircuitOnly {
 public:
  /// throws  as keep_circuit
  template <ModuleCache Cache>
  CircuitOnly(Set dictionaries, const KeptNodes& kept, const Cache& reference, KeepCircuitOptions options);

  /// throws  ShapeError for a run of another length than the reference, NameError for a module that the reference lacks
  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    if (layer < options_.first_layer) return;
    modules_.visit(point, layer, value, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      return replaced(place(module, l), module, l, input, output);
    });
  }

 private:
  /// What one module needs.
  struct Place {
    at::Tensor features{};                   // [n] int64: kept at one position at least
    std::vector<at::Tensor> decoder_rows{};  // [n, d_out] of the feature's own layer and of those after it
    at::Tensor kept{};                       // [pos, n]  1 where kept, 0 elsewhere
    // These three also with prompts in front, where each has a reference of its own.
    at::Tensor base_acts{};   // [pos, n]  the features' activations outside the circuit
    at::Tensor base{};        // [pos, d_out]  what all features write outside the circuit, with the output bias
    at::Tensor error{};       // [pos, d_out]  the error outside the circuit; undefined where it is left
    at::Tensor kept_error{};  // [pos, 1]  1 where the error is kept; undefined for nowhere
  };

  [[nodiscard]] Place make_place(const KeptNodes& kept, Module module, Layer layer, const at::Tensor& input,
                                 const at::Tensor& output);
  void keep_features(Place& here, const KeptNodes& kept, Module module, Layer layer, const at::Tensor& input) const;
  [[nodiscard]] const Place& place(Module module, Layer layer) const {
    if (const auto found = places_.find({module, layer}); found != places_.end()) return found->second;
    throw NameError{{.tensor = std::string{name(module)} + '.' + std::to_string(layer.value),
                     .problem = "the reference run did not record this module"}};
  }
  [[nodiscard]] at::Tensor replaced(const Place& here, Module module, Layer layer, const at::Tensor& input,
                                    const at::Tensor& output);

  AtModules<Set> modules_;
  LaterWrites reconstructed_;  // by cross-layer features
  LaterWrites kept_;           // by kept ones among them, more than outside the circuit
  KeepCircuitOptions options_;
  std::map<std::pair<Module, Layer>, Place> places_;
};

/// `model.run(clean, keep_circuit(dictionaries, kept, model.run(corrupt, record_modules()).cache))`.
/// reference  a run of prompts of the same length; its batch may differ, except for Outside::reference
/// throws     NameError  for a node of a layer without a dictionary, or that the reference did not record
/// throws     IndexError for a feature or position out of range
template <ModuleCache Cache, class... Kinds>
[[nodiscard]] CircuitOnly<BasicDictionarySet<Kinds...>> keep_circuit(const BasicDictionarySet<Kinds...>& dictionaries,
                                                                     const KeptNodes& kept, const Cache& reference,
                                                                     const KeepCircuitOptions& options = {}) {
  return {dictionaries, kept, reference, options};
}

}  // namespace circuit

namespace circuit {

template <class Set>
template <ModuleCache Cache>
CircuitOnly<Set>::CircuitOnly(Set dictionaries, const KeptNodes& kept, const Cache& reference,
                              KeepCircuitOptions options)
    : modules_{std::move(dictionaries)}, options_{options} {
  const c10::AutoGradMode no_gradient{false};
  for_each_module(modules_.dictionaries(), reference,
                  [&](Module module, Layer layer, const at::Tensor& input, const at::Tensor& output) {
                    places_.emplace(std::pair{module, layer}, make_place(kept, module, layer, input, output));
                  });
  for (const auto& node : kept.features) {
    require_feature(modules_.dictionaries(), node.feature);
    (void)place(node.feature.module, node.feature.layer);
  }
  for (const auto& node : kept.errors) (void)place(node.module, node.layer);
}

template <class Set>
auto CircuitOnly<Set>::make_place(const KeptNodes& kept, Module module, Layer layer, const at::Tensor& input,
                                  const at::Tensor& output) -> Place {
  const auto& dictionary = *dictionary_of(modules_.dictionaries(), module, layer);
  const auto length = input.size(1);
  Place here;
  if (dictionary.later_layers() > 0 && layer < options_.first_layer) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = "first_layer",
                       .problem = "lies behind cross-layer features that write into layers after it",
                       .expected = "at most " + std::to_string(layer.value),
                       .got = std::to_string(options_.first_layer.value)}};
  }
  const auto reconstruction = reconstruct(modules_.dictionaries(), module, layer, input, reconstructed_);
  const auto none = make::zeros({length, dictionary.d_out()}, dictionary.options());
  if (options_.errors == Outside::reference_mean) here.error = output.sub(reconstruction).mean(0);
  if (options_.errors == Outside::reference) here.error = output.sub(reconstruction);
  if (options_.errors == Outside::zero) here.error = none;
  const auto by_features = dictionary.has_skip() ? reconstruction.sub(dictionary.skip(input)) : reconstruction;
  if (options_.features == Outside::reference_mean) here.base = by_features.mean(0);
  if (options_.features == Outside::reference) here.base = by_features;
  if (options_.features == Outside::zero) here.base = dictionary.b_out.defined() ? none.add(dictionary.b_out) : none;

  for (const auto& node : kept.errors) {
    if (node.module != module || node.layer != layer) continue;
    check_index(node.position, length);
    if (!here.kept_error.defined()) here.kept_error = make::zeros({length, 1}, dictionary.options());
    here.kept_error[node.position.value].fill_(1);
  }
  if (options_.features != Outside::left) keep_features(here, kept, module, layer, input);
  return here;
}

template <class Set>
void CircuitOnly<Set>::keep_features(Place& here, const KeptNodes& kept, Module module, Layer layer,
                                     const at::Tensor& input) const {
  std::map<Feature, std::set<Position>> positions;
  for (const auto& node : kept.features) {
    if (node.feature.module != module || node.feature.layer != layer) continue;
    check_index(node.position, input.size(1));
    positions[node.feature.feature].insert(node.position);
  }
  if (positions.empty()) return;
  const auto& dictionary = *dictionary_of(modules_.dictionaries(), module, layer);
  std::vector<Feature> features;
  std::vector<at::Tensor> masks;
  for (const auto& [feature, where] : positions) {
    features.push_back(feature);
    auto mask = make::zeros({input.size(1)}, dictionary.options());
    for (const auto position : where) mask[position.value].fill_(1);
    masks.push_back(std::move(mask));
  }
  here.features = detail::feature_index(features, dictionary);
  for (std::int64_t ahead = 0; ahead <= dictionary.later_layers(); ++ahead) {
    here.decoder_rows.push_back(dictionary.decoder_rows(here.features, ahead));
  }
  here.kept = make::stack(masks, -1);
  if (options_.features == Outside::zero) {
    here.base_acts = here.kept.mul(0);
  } else {
    here.base_acts = encode(modules_.dictionaries(), module, layer, input, here.features);
    if (options_.features == Outside::reference_mean) here.base_acts = here.base_acts.mean(0);
  }
}

template <class Set>
at::Tensor CircuitOnly<Set>::replaced(const Place& here, Module module, Layer layer, const at::Tensor& input,
                                      const at::Tensor& output) {
  const auto& dictionaries = modules_.dictionaries();
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  const bool features_left = options_.features == Outside::left;
  const bool errors_left = options_.errors == Outside::left;
  if (features_left && errors_left) return {};
  for (const auto& fixed : {here.base, here.error}) {
    if (!fixed.defined()) continue;
    check_shape(fixed, fixed.dim() == 3 ? shape_of(output) : shape_of(output[0]), "reference", {},
                "the reference run has prompts of the same length, and as many where each has its own");
  }
  at::Tensor reconstruction;
  const bool cross_layer = dictionary.later_layers() > 0;  // later errors need it
  if (features_left || errors_left || cross_layer || (here.kept_error.defined() && !options_.kept_errors)) {
    reconstruction = reconstruct(dictionaries, module, layer, input, reconstructed_);
  }

  auto result = features_left ? reconstruction : here.base.expand_as(output);
  if (!features_left && dictionary.has_skip()) result = result.add(dictionary.skip(input));
  if (module == Module::mlp) {
    const auto earlier = kept_.take(layer);
    if (earlier.defined()) result = result.add(earlier);
  }
  if (here.features.defined()) {
    const auto acts = encode(dictionaries, module, layer, input, here.features);
    const auto more = acts.sub(here.base_acts).mul(here.kept);
    result = result.add(more.matmul(here.decoder_rows[0]));
    for (std::size_t ahead = 1; ahead < here.decoder_rows.size(); ++ahead) {
      kept_.add(layer, static_cast<std::int64_t>(ahead), more.matmul(here.decoder_rows[ahead]));
    }
  }
  if (errors_left) return result.add(output.sub(reconstruction));
  if (!here.kept_error.defined()) return result.add(here.error);
  const auto own = options_.kept_errors ? options_.kept_errors->get(module, layer) : output.sub(reconstruction);
  check_shape(own, shape_of(output), "kept_errors", {}, "they are of as many prompts of the same length");
  return result.add(here.error).add(own.sub(here.error).mul(here.kept_error));
}

}  // namespace circuit
