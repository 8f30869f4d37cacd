// A step of training a sparse dictionary beside its five bare matrix products in float32: what it costs to be more than
// those, and what products of bfloat16 save.

#include <ATen/Parallel.h>
#include <ATen/ops/randn.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "circuit/core/atomic_file.hpp"
#include "circuit/dictionary/train/activation/batch_top_k.hpp"
#include "circuit/dictionary/train/activation/jump_relu.hpp"
#include "circuit/dictionary/train/activation/relu.hpp"
#include "circuit/dictionary/train/activation/top_k.hpp"
#include "circuit/dictionary/train/trainer.hpp"
#include "circuit/report/table.hpp"
#include "cost.hpp"

using namespace circuit;

namespace {

struct Sizes {
  std::int64_t width = 576;
  std::int64_t features = 4096;
  std::int64_t batch = 2048;
  int rounds = 5;
};

/// x W_enc, acts W_dec, the gradients of acts, W_dec and W_enc.
void bare_products(const at::Tensor& x, const at::Tensor& W_enc, const at::Tensor& W_dec) {
  const auto acts = x.matmul(W_enc);
  const auto out = acts.matmul(W_dec);
  const auto grad_acts = out.matmul(W_dec.t());
  (void)acts.t().matmul(out);
  (void)x.t().matmul(grad_acts);
}

template <class A, class Products = train::products::Full>
nlohmann::json measure(const char* name, const Sizes& s, A activation, Products products = {}) {
  const auto x = at::randn({s.batch, s.width});
  train::Options options;
  options.features = s.features;
  train::Trainer trainer{x, x, train::Target::same, options, activation, train::dead::Auxiliary{}, products};
  const auto W_enc = at::randn({s.width, s.features});
  const auto W_dec = at::randn({s.features, s.width});
  Cost step;
  Cost bare;
  for (int round = 0; round <= s.rounds; ++round) {
    step.measure([&] { (void)trainer.step(x, x); });
    bare.measure([&] { bare_products(x, W_enc, W_dec); });
  }
  const auto flops = 10.0 * static_cast<double>(s.batch * s.width * s.features);
  return {{"activation", name},
          {"tokens_per_second", static_cast<double>(s.batch) / step.wall},
          {"ratio", step.wall / bare.wall},
          {"ratio_of_processor_time", step.processor / bare.processor},
          {"gflops_bare", flops / bare.wall / 1e9}};
}

}  // namespace

int main(int argc, char** argv) {
  Sizes s;
  int threads = 1;
  std::string json_file;
  CLI::App app{"Times steps of training a sparse dictionary"};
  app.add_option("--width", s.width)->capture_default_str();
  app.add_option("--features", s.features)->capture_default_str();
  app.add_option("--batch", s.batch, "tokens")->capture_default_str();
  app.add_option("--rounds", s.rounds, "of which the fastest counts")->capture_default_str();
  app.add_option("--threads", threads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--json", json_file, "write the numbers to this file");
  CLI11_PARSE(app, argc, argv);
  const c10::AutoGradMode no_gradient{false};
  at::set_num_threads(threads);
  nlohmann::json json;
  json.push_back(measure("TopK", s, train::TopK{.k = 32}));
  json.push_back(measure("BatchTopK", s, train::BatchTopK{.k = 32}));
  json.push_back(measure("BatchTopK, bfloat16", s, train::BatchTopK{.k = 32}, train::products::Bfloat16{}));
  json.push_back(measure("JumpReLU", s, train::JumpRelu{.price = {.wished = 32}}));
  json.push_back(measure("ReLU", s, train::Relu{.price = {.wished = 32}}));
  TextTable table{{"activation", "tokens/s", "of the bare products", "by processor time", "bare GFLOP/s"}};
  for (const auto& row : json) {
    table.add_row({row["activation"].get<std::string>(), fixed(row["tokens_per_second"].get<double>(), 0),
                   fixed(row["ratio"].get<double>(), 2), fixed(row["ratio_of_processor_time"].get<double>(), 2),
                   fixed(row["gflops_bare"].get<double>(), 0)});
  }
  std::cout << table;
  if (!json_file.empty()) write_file(json_file, json.dump(2) + '\n');
}
