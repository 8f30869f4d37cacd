// What encoding to active features costs beside the bare product x W_enc, for every nonlinearity and several numbers of
// features, from weights in memory and from a mapped half-precision file: `benchmark_encode`. The bare side is the
// float32 product with the whole encoder, already widened, and for a file one bare widening pass over the encoder's
// mapped bytes. Best of several rounds, the two sides taking turns. On a machine that does other work too, the
// processor's time with OMP_NUM_THREADS=1 says more than the clock. `peak MB` is what loading a file and the first
// encodings add to the process' memory at most.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/load/bare.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/report/table.hpp"
#include "cost.hpp"

using namespace circuit;

namespace {

struct Settings {
  std::vector<std::int64_t> features{16384, 65536, 262144, 1048576};
  std::int64_t rows = 128;
  std::int64_t d_in = 768;
  int rounds = 5;
  std::vector<std::string> stored{"float32", "float16", "bfloat16"};
  std::vector<std::string> kinds{"relu", "jump_relu", "top_k", "group_max"};
  std::string json_file;
};

struct Kind {
  const char* name;
  activation::Any activation;
};

std::vector<Kind> kinds(std::int64_t features) {
  constexpr std::int64_t active = 50;
  return {{"relu", {}},
          {"jump_relu", {activation::JumpRelu{at::full({features}, 0.1)}}},
          {"top_k", {activation::TopK{.k = active}}},
          {"group_max", {activation::GroupMax{.groups = 64}}}};
}

/// Random weights of which about 1 feature in 500 is active. Readers repeat after 16,384 features, so that a million of
/// them are soon made; biases do not.
DictionaryWeights random_weights(std::int64_t d_in, std::int64_t features, at::ScalarType stored) {
  constexpr std::int64_t period = 16384;
  const auto W_enc = at::empty({d_in, features}, stored);
  const auto some = at::randn({d_in, std::min(period, features)}).div_(std::sqrt(static_cast<double>(d_in)));
  for (std::int64_t first = 0; first < features; first += period) {
    const auto count = std::min(period, features - first);
    W_enc.narrow(1, first, count).copy_(some.narrow(1, 0, count));
  }
  return {.W_enc = W_enc,
          .b_enc = at::rand({features}).mul_(0.1).sub_(2.95),
          .W_dec = at::randn({features, 1}, stored),
          .b_in = {},
          .b_out = {},
          .name = "random"};
}

/// The same in a file.
void write_dictionary(const std::filesystem::path& file, const DictionaryWeights& weights) {
  write_safetensors(
      file, std::vector<TensorView>{to_view("W_enc", weights.W_enc), to_view("b_enc", weights.b_enc),
                                    to_view("W_dec", weights.W_dec), to_view("b_dec", at::zeros({weights.d_in()})),
                                    to_view("b_dec_out", at::zeros({1}))});
}

/// A file that is gone when this is.
struct TemporaryFile {
  std::filesystem::path path = std::filesystem::temp_directory_path() / ("encode." + std::to_string(::getpid()));
  ~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
};

struct Bench {
  Settings settings;
  nlohmann::json json = nlohmann::json::array();
  TextTable table{{"stored", "kind", "features", "ms", "ratio", "of processor time", "GFLOP/s", "GB/s",
                   "active per row", "peak MB"}};

  void run(const std::string& stored, std::int64_t features);
};

/// Encodes with one dictionary, and beside it does the bare work.
void Bench::run(const std::string& stored, std::int64_t features) {
  const auto x = at::randn({1, settings.rows, settings.d_in});
  const bool from_file = stored != "float32";
  const TemporaryFile file;
  SparseDictionary<> d;
  const auto dtype = stored == "float16" ? at::kHalf : stored == "bfloat16" ? at::kBFloat16 : at::kFloat;
  static_cast<DictionaryWeights&>(d) = random_weights(settings.d_in, features, dtype);
  if (from_file) {
    write_dictionary(file.path, d);
    d = {};
  }
  auto all = kinds(features);
  std::erase_if(all, [&](const Kind& kind) { return std::ranges::count(settings.kinds, kind.name) == 0; });
  const PeakMemory peak;
  if (from_file) d = load_bare(file.path, DictionaryKind::transcoder).dictionary;
  const auto encoded = [&](const Kind& kind) {
    d.activation = kind.activation;
    d.check();
    return encode_active(d, x).size();
  };
  for (const auto& kind : all) (void)encoded(kind);
  const auto peak_mb = peak.mb();
  const auto wide = from_file ? at::empty({settings.d_in, features}) : d.W_enc;
  for (const auto& kind : all) {
    Cost encode;
    Cost product;
    Cost widening;
    std::int64_t found = 0;
    for (int round = 0; round < settings.rounds; ++round) {
      encode.measure([&] { found = encoded(kind); });
      if (from_file) widening.measure([&] { wide.copy_(d.W_enc); });
      product.measure([&] { (void)x[0].matmul(wide); });
    }
    if (!from_file) widening = {0, 0};
    const auto bare = product.wall + widening.wall;
    const auto gflops = 2.0 * static_cast<double>(settings.rows * settings.d_in * features) / encode.wall / 1e9;
    const auto gb_s = static_cast<double>(d.W_enc.nbytes()) / encode.wall / 1e9;
    const auto by_processor = encode.processor / (product.processor + widening.processor);
    const auto per_row = static_cast<double>(found) / static_cast<double>(settings.rows);
    table.add_row({stored, kind.name, std::to_string(features), fixed(encode.wall * 1e3, 1),
                   fixed(encode.wall / bare, 2), fixed(by_processor, 2), fixed(gflops, 0), fixed(gb_s, 2),
                   fixed(per_row, 0), fixed(peak_mb, 1)});
    json.push_back({{"stored", stored},
                    {"kind", kind.name},
                    {"features", features},
                    {"seconds", encode.wall},
                    {"bare_product_seconds", product.wall},
                    {"bare_widening_seconds", widening.wall},
                    {"ratio", encode.wall / bare},
                    {"ratio_of_processor_time", by_processor},
                    {"gflops", gflops},
                    {"gb_s", gb_s},
                    {"active_per_row", per_row},
                    {"peak_mb", peak_mb}});
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What encoding costs beside the bare product"};
  Settings s;
  app.add_option("--features", s.features, "numbers of features")->capture_default_str();
  app.add_option("--rows", s.rows, "prompts times positions")->capture_default_str();
  app.add_option("--d-in", s.d_in, "width of the input")->capture_default_str();
  app.add_option("--rounds", s.rounds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--stored", s.stored, "float32 (in memory), float16, bfloat16 (mapped files)")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}))
      ->capture_default_str();
  app.add_option("--kinds", s.kinds)
      ->check(CLI::IsMember({"relu", "jump_relu", "top_k", "group_max"}))
      ->capture_default_str();
  app.add_option("--json", s.json_file, "also write the numbers here");
  CLI11_PARSE(app, argc, argv);
  const c10::AutoGradMode no_gradient{false};
  std::sort(s.features.begin(), s.features.end());
  Bench bench{s};
  for (const auto& stored : s.stored) {
    for (const auto features : s.features) bench.run(stored, features);
  }
  std::cout << bench.table;
  if (!s.json_file.empty()) write_file(s.json_file, bench.json.dump(2) + '\n');
}
