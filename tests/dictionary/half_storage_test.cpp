#include "circuit/dictionary/half_storage.hpp"

#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>

#include <fstream>
#include <sstream>
#include <vector>

#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/load/bare.hpp"
#include "circuit/dictionary/load/circuit_tracer.hpp"
#include "circuit/dictionary/load/sae_lens.hpp"
#include "io/files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t d_in = 64;

struct Stored {
  at::Tensor W_enc, b_enc, W_dec, b_dec, b_dec_out, threshold;
};

/// About one feature in eight is active.
Stored random(std::int64_t features, at::ScalarType dtype) {
  return {at::randn({d_in, features}).div(8).to(dtype),
          at::full({features}, -1.2).to(dtype),
          at::randn({features, d_in}).to(dtype),
          at::randn({d_in}).to(dtype),
          at::randn({d_in}).to(dtype),
          at::full({features}, 0.1).to(dtype)};
}

/// The encoder row by row, as SAELens has it.
fs::path write_by_input(const Folder& folder, const Stored& t) {
  const auto file = folder.path / "transcoder.safetensors";
  write_safetensors(
      file, std::vector<TensorView>{to_view("W_enc", t.W_enc), to_view("b_enc", t.b_enc), to_view("W_dec", t.W_dec),
                                    to_view("b_dec", t.b_dec), to_view("b_dec_out", t.b_dec_out)});
  return file;
}
/// The encoder feature by feature, as circuit-tracer has it.
fs::path write_by_feature(const Folder& folder, const Stored& t) {
  const auto file = folder.path / "layer_0.safetensors";
  std::ofstream{folder.path / "config.yaml"} << "model_kind: transcoder_set\nmodel_name: none\n"
                                                "feature_input_hook: ln2.hook_normalized\n"
                                                "feature_output_hook: hook_mlp_out\n";
  write_safetensors(file, std::vector<TensorView>{to_view("W_enc", t.W_enc.t().contiguous()), to_view("b_enc", t.b_enc),
                                                  to_view("W_dec", t.W_dec), to_view("b_dec", t.b_dec),
                                                  to_view("activation_function.threshold", t.threshold)});
  return file;
}

/// Bytes of a mapped file that lie in this process's memory.
std::int64_t resident_bytes(const fs::path& file) {
  std::ifstream maps{"/proc/self/smaps"};
  std::int64_t sum = 0;
  bool here = false;
  for (std::string line; std::getline(maps, line);) {
    const auto first_word = line.substr(0, line.find(' '));
    if (!first_word.ends_with(':')) here = line.find(file.filename().string()) != line.npos;  // of another mapping
    if (!here || !line.starts_with("Rss:")) continue;
    std::istringstream number{line.substr(4)};
    std::int64_t kb = 0;
    number >> kb;
    sum += kb * 1024;
  }
  return sum;
}

void require_equal(const SparseDictionary<>& mapped, const SparseDictionary<>& widened) {
  const auto x = at::randn({2, 3, d_in});
  const auto features = at::tensor({0, 3, 4999}, at::kLong);
  REQUIRE_CLOSE(mapped.encode(x), widened.encode(x), 1e-6);
  REQUIRE_CLOSE(mapped.encode(x, features), widened.encode(x, features), 1e-6);
  REQUIRE_CLOSE(mapped.readers(features), widened.readers(features), 0.0);
  REQUIRE_CLOSE(mapped.decoder_rows(features), widened.decoder_rows(features), 0.0);
  REQUIRE_CLOSE(mapped.reconstruct(x), widened.reconstruct(x), 1e-6);
  const auto streamed = encode_active(mapped, x);
  const auto expected = encode_active(widened, x);
  REQUIRE(streamed.size() > 100);
  REQUIRE(streamed.feature == expected.feature);
  REQUIRE_CLOSE(streamed.activation, expected.activation, 1e-6);
  REQUIRE_CLOSE(decode_active(mapped, streamed), decode_active(widened, expected), 1e-6);
}

}  // namespace

TEST_CASE("a mapped half-precision dictionary is the widened one, however its encoder is stored") {
  for (const auto dtype : {at::kHalf, at::kBFloat16}) {
    const Folder folder;
    const auto tensors = random(5000, dtype);
    const auto by_input = write_by_input(folder, tensors);
    const auto load = [&](const fs::path& file, HalfPrecision half) {
      return file == by_input ? load_bare(file, DictionaryKind::transcoder, {.half = half}).dictionary
                              : load_circuit_tracer(file, {.half = half}).dictionary;
    };
    for (const auto& file : {by_input, write_by_feature(folder, tensors)}) {
      INFO(file);
      const auto mapped = load(file, HalfPrecision::mapped);
      const auto widened = load(file, HalfPrecision::widened);
      REQUIRE(mapped.W_enc.scalar_type() == dtype);
      REQUIRE(mapped.W_dec.scalar_type() == dtype);
      REQUIRE(widened.W_enc.scalar_type() == at::kFloat);
      REQUIRE_FALSE(mapped.W_enc.storage().resizable());  // from_blob's memory is not the allocator's
      fs::remove(file);                                   // the mapping outlives the file and the object that read it
      require_equal(mapped, widened);
    }
  }
}

TEST_CASE("encoding a mapped half-precision dictionary leaves none of it in memory") {
  const Folder folder;
  const auto tensors = random(250'000, at::kBFloat16);
  for (const auto& file : {write_by_input(folder, tensors), write_by_feature(folder, tensors)}) {
    INFO(file);
    const auto d = file.filename() == "layer_0.safetensors" ? load_circuit_tracer(file).dictionary
                                                            : load_bare(file, DictionaryKind::transcoder).dictionary;
    constexpr std::int64_t edges = std::int64_t{8} << 20U;  // pages around what else was touched, up to 2 MB each
    REQUIRE(resident_bytes(file) < edges);
    REQUIRE(encode_active(d, at::randn({1, 2, d_in})).size() > 1000);
    (void)d.readers(at::tensor({0, 1000, 200'000}, at::kLong));
    REQUIRE(resident_bytes(file) < edges);
    (void)d.W_enc.to(at::kFloat);
    REQUIRE(resident_bytes(file) > d.W_enc.numel() * 2 - edges);  // what it is that is not there
  }
}

TEST_CASE("a block of columns is bounded, and blocks together are the matrix") {
  for (const bool transposed : {false, true}) {
    auto W = at::randn({d_in, 300'000}).to(at::kHalf);
    if (transposed) W = W.t().contiguous().t();
    std::int64_t next = 0;
    std::int64_t widest = 0;
    for_each_column_block(W, {}, W.size(1), [&](const at::Tensor& block, std::int64_t first) {
      REQUIRE(first == next);
      REQUIRE(block.scalar_type() == at::kFloat);
      REQUIRE(block.stride(transposed ? 0 : 1) == 1);
      REQUIRE_CLOSE(block, W.narrow(1, first, block.size(1)), 0.0);
      widest = std::max(widest, block.size(1));
      next += block.size(1);
    });
    REQUIRE(next == W.size(1));
    REQUIRE(widest * d_in <= std::int64_t{1} << 22);
  }
}

TEST_CASE("gates, folded norms and gradients of half-precision weights are computed in float32") {
  const auto t = random(64, at::kHalf);
  SparseDictionary<> d;
  d.W_enc = t.W_enc;
  d.W_dec = t.W_dec;
  d.b_enc = t.b_enc.to(at::kFloat);
  d.b_out = t.b_dec.to(at::kFloat);
  d.check();
  auto folded = d;
  detail::fold_decoder_norms(folded);
  REQUIRE_CLOSE(folded.W_dec.square().sum(-1), at::full({64}, 1.0), 1e-6);
  const auto x = at::randn({3, d_in});
  REQUIRE_CLOSE(folded.reconstruct(x), d.reconstruct(x), 1e-5);
  auto scaled = d;
  detail::fold_scale(scaled, 3.0, 3.0);
  REQUIRE_CLOSE(scaled.W_enc, t.W_enc.to(at::kFloat).mul(3.0), 0.0);

  const auto leaf = x.clone().set_requires_grad(true);
  d.reconstruct(leaf).sum().backward();
  const auto active = d.encode(x).gt(0).to(at::kFloat);
  REQUIRE_CLOSE(leaf.grad(), active.mul(t.W_dec.to(at::kFloat).sum(-1)).matmul(t.W_enc.to(at::kFloat).t()), 1e-5);
}

TEST_CASE("half precision is stored only beside float32") {
  const auto t = random(8, at::kHalf);
  SparseDictionary<> d;
  d.W_enc = t.W_enc;
  d.W_dec = t.W_dec;
  d.b_enc = t.b_enc.to(at::kDouble);
  REQUIRE_THROWS_AS(d.check(), DTypeError);
  d.b_enc = t.b_enc;
  REQUIRE_THROWS_AS(d.check(), DTypeError);  // nothing is computed in half precision
  d.b_enc = t.b_enc.to(at::kFloat);
  d.W_dec = t.W_dec.to(at::kDouble);
  REQUIRE_THROWS_AS(d.check(), DTypeError);
  d.W_dec = t.W_dec;
  d.check();
}

TEST_CASE("a mapped file that others cut short ends in an error") {
  const Folder folder;
  const auto file = write_by_input(folder, random(5000, at::kHalf));
  const auto d = load_bare(file, DictionaryKind::transcoder).dictionary;
  fs::resize_file(file, 4096);
  REQUIRE_THROWS_AS(encode_active(d, at::randn({1, 1, d_in})), FileError);
}
