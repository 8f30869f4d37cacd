#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <ostream>
#include <string_view>

namespace circuit {

/// An index that cannot be mistaken for another: a layer is not a position, and neither is a bare integer.
template <class Tag>
struct Id {
  std::int32_t value{};

  constexpr Id() = default;
  constexpr explicit Id(std::int32_t v) : value{v} {}

  friend constexpr auto operator<=>(Id, Id) = default;

  friend std::ostream& operator<<(std::ostream& out, Id id) { return out << Tag::name << ' ' << id.value; }
};

struct LayerTag {
  static constexpr std::string_view name = "layer";
};
struct HeadTag {
  static constexpr std::string_view name = "head";
};
struct PositionTag {
  static constexpr std::string_view name = "position";
};
struct FeatureTag {
  static constexpr std::string_view name = "feature";
};
struct PromptTag {
  static constexpr std::string_view name = "prompt";
};

/// Transformer block, counted from 0.
using Layer = Id<LayerTag>;
/// Attention head within a layer, counted from 0.
using Head = Id<HeadTag>;
/// Token position within a prompt; 0 is the beginning-of-sequence token where there is one.
using Position = Id<PositionTag>;
/// Feature (latent) of a sparse dictionary, or unit of a module in the neuron basis.
using Feature = Id<FeatureTag>;
/// Prompt within a batch.
using Prompt = Id<PromptTag>;

namespace detail {

/// Mixes `value` into `seed` (boost::hash_combine's 64-bit constant).
[[nodiscard]] constexpr std::size_t hash_combine(std::size_t seed, std::size_t value) {
  return seed ^ (value + 0x9e3779b97f4a7c15ULL + (seed << 6U) + (seed >> 2U));
}

}  // namespace detail
}  // namespace circuit

template <class Tag>
struct std::hash<circuit::Id<Tag>> {
  [[nodiscard]] std::size_t operator()(circuit::Id<Tag> id) const noexcept {
    return std::hash<std::int32_t>{}(id.value);
  }
};
