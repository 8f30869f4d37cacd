#include "circuit/io/ggml/dequantize.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "../files.hpp"
#include "catch.hpp"
#include "circuit/io/gguf.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

GgufFile golden() { return open_gguf(std::filesystem::path{CIRCUIT_TEST_DATA} / "gguf/blocks.gguf"); }

std::vector<float> widened(GgmlType type, std::span<const std::byte> bytes, std::size_t count) {
  std::vector<float> values(count, std::numeric_limits<float>::quiet_NaN());
  dequantize(type, bytes, values);
  return values;
}

template <class Block>
std::array<float, 32> widened(GgmlType type, const Block& block) {
  std::array<float, 32> values{};
  dequantize(type, std::as_bytes(std::span{&block, 1}), values);
  return values;
}

/// A half by its definition.
double half(std::uint16_t bits) {
  const int exponent = bits >> 10U & 31;
  const int fraction = bits & 1023;
  const double magnitude = exponent == 0    ? std::ldexp(fraction, -24)
                           : exponent == 31 ? std::numeric_limits<double>::infinity()
                                            : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

constexpr ggml::Half one = 0x3C00;
constexpr ggml::Half two = 0x4000;

}  // namespace

TEST_CASE("dequantize: every type equals the Python package gguf bit for bit, whole and row by row") {
  const auto file = golden();
  std::size_t types = 0;
  for (const auto& tensor : file.tensors()) {
    const auto* expected = file.find(tensor.name + ".expected");
    if (expected == nullptr) continue;
    ++types;
    INFO(tensor.name);
    REQUIRE(tensor.shape == std::vector<std::int64_t>{3, 512});
    REQUIRE(ggml_name(tensor.type) == tensor.name);
    const auto values = widened(tensor.type, tensor.bytes, 3 * 512);
    REQUIRE(expected->bytes.size() == values.size() * sizeof(float));
    CHECK(std::memcmp(values.data(), expected->bytes.data(), expected->bytes.size()) == 0);
    const auto row = widened(tensor.type, tensor.row_range(1, 1), 512);
    CHECK(std::memcmp(row.data(), expected->row_range(1, 1).data(), row.size() * sizeof(float)) == 0);
  }
  CHECK(types == 13);
}

TEST_CASE("dequantize: every half is its value") {
  std::vector<std::uint16_t> bits(65536);
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = static_cast<std::uint16_t>(i);
  const auto values = widened(GgmlType::f16, std::as_bytes(std::span{bits}), bits.size());
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const bool nan = (i & 0x7FFFU) > 0x7C00U;
    const bool right =
        nan ? std::isnan(values[i])
            : static_cast<double>(values[i]) == half(bits[i]) && std::signbit(values[i]) == (i >= 0x8000);
    wrong += right ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("dequantize: the simple blocks by hand") {
  ggml::Q4_1::Block q4{.d = two, .m = one, .q = {}};
  q4.q[3] = 0x5F;
  const auto four = widened(GgmlType::q4_1, q4);
  CHECK(four[3] == 31);   // 2 * 15 + 1
  CHECK(four[19] == 11);  // 2 * 5 + 1
  CHECK(four[0] == 1);

  ggml::Q5_0::Block q5{.d = two, .high = {0x08, 0, 0, 0x80}, .low = {}};
  q5.low[3] = 0x02;
  q5.low[15] = 0x30;
  const auto five = widened(GgmlType::q5_0, q5);
  CHECK(five[3] == 4);    // 2 * (2 + 16 - 16)
  CHECK(five[31] == 6);   // 2 * (3 + 16 - 16)
  CHECK(five[0] == -32);  // 2 * (0 - 16)
}

TEST_CASE("dequantize: bytes need no alignment, and nothing outside is written") {
  std::vector<std::byte> bytes(1 + 2 * 34, std::byte{0});
  for (std::size_t block = 0; block < 2; ++block) {
    std::memcpy(bytes.data() + 1 + block * 34, &one, sizeof one);
    bytes[1 + block * 34 + 2] = std::byte{0xFF};
  }
  std::vector<float> values(66, 7.0F);
  dequantize(GgmlType::q8_0, std::span{bytes}.subspan(1), std::span{values}.subspan(1, 64));
  CHECK(values.front() == 7);
  CHECK(values[1] == -1);
  CHECK(values[33] == -1);
  CHECK(values.back() == 7);
}

TEST_CASE("dequantize: counts of plain numbers that fill no vector are widened too") {
  for (const std::size_t count : {0U, 1U, 63U, 64U, 65U, 200U}) {
    std::vector<std::uint16_t> bits(count, 0x3F80);
    const auto values = widened(GgmlType::bf16, std::as_bytes(std::span{bits}), count);
    CHECK(values == std::vector<float>(count, 1.0F));
  }
}

TEST_CASE("dequantize: part of a block and a wrong number of values are refused") {
  std::vector<std::byte> bytes(36);
  std::vector<float> values(64);
  const auto wrong = [&](std::size_t stored, std::size_t count) {
    return said<ValueError>(
        [&] { dequantize(GgmlType::q4_0, std::span{bytes}.first(stored), std::span{values}.first(count)); });
  };
  CHECK_THAT(wrong(36, 32), ContainsSubstring("expected 18 bytes for 32 values, got 36"));
  CHECK_THAT(wrong(17, 32), ContainsSubstring("whole blocks of Q4_0"));
  CHECK_THAT(wrong(18, 31), ContainsSubstring("whole blocks of Q4_0"));
  CHECK_THAT(wrong(0, 1), ContainsSubstring("whole blocks of Q4_0"));
}

TEST_CASE("dequantize: types that cannot be widened are refused by name") {
  CHECK_FALSE(can_dequantize(GgmlType::iq4_nl));
  CHECK_THAT(said<DTypeError>([] { dequantize(GgmlType::iq4_nl, {}, {}); }),
             ContainsSubstring("got IQ4_NL") && ContainsSubstring("Q2_K to Q6_K"));
}
