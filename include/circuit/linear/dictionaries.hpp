#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// Where dictionaries sit; any set with these lookups will do (see BasicDictionarySet).
template <class S>
concept Dictionaries = requires(const S& s, Layer layer, const at::Tensor& x, const ModelConfig& config,
                                const weights::Processing& processing, at::ScalarType dtype) {
  { s.attn(layer) } -> std::same_as<const DictionaryWeights*>;
  { s.mlp(layer) } -> std::same_as<const DictionaryWeights*>;
  { s.attn_site(layer) } -> std::same_as<AttentionSite>;
  { s.active_attn(layer, x) } -> std::same_as<ActiveFeatures>;
  { s.active_mlp(layer, x) } -> std::same_as<ActiveFeatures>;
  s.check(config, processing, dtype);
};

/// A set whose MLP features read what depends on their input, such as neurons behind a gate.
template <class S>
concept ReadsAtInput = Dictionaries<S> && requires(const S& s, Layer layer, const at::Tensor& x) {
  { s.mlp_readers(layer, x, x) } -> std::same_as<InputReaders>;
};

/// Whether a set's features are the model's own units: the dimensions of hook_z and the MLP's neurons, each in order.
template <class S>
inline constexpr bool describes_own_units = requires { requires S::own_units; };

/// Whether gradients pass a layer's MLP by its transcoder's skip path.
template <Dictionaries Set>
[[nodiscard]] bool has_skip(const Set& set, Layer layer) {
  const auto* dictionary = set.mlp(layer);
  return dictionary != nullptr && dictionary->has_skip();
}

/// A set that may describe the residual stream itself.
template <class S>
concept DescribesStream = Dictionaries<S> && requires(const S& s, Layer layer, const at::Tensor& x) {
  { s.stream(layer) } -> std::same_as<const DictionaryWeights*>;
  { s.active_stream(layer, x) } -> std::same_as<ActiveFeatures>;
};

/// What a target at a depth reads.
template <Dictionaries Set>
[[nodiscard]] Upstream upstream_of(const Set& set, std::int64_t depth) {
  if constexpr (DescribesStream<Set>) {
    for (Layer layer{static_cast<std::int32_t>(depth / 3)}; layer.value >= 0; --layer.value) {
      if (stream_depth(layer) < depth && set.stream(layer) != nullptr) return {stream_depth(layer), depth};
    }
  }
  return {-1, depth};
}

/// Calls use(earlier layer, how many layers it lies before this one) for every cross-layer transcoder before a layer
/// that writes into its MLP's output, in ascending order.
template <class Set, class Use>
void for_each_cross_layer(const Set& set, Layer layer, Use&& use) {
  for (std::int32_t l = 0; l < layer.value; ++l) {
    const auto ahead = layer.value - l;
    const auto* dictionary = set.mlp(Layer{l});
    if (dictionary != nullptr && dictionary->later_layers() >= ahead) use(Layer{l}, ahead);
  }
}

/// throws  NameError  when a module has no dictionary
[[nodiscard]] inline const DictionaryWeights& require(const DictionaryWeights* dictionary) {
  if (dictionary == nullptr) throw NameError{{.tensor = "dictionary", .problem = "this module has none that is read"}};
  return *dictionary;
}

}  // namespace circuit
