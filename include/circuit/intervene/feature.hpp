#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/dictionary_set.hpp"

namespace circuit {

/// A feature of one layer's dictionary, at no position in particular: `attn_feature(Layer{5}, Feature{7515})`.
struct FeatureId {
  Module module{};
  Layer layer{};
  Feature feature{};

  friend constexpr auto operator<=>(const FeatureId&, const FeatureId&) = default;
};

[[nodiscard]] constexpr FeatureId attn_feature(Layer layer, Feature feature) { return {Module::attn, layer, feature}; }
[[nodiscard]] constexpr FeatureId mlp_feature(Layer layer, Feature feature) { return {Module::mlp, layer, feature}; }

/// Of a dictionary of the residual stream before a layer.
[[nodiscard]] constexpr FeatureId resid_feature(Layer layer, Feature feature) {
  return {Module::stream, layer, feature};
}

/// The positions at which an intervention acts, the same in all prompts or one in each; none means every position.
struct On {
  std::vector<Position> positions{};
  std::vector<Position> position_of{};

  [[nodiscard]] bool everywhere() const noexcept { return positions.empty() && position_of.empty(); }

  friend auto operator<=>(const On&, const On&) = default;
};

/// `on(Position{10})`, `on(Position{2}, Position{7})`.
template <std::same_as<Position>... More>
[[nodiscard]] On on(Position first, More... more) {
  return {{first, more...}};
}
/// throws  ValueError  for no positions, which `everywhere` means and an empty list hardly does
[[nodiscard]] inline On on(std::vector<Position> positions) {
  if (positions.empty()) {
    throw ValueError{{.tensor = "positions", .expected = "at least one", .got = "none", .hint = "use everywhere"}};
  }
  return {std::move(positions)};
}
inline const On everywhere{};

/// In each prompt its own position, such as a role's: `on_each(prompts.positions("S2"))`.
/// throws  ValueError  for no positions
[[nodiscard]] inline On on_each(std::vector<Position> position_of) {
  if (position_of.empty()) throw ValueError{{.tensor = "positions", .expected = "one for each prompt", .got = "none"}};
  return {.positions = {}, .position_of = std::move(position_of)};
}

[[nodiscard]] constexpr std::string_view name(Module module) {
  return module == Module::attn ? "attn" : module == Module::mlp ? "mlp" : "resid";
}

/// `attn.5.7515` (layer, feature).
[[nodiscard]] inline std::string to_string(const FeatureId& id) {
  return std::string{name(id.module)} + '.' + std::to_string(id.layer.value) + '.' + std::to_string(id.feature.value);
}
inline std::ostream& operator<<(std::ostream& out, const FeatureId& id) { return out << to_string(id); }

/// The dictionary of a module, or nullptr where the layer has none.
template <class Set>
[[nodiscard]] const DictionaryWeights* dictionary_of(const Set& dictionaries, Module module, Layer layer) {
  if (module == Module::stream) return stream_dictionary(dictionaries, layer);
  return module == Module::attn ? dictionaries.attn(layer) : dictionaries.mlp(layer);
}

/// The dictionary that holds a feature.
/// throws  NameError   when that layer has no dictionary
/// throws  IndexError  when the dictionary has no such feature
template <class Set>
const DictionaryWeights& require_feature(const Set& dictionaries, const FeatureId& id) {
  const auto* dictionary = dictionary_of(dictionaries, id.module, id.layer);
  if (dictionary == nullptr)
    throw NameError{{.tensor = to_string(id), .problem = "there is no dictionary at that layer"}};
  check_index(id.feature, dictionary->d_sae(), to_string(id));
  return *dictionary;
}

}  // namespace circuit
