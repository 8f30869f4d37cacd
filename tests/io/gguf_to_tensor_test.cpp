#include "circuit/io/gguf_to_tensor.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "files.hpp"
#include "gguf_builder.hpp"

using namespace circuit;
using namespace circuit_test;
namespace make_gguf = circuit_test::gguf;

namespace {

GgufFile golden_blocks() { return open_gguf(std::filesystem::path{CIRCUIT_TEST_DATA} / "gguf/blocks.gguf"); }

/// `blocks` blocks of Q8_0 with scale 1, all of whose values are the block's number modulo 100.
std::string numbered_blocks(std::size_t blocks) {
  std::string bytes;
  for (std::size_t i = 0; i < blocks; ++i) {
    bytes += raw(std::uint16_t{0x3C00});
    bytes.append(32, static_cast<char>(i % 100));
  }
  return bytes;
}

}  // namespace

TEST_CASE("gguf_to_tensor: quantised tensors become float32, plain ones stay mapped as they are") {
  const auto file = golden_blocks();
  for (const auto& tensor : file.tensors()) {
    const auto* expected = file.find(tensor.name + ".expected");
    if (expected == nullptr) continue;
    INFO(tensor.name);
    const auto got = to_tensor(tensor);
    CHECK(got.sizes().vec() == std::vector<std::int64_t>{3, 512});
    CHECK(got.to(at::kFloat).equal(to_tensor(*expected)));
    CHECK(got.scalar_type() == (tensor.type == GgmlType::f16    ? at::kHalf
                                : tensor.type == GgmlType::bf16 ? at::kBFloat16
                                                                : at::kFloat));
    CHECK((got.data_ptr() == tensor.bytes.data()) == plain_view(tensor).has_value());
  }
}

TEST_CASE("gguf_to_tensor: a tensor outlives its file object, widened or not") {
  at::Tensor plain;
  at::Tensor quantised;
  {
    const auto file = golden_blocks();
    plain = to_tensor(file.get("F32"));
    quantised = to_tensor(file.get("Q4_K"));
  }
  const auto file = golden_blocks();
  CHECK(plain.equal(to_tensor(file.get("F32"))));
  CHECK(quantised.equal(to_tensor(file.get("Q4_K.expected"))));
}

TEST_CASE("gguf_to_tensor: tensors of any rank and size are widened, also by several threads") {
  const Folder folder;
  constexpr std::size_t blocks = 3 * 4 * 1001;
  const make_gguf::File made{
      .tensors = {make_gguf::tensor("long", {blocks * 32}, 8, 0),
                  make_gguf::tensor("deep", {64, 2, 1, 5}, 8, (blocks * 34 + 31) / 32 * 32),
                  make_gguf::tensor("none", {32, 0}, 8, 0)},
      .data = numbered_blocks(blocks) + std::string((32 - blocks * 34 % 32) % 32, '\0') + numbered_blocks(20)};
  const auto file = open_gguf(folder.file("a.gguf", made.bytes()));
  const auto values = to_tensor(file.get("long"));
  REQUIRE(values.sizes().vec() == std::vector<std::int64_t>{static_cast<std::int64_t>(blocks) * 32});
  const auto* data = values.data_ptr<float>();
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < blocks * 32; ++i) wrong += data[i] == static_cast<float>(i / 32 % 100) ? 0 : 1;
  CHECK(wrong == 0);
  const auto deep = to_tensor(file.get("deep"));
  CHECK(deep.sizes().vec() == std::vector<std::int64_t>{5, 1, 2, 64});
  CHECK(deep[4][0][1][63].item<float>() == 19);
  CHECK(to_tensor(file.get("none")).sizes().vec() == std::vector<std::int64_t>{0, 32});
}

TEST_CASE("gguf_to_tensor: some rows are written into a buffer, and nothing else") {
  const auto file = golden_blocks();
  for (const auto* name : {"Q6_K", "F16", "F32"}) {
    INFO(name);
    const auto buffer = at::full({3, 512}, 7.0F);
    widen_rows(file.get(name), 1, buffer.narrow(0, 0, 2));
    CHECK(buffer.narrow(0, 0, 2).equal(to_tensor(file.get(std::string{name} + ".expected")).narrow(0, 1, 2)));
    CHECK(buffer[2].eq(7).all().item<bool>());
  }
}

TEST_CASE("gguf_to_tensor: wrong rows and wrong buffers are refused by file and tensor") {
  const auto file = golden_blocks();
  const auto& tensor = file.get("Q4_0");
  const auto named = ContainsSubstring("blocks.gguf: \"Q4_0\"");
  CHECK_THAT(said<IndexError>([&] {
               widen_rows(tensor, 2, at::empty({2, 512}));
             }),
             named && ContainsSubstring("expected rows within 3, got 2 rows from row 2"));
  CHECK_THAT(said<IndexError>([&] { widen_rows(tensor, ~std::size_t{0}, at::empty({1, 512})); }), named);
  CHECK_THAT(said<ShapeError>([&] {
               widen_rows(tensor, 0, at::empty({3, 511}));
             }),
             named && ContainsSubstring("expected [any, 512], got [3, 511]"));
  CHECK_THAT(said<ShapeError>([&] { widen_rows(tensor, 0, at::empty({512})); }), named);
  CHECK_THAT(said<ShapeError>([&] { widen_rows(tensor, 0, at::empty({512, 3}).t()); }), named);
  CHECK_THAT(said<DTypeError>([&] {
               widen_rows(tensor, 0, at::empty({3, 512}, at::kDouble));
             }),
             named && ContainsSubstring("float32 on the CPU"));
}

TEST_CASE("gguf_to_tensor: a type that cannot be widened is refused by file, tensor and type") {
  const Folder folder;
  const make_gguf::File made{.tensors = {make_gguf::tensor("w", {32}, 20, 0)}, .data = std::string(18, '\0')};
  const auto file = open_gguf(folder.file("a.gguf", made.bytes()));
  CHECK_THAT(said<DTypeError>([&] { (void)to_tensor(file.get("w")); }),
             ContainsSubstring("a.gguf: \"w\"") && ContainsSubstring("got IQ4_NL"));
}
