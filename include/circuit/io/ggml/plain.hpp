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
    const auto half = static_cast<std::int32_t>(bits);
    const auto magnitude = half & 0x7FFF;
    const auto subnormal = std::bit_cast<std::int32_t>(static_cast<float>(magnitude) * 0x1p-24F);
    const auto rebias = 112 + 112 * (magnitude >= 0x7C00);  // infinity and NaN keep the highest exponent
    const auto normal = (magnitude << 13) + (rebias << 23);
    const auto choice = -static_cast<std::int32_t>(magnitude < 0x0400);  // all ones, or zero
    const auto sign = static_cast<std::uint32_t>(half & 0x8000) << 16U;
    return std::bit_cast<float>(static_cast<std::uint32_t>((subnormal & choice) | (normal & ~choice)) | sign);
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
