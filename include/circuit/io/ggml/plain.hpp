#pragma once

#include <bit>
#include <cstdint>

#include "circuit/io/ggml/type.hpp"

static_assert(std::endian::native == std::endian::little, "circuit reads tensor files on little-endian machines only");

namespace circuit::ggml {

/// Types that are no blocks but single numbers: how one of them, as its bits, becomes a float.

struct F32 {
  static constexpr GgmlType type = GgmlType::f32;
  using Bits = std::uint32_t;
  [[nodiscard]] static float widen(Bits bits) noexcept { return std::bit_cast<float>(bits); }
};

/// IEEE 754 half precision. Free of branches, so that loops over it become vector code without F16C.
struct F16 {
  static constexpr GgmlType type = GgmlType::f16;
  using Bits = std::uint16_t;
  [[nodiscard]] static float widen(Bits bits) noexcept {
    const auto magnitude = static_cast<std::int32_t>(bits & 0x7FFF);
    const auto when = [](bool condition) { return -static_cast<std::int32_t>(condition); };  // all ones, or zero
    const auto subnormal = std::bit_cast<std::int32_t>(static_cast<float>(magnitude) * 0x1p-24F);
    const auto finite = (magnitude << 13) + (112 << 23);
    const auto normal = finite | (when(magnitude > 0x7BFF) & 0x7F800000);  // infinity and NaN
    const auto is_subnormal = when(magnitude < 0x0400);
    const auto value = (subnormal & is_subnormal) | (normal & ~is_subnormal);
    return std::bit_cast<float>(static_cast<std::uint32_t>(value) | static_cast<std::uint32_t>(bits & 0x8000) << 16U);
  }
};

using Half = F16::Bits;  ///< how blocks hold their scales

/// The upper half of a float32.
struct BF16 {
  static constexpr GgmlType type = GgmlType::bf16;
  using Bits = std::uint16_t;
  [[nodiscard]] static float widen(Bits bits) noexcept {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16U);
  }
};

}  // namespace circuit::ggml
