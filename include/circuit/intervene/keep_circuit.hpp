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

/// What nodes hold outside a circuit, made once of a reference run for any number of circuits.
template <class Set>
struct OutsideValues {
  struct Place {
    at::Tensor input{};  ///< [batch, pos, d_in]  what the dictionary read
    at::Tensor base{};   ///< [pos, d_out]  what all features write, with the output bias unless a normalisation scales
                         ///< it; undefined where they are left
    at::Tensor error{};  ///< [pos, d_out]  undefined where errors are left
    // base and error have prompts in front where each has a reference of its own.
  };

  Set dictionaries;
  KeepCircuitOptions options{};
  std::map<std::pair<Module, Layer>, Place> places{};

  /// throws  NameError for a module that the reference run did not record
  [[nodiscard]] const Place& place(Module module, Layer layer) const {
    if (const auto found = places.find({module, layer}); found != places.end()) return found->second;
    throw NameError{{.tensor = std::string{name(module)} + '.' + std::to_string(layer.value),
                     .problem = "the reference run did not record this module"}};
  }
};

/// reference  a run of prompts of the length to come; its batch may differ, except for Outside::reference
/// throws     ConfigError for a first layer behind cross-layer features that write into it or beyond
template <ModuleCache Cache, EncodesDensely Set>
[[nodiscard]] OutsideValues<Set> outside_values(const Set& dictionaries, const Cache& reference,
                                                const KeepCircuitOptions& options = {});

/// An attachment that runs the model on a circuit alone: at every module with a dictionary, features and errors outside
/// the circuit are replaced. Kept errors are the run's own (what the module computes on the replaced stream, minus the
/// reconstruction of that) unless others are given. A skip path is no node: it passes on the stream as it is, and so do
/// scale and mean of a dictionary's own normalisation. No dense activations are formed beyond one module's encoding.
template <class Set>
class CircuitOnly {
 public:
  static constexpr bool acts_at_modules = true;

  /// throws  as keep_circuit
  CircuitOnly(OutsideValues<Set> outside, const KeptNodes& kept);

  /// throws  ShapeError for a run of another length than the reference, NameError for a module that the reference lacks
  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    if (module_layer(point, layer) < outside_.options.first_layer) return;
    modules_.visit(point, layer, value, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      return replaced(module, l, input, output);
    });
  }

 private:
  /// What a module keeps.
  struct Kept {
    at::Tensor features{};                   // [n] int64: kept at one position at least
    std::vector<at::Tensor> decoder_rows{};  // [n, d_out] of the feature's own layer and of those after it
    at::Tensor mask{};                       // [pos, n]  1 where kept, 0 elsewhere
    at::Tensor base_acts{};  // [pos, n]  the features' activations outside the circuit, as multiples of decoder rows;
                             // or with prompts in front
    at::Tensor error{};      // [pos, 1]  1 where the error is kept; undefined for nowhere
  };

  void keep_features(const std::map<Feature, std::set<Position>>& positions, Module module, Layer layer);
  void keep_error(const ErrorAt& node);
  [[nodiscard]] at::Tensor replaced(Module module, Layer layer, const at::Tensor& input, const at::Tensor& output);

  OutsideValues<Set> outside_;
  AtModules<Set> modules_;
  LaterWrites reconstructed_;  // by cross-layer features
  LaterWrites kept_writes_;    // by kept ones among them, more than outside the circuit
  std::map<std::pair<Module, Layer>, Kept> kept_;
};

/// One of many circuits in the same surroundings: `model.run(clean, keep_circuit(outside, kept))`.
/// throws     NameError  for a node of a layer without a dictionary, or that the reference did not record
/// throws     IndexError for a feature or position out of range
template <class Set>
[[nodiscard]] CircuitOnly<Set> keep_circuit(OutsideValues<Set> outside, const KeptNodes& kept) {
  return {std::move(outside), kept};
}

/// `model.run(clean, keep_circuit(dictionaries, kept, model.run(corrupt, record_modules()).cache))`.
/// throws     as that, and as outside_values does
template <ModuleCache Cache, EncodesDensely Set>
[[nodiscard]] CircuitOnly<Set> keep_circuit(const Set& dictionaries, const KeptNodes& kept, const Cache& reference,
                                            const KeepCircuitOptions& options = {}) {
  return {outside_values(dictionaries, reference, options), kept};
}

}  // namespace circuit

namespace circuit::detail {

/// What a dictionary that scales its output to its input writes whatever its features do, which is the run's own;
/// undefined for every other.
[[nodiscard]] inline at::Tensor scaled_constant(const DictionaryWeights& dictionary, const at::Tensor& input) {
  if (!dictionary.input_norm.scales_output()) return {};
  return dictionary.output_constant(dictionary.input_norm.held(input));
}

template <class Set>
[[nodiscard]] typename OutsideValues<Set>::Place outside_place(const Set& dictionaries,
                                                               const KeepCircuitOptions& options, Module module,
                                                               Layer layer, const at::Tensor& input,
                                                               const at::Tensor& output, LaterWrites& later) {
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  if (dictionary.later_layers() > 0 && layer < options.first_layer) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = "first_layer",
                       .problem = "lies behind cross-layer features that write into layers after it",
                       .expected = "at most " + std::to_string(layer.value),
                       .got = std::to_string(options.first_layer.value)}};
  }
  const auto reconstruction = reconstruct(dictionaries, module, layer, input, later);
  const auto none = make::zeros({input.size(1), dictionary.d_out()}, dictionary.options());
  typename OutsideValues<Set>::Place here{.input = input};
  if (options.errors == Outside::reference_mean) here.error = output.sub(reconstruction).mean(0);
  if (options.errors == Outside::reference) here.error = output.sub(reconstruction);
  if (options.errors == Outside::zero) here.error = none;
  auto by_features = dictionary.has_skip() ? reconstruction.sub(dictionary.skip(input)) : reconstruction;
  const auto scaled = scaled_constant(dictionary, input);
  if (scaled.defined()) by_features = by_features.sub(scaled);
  if (options.features == Outside::reference_mean) here.base = by_features.mean(0);
  if (options.features == Outside::reference) here.base = by_features;
  const bool biased = dictionary.b_out.defined() && !dictionary.input_norm.scales_output();
  if (options.features == Outside::zero) here.base = biased ? none.add(dictionary.b_out) : none;
  return here;
}

}  // namespace circuit::detail

namespace circuit {

template <ModuleCache Cache, EncodesDensely Set>
OutsideValues<Set> outside_values(const Set& dictionaries, const Cache& reference, const KeepCircuitOptions& options) {
  const c10::AutoGradMode no_gradient{false};
  OutsideValues<Set> outside{.dictionaries = dictionaries, .options = options};
  LaterWrites later;
  for_each_module(
      dictionaries, reference, [&](Module module, Layer layer, const at::Tensor& input, const at::Tensor& output) {
        outside.places.emplace(std::pair{module, layer},
                               detail::outside_place(dictionaries, options, module, layer, input, output, later));
      });
  return outside;
}

template <class Set>
CircuitOnly<Set>::CircuitOnly(OutsideValues<Set> outside, const KeptNodes& kept)
    : outside_{std::move(outside)}, modules_{outside_.dictionaries} {
  const c10::AutoGradMode no_gradient{false};
  std::map<std::pair<Module, Layer>, std::map<Feature, std::set<Position>>> positions;
  for (const auto& [id, position] : kept.features) {
    require_feature(outside_.dictionaries, id);
    check_index(position, outside_.place(id.module, id.layer).input.size(1));
    positions[{id.module, id.layer}][id.feature].insert(position);
  }
  if (outside_.options.features != Outside::left) {
    for (const auto& [at_module, of] : positions) keep_features(of, at_module.first, at_module.second);
  }
  for (const auto& node : kept.errors) keep_error(node);
}

template <class Set>
void CircuitOnly<Set>::keep_features(const std::map<Feature, std::set<Position>>& positions, Module module,
                                     Layer layer) {
  const auto& dictionaries = outside_.dictionaries;
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  const auto& input = outside_.place(module, layer).input;
  std::vector<Feature> features;
  std::vector<std::int64_t> kept;  // in the mask, row by row
  const auto count = static_cast<std::int64_t>(positions.size());
  for (const auto& [feature, where] : positions) {
    for (const auto position : where) {
      kept.push_back(position.value * count + static_cast<std::int64_t>(features.size()));
    }
    features.push_back(feature);
  }
  auto& here = kept_[{module, layer}];
  here.features = detail::feature_index(features, dictionary);
  for (std::int64_t ahead = 0; ahead <= dictionary.later_layers(); ++ahead) {
    here.decoder_rows.push_back(dictionary.decoder_rows(here.features, ahead));
  }
  here.mask = make::zeros({input.size(1), count}, dictionary.options());
  here.mask.view(-1).index_fill_(0, detail::ids_tensor(kept).to(here.mask.device()), 1);
  if (outside_.options.features == Outside::zero) {
    here.base_acts = here.mask.mul(0);
  } else {
    here.base_acts = dictionary.in_writes(encode(dictionaries, module, layer, input, here.features), input);
    if (outside_.options.features == Outside::reference_mean) here.base_acts = here.base_acts.mean(0);
  }
}

template <class Set>
void CircuitOnly<Set>::keep_error(const ErrorAt& node) {
  const auto length = outside_.place(node.module, node.layer).input.size(1);
  check_index(node.position, length);
  auto& mask = kept_[{node.module, node.layer}].error;
  if (!mask.defined()) {
    mask = make::zeros({length, 1}, dictionary_of(outside_.dictionaries, node.module, node.layer)->options());
  }
  mask[node.position.value].fill_(1);
}

template <class Set>
at::Tensor CircuitOnly<Set>::replaced(Module module, Layer layer, const at::Tensor& input, const at::Tensor& output) {
  const auto& [dictionaries, options, places] = outside_;
  const auto& outside = outside_.place(module, layer);
  const auto& here = kept_[{module, layer}];
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  const bool features_left = options.features == Outside::left;
  const bool errors_left = options.errors == Outside::left;
  if (features_left && errors_left) return {};
  for (const auto& fixed : {outside.base, outside.error}) {
    if (!fixed.defined()) continue;
    check_shape(fixed, fixed.dim() == 3 ? shape_of(output) : shape_of(output[0]), "reference", {},
                "the reference run has prompts of the same length, and as many where each has its own");
  }
  at::Tensor reconstruction;
  const bool cross_layer = dictionary.later_layers() > 0;  // later errors need it
  if (features_left || errors_left || cross_layer || (here.error.defined() && !options.kept_errors)) {
    reconstruction = reconstruct(dictionaries, module, layer, input, reconstructed_);
  }

  auto result = features_left ? reconstruction : outside.base.expand_as(output);
  if (!features_left && dictionary.has_skip()) result = result.add(dictionary.skip(input));
  if (const auto scaled = detail::scaled_constant(dictionary, input); !features_left && scaled.defined()) {
    result = result.add(scaled);
  }
  if (module == Module::mlp) {
    const auto earlier = kept_writes_.take(layer);
    if (earlier.defined()) result = result.add(earlier);
  }
  if (here.features.defined()) {
    const auto acts = dictionary.in_writes(encode(dictionaries, module, layer, input, here.features), input);
    const auto more = acts.sub(here.base_acts).mul(here.mask);
    result = result.add(more.matmul(here.decoder_rows[0]));
    for (std::size_t ahead = 1; ahead < here.decoder_rows.size(); ++ahead) {
      kept_writes_.add(layer, static_cast<std::int64_t>(ahead), more.matmul(here.decoder_rows[ahead]));
    }
  }
  if (errors_left) return result.add(output.sub(reconstruction));
  if (!here.error.defined()) return result.add(outside.error);
  const auto own = options.kept_errors ? options.kept_errors->get(module, layer) : output.sub(reconstruction);
  check_shape(own, shape_of(output), "kept_errors", {}, "they are of as many prompts of the same length");
  return result.add(outside.error).add(own.sub(outside.error).mul(here.error));
}

}  // namespace circuit
