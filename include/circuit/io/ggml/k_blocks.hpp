#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "circuit/io/ggml/plain.hpp"
#include "circuit/io/ggml/type.hpp"

namespace circuit::ggml {

/// Blocks of 256 values in groups of 16 or 32, each with an integer scale (and offset) of its own; the block has one
/// scale d for the scales and one, m, for the offsets. As in simple_blocks.hpp every product that something is added to
/// is exact in float32.

namespace detail {

/// Scales and offsets of the 8 groups of Q4_K and Q5_K, 6 bits each in 12 bytes.
struct Scales6 {
  std::array<std::uint8_t, 12> bytes;

  [[nodiscard]] int scale(std::size_t group) const noexcept {
    return group < 4 ? bytes[group] & 63 : (bytes[group + 4] & 15) | bytes[group - 4] >> 6 << 4;
  }
  [[nodiscard]] int offset(std::size_t group) const noexcept {
    return group < 4 ? bytes[group + 4] & 63 : bytes[group + 4] >> 4 | bytes[group] >> 6 << 4;
  }
};

}  // namespace detail

/// d s q - m o, with q in [0, 3], s and o in [0, 15]; 16 groups of 16
struct Q2_K {
  static constexpr GgmlType type = GgmlType::q2_k;
  struct Block {
    std::array<std::uint8_t, 16> scales;  ///< s below, o above
    std::array<std::uint8_t, 64> q;
    Half d;
    Half m;
  };
  static void widen(const Block& block, std::span<float, 256> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto m = F16::widen(block.m);
    for (std::size_t group = 0; group < 16; ++group) {
      const auto scale = d * static_cast<float>(block.scales[group] & 15);
      const auto offset = m * static_cast<float>(block.scales[group] >> 4);
      const auto from = group / 8 * 32 + group % 2 * 16;
      const auto shift = group % 8 / 2 * 2;
      for (std::size_t j = 0; j < 16; ++j) {
        out[group * 16 + j] = scale * static_cast<float>(block.q[from + j] >> shift & 3) - offset;
      }
    }
  }
};

/// d (s - 32) q, with q in [-4, 3], s in [0, 63]; 16 groups of 16
struct Q3_K {
  static constexpr GgmlType type = GgmlType::q3_k;
  struct Block {
    std::array<std::uint8_t, 32> high;  ///< bit g / 2 of byte j + 16 (g % 2): the third bit of value j of group g
    std::array<std::uint8_t, 64> low;
    std::array<std::uint8_t, 12> scales;  ///< the lower 4 bits of s in 8 bytes, the upper 2 in 4
    Half d;
  };
  static void widen(const Block& block, std::span<float, 256> out) noexcept {
    const auto d = F16::widen(block.d);
    for (std::size_t group = 0; group < 16; ++group) {
      const auto s =
          (block.scales[group % 8] >> group / 8 * 4 & 15) | (block.scales[8 + group % 4] >> group / 4 * 2 & 3) << 4;
      const auto scale = d * static_cast<float>(s - 32);
      const auto half = group % 2 * 16;
      const auto from = group / 8 * 32 + half;
      const auto shift = group % 8 / 2 * 2;
      for (std::size_t j = 0; j < 16; ++j) {
        const auto q = (block.low[from + j] >> shift & 3) | (block.high[half + j] >> group / 2 & 1) << 2;
        out[group * 16 + j] = scale * static_cast<float>(q - 4);
      }
    }
  }
};

/// d s q - m o, with q in [0, 15], s and o in [0, 63]; 8 groups of 32
struct Q4_K {
  static constexpr GgmlType type = GgmlType::q4_k;
  struct Block {
    Half d;
    Half m;
    detail::Scales6 scales;
    std::array<std::uint8_t, 128> q;
  };
  static void widen(const Block& block, std::span<float, 256> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto m = F16::widen(block.m);
    for (std::size_t group = 0; group < 8; group += 2) {  // two groups share 32 bytes
      const auto scale = d * static_cast<float>(block.scales.scale(group));
      const auto offset = m * static_cast<float>(block.scales.offset(group));
      const auto next_scale = d * static_cast<float>(block.scales.scale(group + 1));
      const auto next_offset = m * static_cast<float>(block.scales.offset(group + 1));
      const auto from = group * 16;
      for (std::size_t j = 0; j < 32; ++j) {
        out[group * 32 + j] = scale * static_cast<float>(block.q[from + j] & 15) - offset;
      }
      for (std::size_t j = 0; j < 32; ++j) {
        out[group * 32 + 32 + j] = next_scale * static_cast<float>(block.q[from + j] >> 4) - next_offset;
      }
    }
  }
};

/// d s q - m o, with q in [0, 31], s and o in [0, 63]; 8 groups of 32
struct Q5_K {
  static constexpr GgmlType type = GgmlType::q5_k;
  struct Block {
    Half d;
    Half m;
    detail::Scales6 scales;
    std::array<std::uint8_t, 32> high;  ///< bit g of byte j: the fifth bit of value j of group g
    std::array<std::uint8_t, 128> low;
  };
  static void widen(const Block& block, std::span<float, 256> out) noexcept {
    const auto d = F16::widen(block.d);
    const auto m = F16::widen(block.m);
    for (std::size_t group = 0; group < 8; ++group) {
      const auto scale = d * static_cast<float>(block.scales.scale(group));
      const auto offset = m * static_cast<float>(block.scales.offset(group));
      const auto from = group / 2 * 32;
      const auto shift = group % 2 * 4;
      for (std::size_t j = 0; j < 32; ++j) {
        const auto q = (block.low[from + j] >> shift & 15) | (block.high[j] >> group & 1) << 4;
        out[group * 32 + j] = scale * static_cast<float>(q) - offset;
      }
    }
  }
};

/// d s (q - 32), with q in [0, 63], s in [-128, 127]; 16 groups of 16
struct Q6_K {
  static constexpr GgmlType type = GgmlType::q6_k;
  struct Block {
    std::array<std::uint8_t, 128> low;
    std::array<std::uint8_t, 64> high;
    std::array<std::int8_t, 16> scales;
    Half d;
  };
  static void widen(const Block& block, std::span<float, 256> out) noexcept {
    const auto d = F16::widen(block.d);
    for (std::size_t group = 0; group < 16; ++group) {
      const auto scale = d * static_cast<float>(block.scales[group]);
      const auto quarter = group % 8 / 2;  // of the 128 values that share 64 low and 32 high bytes
      const auto within = group % 2 * 16;
      const auto low = group / 8 * 64 + quarter % 2 * 32 + within;
      const auto high = group / 8 * 32 + within;
      const auto low_shift = quarter / 2 * 4;
      const auto high_shift = quarter * 2;
      for (std::size_t j = 0; j < 16; ++j) {
        const auto q = (block.low[low + j] >> low_shift & 15) | (block.high[high + j] >> high_shift & 3) << 4;
        out[group * 16 + j] = scale * static_cast<float>(q - 32);
      }
    }
  }
};

}  // namespace circuit::ggml
