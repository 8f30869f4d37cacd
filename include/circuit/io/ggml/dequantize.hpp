#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <type_traits>

#include "circuit/core/error.hpp"
#include "circuit/io/ggml/k_blocks.hpp"
#include "circuit/io/ggml/plain.hpp"
#include "circuit/io/ggml/simple_blocks.hpp"
#include "circuit/io/ggml/type.hpp"

namespace circuit {

namespace ggml {

/// A quantised type: how one block of bytes becomes floats.
template <class T>
concept BlockType =
    std::is_trivially_copyable_v<typename T::Block> && sizeof(typename T::Block) == ggml_layout(T::type).bytes &&
    requires(const typename T::Block& block, std::span<float, ggml_layout(T::type).values> out) {
      { T::widen(block, out) } noexcept -> std::same_as<void>;
    };

/// A type of plain numbers.
template <class T>
concept PlainType = sizeof(typename T::Bits) == ggml_layout(T::type).bytes && requires(typename T::Bits bits) {
  { T::widen(bits) } noexcept -> std::same_as<float>;
};

/// Widens whole blocks: `out` holds exactly their values. Nothing needs to be aligned.
template <BlockType T>
void widen_blocks(std::span<const std::byte> blocks, std::span<float> out) noexcept {
  constexpr auto values = ggml_layout(T::type).values;
  typename T::Block block;
  for (std::size_t i = 0; i * values < out.size(); ++i) {
    std::memcpy(&block, blocks.data() + i * sizeof block, sizeof block);  // a local, so that nothing aliases `out`
    T::widen(block, out.subspan(i * values).template first<values>());
  }
}

template <PlainType T>
void widen_blocks(std::span<const std::byte> numbers, std::span<float> out) noexcept {
  constexpr std::size_t most = 64;
  std::array<typename T::Bits, most> bits;
  for (std::size_t i = 0; i < out.size(); i += most) {
    const auto count = std::min(most, out.size() - i);
    std::memcpy(bits.data(), numbers.data() + i * sizeof bits[0], count * sizeof bits[0]);
    if (count == most) {  // a known count, which compilers turn into vector code
      for (std::size_t j = 0; j < most; ++j) out[i + j] = T::widen(bits[j]);
    } else {
      for (std::size_t j = 0; j < count; ++j) out[i + j] = T::widen(bits[j]);
    }
  }
}

namespace detail {

template <class... T>
struct Types {
  [[nodiscard]] static constexpr bool hold(GgmlType type) noexcept { return ((T::type == type) || ...); }
  static void widen(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) noexcept {
    (void)((T::type == type && (widen_blocks<T>(blocks, out), true)) || ...);
  }
};

using Readable = Types<F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K>;

}  // namespace detail

}  // namespace ggml

/// return  whether `dequantize` knows the type
[[nodiscard]] constexpr bool can_dequantize(GgmlType type) noexcept { return ggml::detail::Readable::hold(type); }

namespace detail {

/// throws  DTypeError  naming file and tensor, where they are known, unless `type` can be widened
inline void check_dequantizable(GgmlType type, const std::filesystem::path& file = {}, const std::string& tensor = {}) {
  if (can_dequantize(type)) return;
  throw DTypeError{{.file = file,
                    .tensor = tensor,
                    .problem = "cannot be widened to float32",
                    .expected = "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or Q2_K to Q6_K",
                    .got = std::string{ggml_name(type)},
                    .hint = "quantise the model to one of these"}};
}

}  // namespace detail

/// The values of whole blocks as float32, equal bit for bit to those of the Python package `gguf`; NaN stays NaN.
/// throws  DTypeError  for a type that this library cannot widen
/// throws  ValueError  when `blocks` are not exactly the blocks of out.size() values
inline void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> out) {
  detail::check_dequantizable(type);
  const auto [_, name, values, bytes] = ggml_layout(type);
  if (out.size() % values != 0 || out.size() / values * bytes != blocks.size()) {
    throw ValueError{{.problem = "these are not whole blocks of " + std::string{name},
                      .expected = std::to_string(out.size() / values * bytes) + " bytes for " +
                                  std::to_string(out.size()) + " values",
                      .got = std::to_string(blocks.size())}};
  }
  ggml::detail::Readable::widen(type, blocks, out);
}

}  // namespace circuit
