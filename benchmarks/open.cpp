// What opening a model costs beside copying its weights as floats, and a forward pass beside the same matrix products
// done bare, in the same run: `benchmark_open --model FILE.gguf`, or a Hugging Face folder; with `--half mapped`
// weights of half precision stay as they are in the file, and the bare side has them as floats. Best of several rounds,
// the two sides taking turns. On a machine that does other work too, the processor's time with OMP_NUM_THREADS=1 says
// more than the clock.
#include "circuit/model/open.hpp"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <malloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <limits>
#include <map>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/report/table.hpp"
#include "cost.hpp"

using namespace circuit;

namespace {

/// Whether tensors get fresh pages from the system, as in a process that opens its first model, or memory that this
/// process has touched before. Left alone, the C library decides by what was freed last, for either side of a
/// comparison.
void use_fresh_pages(bool fresh) {
  mallopt(M_MMAP_THRESHOLD, fresh ? 1 << 16 : 1 << 30);
  mallopt(M_TRIM_THRESHOLD, fresh ? 1 << 16 : std::numeric_limits<int>::max());
}

using Model = HookedTransformer<Llama>;

Model open(const std::filesystem::path& path, HalfPrecision half) {
  return open_model<Llama>(path, [](Model model) { return model; }, {.half = half});
}

/// Every weight, each once.
std::vector<at::Tensor> weights_of(const Model& model) {
  const auto& w = model.weights();
  std::vector<at::Tensor> all{w.W_E, w.ln_final.gain};
  if (!model.config().tied_unembedding) all.push_back(w.W_U);
  for (const auto& b : w.blocks) {
    for (const auto& t : {b.ln1.gain, b.ln2.gain, b.attn.W_Q, b.attn.W_K, b.attn.W_V, b.attn.W_O, b.mlp.W_gate,
                          b.mlp.W_in, b.mlp.W_out}) {
      all.push_back(t);
    }
  }
  return all;
}

/// The model's weights as floats.
ModelWeights as_floats(ModelWeights w) {
  for (auto* t : {&w.W_E, &w.W_U}) *t = widened(*t);
  for (auto& b : w.blocks) {
    for (auto* t : {&b.attn.W_Q, &b.attn.W_K, &b.attn.W_V, &b.attn.W_O, &b.mlp.W_gate, &b.mlp.W_in, &b.mlp.W_out}) {
      *t = widened(*t).flatten(1);
    }
  }
  return w;
}

/// The forward pass's products by weights alone: x [tokens, d_model] through each of them, nothing between.
void bare_products(const ModelWeights& w, const at::Tensor& x, const at::Tensor& z, const at::Tensor& post) {
  for (const auto& b : w.blocks) {
    for (const auto& reader : {b.attn.W_Q, b.attn.W_K, b.attn.W_V, b.mlp.W_gate, b.mlp.W_in}) (void)x.matmul(reader);
    (void)z.matmul(b.attn.W_O);
    (void)post.matmul(b.mlp.W_out);
  }
  (void)x.matmul(w.W_U);
}

}  // namespace

int main(int argc, char** argv) {
  std::filesystem::path path;
  std::string json_file;
  int rounds = 7;
  std::int64_t length = 15;
  HalfPrecision half = HalfPrecision::widened;
  CLI::App app{"Opening and running a Llama in GGUF"};
  app.add_option("--model", path, "GGUF file or Hugging Face folder")->required();
  app.add_option("--rounds", rounds, "of which the best counts")->capture_default_str();
  app.add_option("--length", length, "tokens of the prompt")->capture_default_str();
  const std::map<std::string, HalfPrecision> kinds{{"mapped", HalfPrecision::mapped},
                                                   {"widened", HalfPrecision::widened}};
  app.add_option("--half", half, "what becomes of weights of half precision: mapped or widened")
      ->transform(CLI::CheckedTransformer(kinds));
  app.add_option("--json", json_file, "write every figure to this file");
  CLI11_PARSE(app, argc, argv);
  const c10::AutoGradMode no_gradient{false};

  Cost opening[2];
  Cost cloning[2];
  Cost forward;
  Cost bare;
  use_fresh_pages(true);
  const auto model = open(path, half);
  const auto peak_open = peak_mb();
  const auto own_open = PeakMemory::own_mb();
  const auto tokens = make::arange(length, at::TensorOptions{}.dtype(at::kLong)).add(100).unsqueeze(0);
  (void)model.run(tokens);
  const auto peak_run = peak_mb();
  const auto all = weights_of(model);
  std::int64_t count = 0;
  for (const auto& t : all) count += t.numel();
  for (const bool fresh : {true, false}) {
    use_fresh_pages(fresh);
    for (int round = 0; round < rounds; ++round) {
      opening[fresh].measure([&] { (void)open(path, half); });
      cloning[fresh].measure([&] {
        std::vector<at::Tensor> copies;
        for (const auto& t : all) copies.push_back(t.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
      });
    }
  }
  const auto& c = model.config();
  const auto options = at::TensorOptions{}.dtype(at::kFloat);
  const auto x = make::full({length, c.d_model}, 0.01, options);
  const auto z = make::full({length, c.n_heads * c.d_head}, 0.01, options);
  const auto post = make::full({length, c.d_mlp}, 0.01, options);
  const auto floats = as_floats(model.weights());
  for (int round = 0; round < 3 * rounds; ++round) {
    forward.measure([&] { (void)model.run(tokens); });
    bare.measure([&] { bare_products(floats, x, z, post); });
  }

  std::cout << path.filename().string() << ", " << count << " weights, the embedding as "
            << at::toString(model.weights().W_E.scalar_type()) << ", " << at::get_num_threads()
            << " threads, prompt of " << length << " tokens\n";
  TextTable table{{"", "seconds", "beside", "seconds of it", "ratio", "ratio of processor time", "bar"}};
  const auto row = [&](const char* what, const Cost& cost, const char* beside, const Cost& floor, const char* bar) {
    table.add_row({what, fixed(cost.wall, 4), beside, fixed(floor.wall, 4), fixed(cost.wall / floor.wall, 2),
                   fixed(cost.processor / floor.processor, 2), bar});
  };
  row("open", opening[true], "copy the floats", cloning[true], "2.00");
  row("open into memory in use", opening[false], "copy the floats", cloning[false], "-");
  row("forward", forward, "bare products", bare, "1.30");
  std::cout << table << "peak memory after opening " << fixed(peak_open, 0) << " MB, of it not in pages of files then "
            << fixed(own_open, 0) << " MB, after a forward pass " << fixed(peak_run, 0) << " MB; the weights as floats "
            << fixed(static_cast<double>(count) * 4e-6, 0) << " MB\n";
  if (!json_file.empty()) {
    nlohmann::json json{{"weights", count},
                        {"threads", at::get_num_threads()},
                        {"peak_open_mb", peak_open},
                        {"own_open_mb", own_open},
                        {"peak_run_mb", peak_run}};
    const auto put = [&](const std::string& what, const Cost& cost, const std::string& beside, const Cost& floor) {
      json[what] = {{"seconds", cost.wall},
                    {beside + "_seconds", floor.wall},
                    {"ratio", cost.wall / floor.wall},
                    {"processor_ratio", cost.processor / floor.processor}};
    };
    put("open", opening[true], "clone", cloning[true]);
    put("open_into_memory_in_use", opening[false], "clone", cloning[false]);
    put("forward", forward, "bare", bare);
    write_file(json_file, json.dump(2) + '\n');
  }
}
