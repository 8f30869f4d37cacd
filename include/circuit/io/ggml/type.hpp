#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace circuit {

/// Element type of a GGUF tensor, as numbered in the file: plain numbers, and blocks of quantised ones.
enum class GgmlType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39
};

/// How a type lies in a file: rows are whole blocks.
struct GgmlLayout {
  GgmlType type;
  std::string_view name;
  std::size_t values;  ///< numbers per block
  std::size_t bytes;   ///< bytes per block
};

namespace detail {

/// source  GGUF's specification and the size table of the Python package `gguf`
inline constexpr std::array<GgmlLayout, 30> ggml_layouts{{{GgmlType::f32, "F32", 1, 4},
                                                          {GgmlType::f16, "F16", 1, 2},
                                                          {GgmlType::q4_0, "Q4_0", 32, 18},
                                                          {GgmlType::q4_1, "Q4_1", 32, 20},
                                                          {GgmlType::q5_0, "Q5_0", 32, 22},
                                                          {GgmlType::q5_1, "Q5_1", 32, 24},
                                                          {GgmlType::q8_0, "Q8_0", 32, 34},
                                                          {GgmlType::q2_k, "Q2_K", 256, 84},
                                                          {GgmlType::q3_k, "Q3_K", 256, 110},
                                                          {GgmlType::q4_k, "Q4_K", 256, 144},
                                                          {GgmlType::q5_k, "Q5_K", 256, 176},
                                                          {GgmlType::q6_k, "Q6_K", 256, 210},
                                                          {GgmlType::iq2_xxs, "IQ2_XXS", 256, 66},
                                                          {GgmlType::iq2_xs, "IQ2_XS", 256, 74},
                                                          {GgmlType::iq3_xxs, "IQ3_XXS", 256, 98},
                                                          {GgmlType::iq1_s, "IQ1_S", 256, 50},
                                                          {GgmlType::iq4_nl, "IQ4_NL", 32, 18},
                                                          {GgmlType::iq3_s, "IQ3_S", 256, 110},
                                                          {GgmlType::iq2_s, "IQ2_S", 256, 82},
                                                          {GgmlType::iq4_xs, "IQ4_XS", 256, 136},
                                                          {GgmlType::i8, "I8", 1, 1},
                                                          {GgmlType::i16, "I16", 1, 2},
                                                          {GgmlType::i32, "I32", 1, 4},
                                                          {GgmlType::i64, "I64", 1, 8},
                                                          {GgmlType::f64, "F64", 1, 8},
                                                          {GgmlType::iq1_m, "IQ1_M", 256, 56},
                                                          {GgmlType::bf16, "BF16", 1, 2},
                                                          {GgmlType::tq1_0, "TQ1_0", 256, 54},
                                                          {GgmlType::tq2_0, "TQ2_0", 256, 66},
                                                          {GgmlType::mxfp4, "MXFP4", 32, 17}}};

}  // namespace detail

/// return  the layout of the type that files number `type`, or nothing when no such type is known
[[nodiscard]] constexpr std::optional<GgmlLayout> find_ggml_layout(std::uint32_t type) noexcept {
  for (const auto& layout : detail::ggml_layouts) {
    if (static_cast<std::uint32_t>(layout.type) == type) return layout;
  }
  return {};
}

[[nodiscard]] constexpr GgmlLayout ggml_layout(GgmlType type) noexcept {
  return *find_ggml_layout(static_cast<std::uint32_t>(type));
}

/// The name llama.cpp gives it: "Q4_K".
[[nodiscard]] constexpr std::string_view ggml_name(GgmlType type) noexcept { return ggml_layout(type).name; }

}  // namespace circuit
