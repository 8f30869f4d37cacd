#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "circuit/io/ggml/plain.hpp"
#include "circuit/io/ggml/type.hpp"

namespace circuit::ggml {

/// Blocks of 32 values with one scale d, and in the kinds `_1` one offset m, both in half precision.
///
/// A block type is its number, its bytes and how they become floats. Every product of scale and integer has at most 24
/// significant bits, so it is exact in float32 and the results do not depend on whether the compiler fuses it with the
/// addition.

namespace detail {

using Nibbles = std::array<std::uint8_t, 16>;  ///< value j in the lower half of byte j, value j + 16 in the upper
using HighBits = std::array<std::uint8_t, 4>;  ///< bit j belongs to value j

using Integers = std::array<std::uint8_t, 32>;
using Words = std::array<std::uint64_t, 4>;  ///< the same 32 bytes, eight at a time

[[nodiscard]] inline Words unpack(const Nibbles& q) noexcept {
  constexpr std::uint64_t lower = 0x0F0F0F0F0F0F0F0F;
  const auto [a, b] = std::bit_cast<std::array<std::uint64_t, 2>>(q);
  return {a & lower, b & lower, a >> 4U & lower, b >> 4U & lower};
}

/// 16 in byte k where bit k is set, 0 elsewhere.
[[nodiscard]] inline std::uint64_t sixteens(std::uint64_t bits) noexcept {
  const auto spread = bits * 0x0101010101010101 & 0x8040201008040201;  // bit k alone in byte k
  return ((spread + 0x7F7F7F7F7F7F7F7F) & 0x8080808080808080) >> 3U;
}

[[nodiscard]] inline Integers integers(const Nibbles& q) noexcept { return std::bit_cast<Integers>(unpack(q)); }

[[nodiscard]] inline Integers integers(const Nibbles& low, const HighBits& high) noexcept {
  auto words = unpack(low);
  for (std::size_t k = 0; k < 4; ++k) words[k] |= sixteens(high[k]);
  return std::bit_cast<Integers>(words);
}

}  // namespace detail

/// d q, with q in [-128, 127]
struct Q8_0 {
  static constexpr GgmlType type = GgmlType::q8_0;
  struct Block {
    Half d;
    std::array<std::int8_t, 32> q;
  };
  static void widen(const Block& block, std::span<float, 32> out) noexcept {
    const auto d = F16::widen(block.d);
    for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(block.q[j]);
  }
};

/// d (q - 8), with q in [0, 15]
struct Q4_0 {
  static constexpr GgmlType type = GgmlType::q4_0;
  struct Block {
    Half d;
    detail::Nibbles q;
  };
  static void widen(const Block& block, std::span<float, 32> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto q = detail::integers(block.q);
    for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(q[j] - 8);
  }
};

/// d q + m, with q in [0, 15]
struct Q4_1 {
  static constexpr GgmlType type = GgmlType::q4_1;
  struct Block {
    Half d;
    Half m;
    detail::Nibbles q;
  };
  static void widen(const Block& block, std::span<float, 32> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto m = F16::widen(block.m);
    const auto q = detail::integers(block.q);
    for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(q[j]) + m;
  }
};

/// d (q - 16), with q in [0, 31]
struct Q5_0 {
  static constexpr GgmlType type = GgmlType::q5_0;
  struct Block {
    Half d;
    detail::HighBits high;
    detail::Nibbles low;
  };
  static void widen(const Block& block, std::span<float, 32> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto q = detail::integers(block.low, block.high);
    for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(q[j] - 16);
  }
};

/// d q + m, with q in [0, 31]
struct Q5_1 {
  static constexpr GgmlType type = GgmlType::q5_1;
  struct Block {
    Half d;
    Half m;
    detail::HighBits high;
    detail::Nibbles low;
  };
  static void widen(const Block& block, std::span<float, 32> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto m = F16::widen(block.m);
    const auto q = detail::integers(block.low, block.high);
    for (std::size_t j = 0; j < 32; ++j) out[j] = d * static_cast<float>(q[j]) + m;
  }
};

}  // namespace circuit::ggml
