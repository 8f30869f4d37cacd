// What encoding to active features costs beside the bare product x W_enc, for every nonlinearity and several numbers of
// features: `benchmark_encode`. Best of several rounds, the two sides taking turns. On a machine that does other work
// too, the processor's time with OMP_NUM_THREADS=1 says more than the clock. `peak MB` is what the first encoding adds
// to the process' high-water mark over the weights and the inputs.
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/report/table.hpp"
#include "cost.hpp"

using namespace circuit;

namespace {

struct Kind {
  const char* name;
  activation::Any activation;
};

std::vector<Kind> kinds(std::int64_t features, std::int64_t active) {
  return {{"relu", {}},
          {"jump_relu", {activation::JumpRelu{at::full({features}, 0.1)}}},
          {"top_k", {activation::TopK{.k = active}}},
          {"group_max", {activation::GroupMax{.groups = 64}}}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"What encoding costs beside the bare product"};
  std::vector<std::int64_t> sizes{16384, 65536, 262144};
  std::int64_t rows = 128;
  std::int64_t d_in = 768;
  int rounds = 5;
  std::string json_file;
  app.add_option("--features", sizes, "numbers of features")->capture_default_str();
  app.add_option("--rows", rows, "prompts times positions")->capture_default_str();
  app.add_option("--d-in", d_in, "width of the input")->capture_default_str();
  app.add_option("--rounds", rounds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--json", json_file, "also write the numbers here");
  CLI11_PARSE(app, argc, argv);

  constexpr std::int64_t active = 50;
  auto json = nlohmann::json::array();
  TextTable table{{"kind", "features", "ms", "ratio", "of processor time", "GFLOP/s", "active per row", "peak MB"}};
  std::sort(sizes.begin(), sizes.end());
  for (const auto features : sizes) {
    const c10::AutoGradMode no_gradient{false};
    SparseDictionary<> d;
    d.W_enc = at::randn({d_in, features}).div_(std::sqrt(static_cast<double>(d_in)));
    d.b_enc = at::full({features}, -2.9);  // about 1 in 500 over 0
    d.W_dec = at::randn({features, 1});
    d.name = "random";
    const auto x = at::randn({1, rows, d_in});
    const auto before = peak_mb();
    const auto encoded = [&](const Kind& kind) {
      d.activation = kind.activation;
      d.check();
      return encode_active(d, x).size();
    };
    const auto all = kinds(features, active);
    for (const auto& kind : all) (void)encoded(kind);
    const auto peak = peak_mb() - before;
    for (const auto& kind : all) {
      Cost encode;
      Cost product;
      std::int64_t found = 0;
      for (int round = 0; round < rounds; ++round) {
        encode.measure([&] { found = encoded(kind); });
        product.measure([&] { (void)x[0].matmul(d.W_enc); });
      }
      const auto gflops = 2.0 * static_cast<double>(rows * d_in * features) / encode.wall / 1e9;
      const auto per_row = static_cast<double>(found) / static_cast<double>(rows);
      const auto by_processor = encode.processor / product.processor;
      table.add_row({kind.name, std::to_string(features), fixed(encode.wall * 1e3, 1),
                     fixed(encode.wall / product.wall, 2), fixed(by_processor, 2), fixed(gflops, 0), fixed(per_row, 0),
                     fixed(peak, 1)});
      json.push_back({{"kind", kind.name},
                      {"features", features},
                      {"seconds", encode.wall},
                      {"ratio", encode.wall / product.wall},
                      {"ratio_of_processor_time", by_processor},
                      {"gflops", gflops},
                      {"active_per_row", per_row},
                      {"peak_mb", peak}});
    }
  }
  std::cout << table;
  if (!json_file.empty()) write_file(json_file, json.dump(2) + '\n');
}
