// LEAP at GPT-2 small's size with random weights, beside the floor: the forward passes, the backward pass and the
// encodings that any such search needs, in plain ATen. Weights lie in files (5 GB in a temporary folder) and are mapped, as
// a user's are. Only features count as upstream, since random dictionaries leave errors that would fill every rank.
// Prints seconds by stage; --json FILE writes every figure.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "circuit/leap.hpp"

using namespace circuit;

namespace {

struct Sizes {
  std::int64_t layers = 12;
  std::int64_t d_model = 768;
  std::int64_t heads = 12;
  std::int64_t vocabulary = 50257;
  std::int64_t features = 24576;
  std::int64_t active = 50;
  std::int64_t prompts = 8;
  std::int64_t length = 17;
  std::int64_t top = 22;  ///< edges kept per layer and type
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The peak resident memory of this process, from the kernel.
double peak_mb() {
  std::ifstream status{"/proc/self/status"};
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024.0;
  }
  return 0;
}

at::Tensor normal(at::IntArrayRef shape, double scale) { return at::randn(shape, at::kFloat).mul_(scale); }

/// A Hugging Face folder of GPT-2's architecture with random weights, large enough for every layer to matter.
void write_random_gpt2(const Sizes& s, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const auto d = s.d_model;
  const double reading = 1.0 / std::sqrt(static_cast<double>(d));
  const nlohmann::json config{{"model_type", "gpt2"},
                              {"n_layer", s.layers},
                              {"n_embd", d},
                              {"n_head", s.heads},
                              {"vocab_size", s.vocabulary},
                              {"n_positions", 1024},
                              {"activation_function", "gelu_new"}};
  write_file(folder / "config.json", config.dump());
  std::vector<TensorView> tensors;
  const auto add = [&](const std::string& name, const at::Tensor& t) { tensors.push_back(to_view(name, t)); };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", at::ones({d}));
    add(name + ".bias", normal({d}, 0.05));
  };
  add("wte.weight", normal({s.vocabulary, d}, 1.0));
  add("wpe.weight", normal({1024, d}, 0.3));
  for (std::int64_t l = 0; l < s.layers; ++l) {
    const auto in = "h." + std::to_string(l) + '.';
    norm(in + "ln_1");
    add(in + "attn.c_attn.weight", at::cat({normal({d, 2 * d}, 1.5 * reading), normal({d, d}, reading)}, 1));
    add(in + "attn.c_attn.bias", normal({3 * d}, 0.1));
    add(in + "attn.c_proj.weight", normal({d, d}, 2 * reading));
    add(in + "attn.c_proj.bias", normal({d}, 0.1));
    norm(in + "ln_2");
    add(in + "mlp.c_fc.weight", normal({d, 4 * d}, reading));
    add(in + "mlp.c_fc.bias", normal({4 * d}, 0.1));
    add(in + "mlp.c_proj.weight", normal({4 * d, d}, reading));
    add(in + "mlp.c_proj.bias", normal({d}, 0.1));
  }
  norm("ln_f");
  write_safetensors(folder / "model.safetensors", tensors, {});
}

/// A dictionary whose threshold leaves about `active` features active on `inputs` [batch, pos, d_model].
void write_random_dictionary(const Sizes& s, const at::Tensor& inputs, bool transcoder,
                             const std::filesystem::path& file) {
  const auto width = s.d_model;
  const double scale = 1.0 / std::sqrt(static_cast<double>(width));
  const auto W_enc = normal({width, s.features}, scale);
  const auto b_dec = normal({width}, 0.01);
  const auto pre = inputs.flatten(0, 1).narrow(0, 0, s.length).sub(b_dec).matmul(W_enc);
  const auto threshold = std::get<0>(pre.topk(s.active, -1)).select(-1, -1).mean();
  std::vector<TensorView> tensors{to_view("W_enc", W_enc), to_view("b_enc", threshold.neg().expand({s.features})),
                                  to_view("W_dec", normal({s.features, width}, 0.5 * scale)), to_view("b_dec", b_dec)};
  if (transcoder) tensors.push_back(to_view("b_dec_out", normal({width}, 0.01)));
  write_safetensors(file, tensors, {});
}

/// Prompts of one template: names differ between prompts and between clean and corrupt, the rest is shared.
std::pair<at::Tensor, at::Tensor> prompts(const Sizes& s) {
  auto clean = at::randint(s.vocabulary, {1, s.length}, at::kLong).repeat({s.prompts, 1});
  const auto names = [&](at::Tensor tokens) {
    tokens = tokens.clone();
    for (const std::int64_t p : {3, 5, 11}) {
      if (p < s.length) tokens.select(1, p).copy_(at::randint(s.vocabulary, {s.prompts}, at::kLong));
    }
    return tokens;
  };
  return {names(clean), names(clean)};
}

struct World {
  HookedTransformer<Gpt2> model;
  DictionarySet dictionaries;
  PromptPair prompts;
  LogitDifference metric;
};

void write_world(const Sizes& s, const std::filesystem::path& folder) {
  auto generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(1);
  write_random_gpt2(s, folder / "model");
  const auto model = load_model<Gpt2>(folder / "model");
  const auto cache = model.run(prompts(s).first, record<hook::attn::z, hook::ln2::normalized>()).cache;
  std::filesystem::create_directories(folder / "dictionaries");
  for (std::int32_t l = 0; l < s.layers; ++l) {
    const auto file = [&](const std::string& module) {
      return folder / "dictionaries" / (module + '.' + std::to_string(l) + ".safetensors");
    };
    write_random_dictionary(s, cache.get<hook::attn::z>(Layer{l}).flatten(2), false, file("attn"));
    write_random_dictionary(s, cache.get<hook::ln2::normalized>(Layer{l}), true, file("mlp"));
  }
}

World load_world(const Sizes& s, const std::filesystem::path& folder) {
  auto generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(2);
  const auto [clean, corrupt] = prompts(s);
  std::vector<std::vector<std::int64_t>> right;
  std::vector<std::vector<std::int64_t>> wrong;
  for (std::int64_t b = 0; b < s.prompts; ++b) {
    right.push_back({100 + b});
    wrong.push_back({200 + b});
  }
  return {load_model<Gpt2>(folder / "model"),
          load_dictionaries(folder / "dictionaries", folder / "dictionaries"),
          {clean, corrupt},
          LogitDifference{right, wrong}};
}

constexpr SourceOptions features_only{.errors = false, .embeddings = false};

/// What any such search has to do, in plain ATen: two forward passes, one backward to activations, two encodings.
struct Floor {
  double seconds = 0;
  double encode_seconds = 0;
  double gemm_seconds = 0;
  double encode_gflop = 0;
};

at::Tensor plain_forward(const HookedTransformer<Gpt2>& model, const at::Tensor& tokens, bool differentiate,
                         std::vector<at::Tensor>& inputs, std::vector<at::Tensor>& outputs) {
  const auto& w = model.weights();
  const auto& c = model.config();
  const auto length = tokens.size(1);
  const auto batch = tokens.size(0);
  const auto norm = [&](const at::Tensor& x) {
    return x.sub(x.mean(-1, true)).div(x.var(-1, false, true).add(c.norm_eps).sqrt());
  };
  auto x = w.W_E.index_select(0, tokens.flatten()).view({batch, length, c.d_model}).add(w.W_pos.narrow(0, 0, length));
  if (differentiate) x.requires_grad_(true);
  const auto future = at::ones({length, length}, at::kBool).triu(1);
  for (const auto& b : w.blocks) {
    const auto n = norm(x);
    const auto heads = [&](const at::Tensor& W, const at::Tensor& bias) {
      return affine(n, W, bias).view({batch, length, c.n_heads, c.d_head}).transpose(1, 2);
    };
    const auto scores =
        heads(b.attn.W_Q, b.attn.b_Q).matmul(heads(b.attn.W_K, b.attn.b_K).transpose(2, 3)).div(c.score_scale);
    const auto pattern = scores.masked_fill(future, -std::numeric_limits<float>::infinity()).softmax(-1);
    const auto z = pattern.matmul(heads(b.attn.W_V, b.attn.b_V)).transpose(1, 2).reshape({batch, length, c.d_model});
    inputs.push_back(z.detach());
    const auto attn_out = affine(z, b.attn.W_O, b.attn.b_O);
    const auto mid = x.add(attn_out);
    const auto n2 = norm(mid);
    inputs.push_back(n2.detach());
    const auto mlp_out =
        affine(activation::GeluNew::apply(affine(n2, b.mlp.W_in, b.mlp.b_in)), b.mlp.W_out, b.mlp.b_out);
    outputs.push_back(attn_out);
    outputs.push_back(mlp_out);
    x = mid.add(mlp_out);
  }
  return affine(norm(x), w.W_U, w.b_U);
}

Floor measure_floor(const World& world, const Sizes& s) {
  Floor floor;
  const auto start = std::chrono::steady_clock::now();
  std::vector<at::Tensor> clean_inputs;
  std::vector<at::Tensor> corrupt_inputs;
  {
    std::vector<at::Tensor> outputs;
    const c10::AutoGradMode on{true};
    const auto logits = plain_forward(world.model, world.prompts.clean, true, clean_inputs, outputs);
    if (gradient_of(world.metric.per_prompt(logits).sum(), outputs).empty())
      throw ValueError{{.problem = "no gradient"}};
  }
  const c10::AutoGradMode off{false};
  {
    std::vector<at::Tensor> outputs;
    plain_forward(world.model, world.prompts.corrupt, false, corrupt_inputs, outputs);
  }
  const auto encodings = std::chrono::steady_clock::now();
  std::int64_t active = 0;
  for (const auto* inputs : {&clean_inputs, &corrupt_inputs}) {
    for (std::int32_t l = 0; l < s.layers; ++l) {
      const auto slot = static_cast<std::size_t>(l);
      for (const auto& [dictionary, x] : {std::pair{world.dictionaries.attn(Layer{l}), (*inputs)[2 * slot]},
                                          std::pair{world.dictionaries.mlp(Layer{l}), (*inputs)[2 * slot + 1]}}) {
        const auto acts = x.flatten(0, 1).sub(dictionary->b_in).mm(dictionary->W_enc).add_(dictionary->b_enc).relu_();
        active += acts.size(0);
      }
    }
  }
  floor.encode_seconds = seconds_since(encodings);
  floor.seconds = seconds_since(start);
  if (active == 0) throw ValueError{{.problem = "the floor encoded nothing"}};

  const auto rows = s.prompts * s.length;
  floor.encode_gflop = 2.0 * 2.0 * static_cast<double>(2 * s.layers * rows * s.d_model * s.features) * 1e-9;
  const auto gemms = std::chrono::steady_clock::now();
  for (int run = 0; run < 2; ++run) {
    for (std::int32_t l = 0; l < s.layers; ++l) {
      const auto slot = static_cast<std::size_t>(l);
      clean_inputs[2 * slot].flatten(0, 1).mm(world.dictionaries.attn(Layer{l})->W_enc);
      clean_inputs[2 * slot + 1].flatten(0, 1).mm(world.dictionaries.mlp(Layer{l})->W_enc);
    }
  }
  floor.gemm_seconds = seconds_since(gemms);
  return floor;
}

struct Timed {
  double seconds = 0;
  std::map<std::string, double> stages;
  Circuit circuit;
};

template <class Search>
Timed time_search(const World& world, const Search& search) {
  Timed out;
  const auto start = std::chrono::steady_clock::now();
  out.circuit = search(world.model, world.dictionaries, world.prompts, world.metric,
                       [&](const StageDone& e) { out.stages[std::string{e.stage}] += e.seconds; });
  out.seconds = seconds_since(start);
  return out;
}

/// What `work` returns in a process of its own.
template <class Work>
double in_child(Work&& work) {
  int ends[2];
  if (pipe(ends) != 0) throw FileError{{.problem = "no pipe"}};
  const auto child = fork();
  if (child == 0) {
    double peak = -1;
    try {
      peak = work();
    } catch (const std::exception& e) {
      std::cerr << e.what() << '\n';
    }
    const auto written = write(ends[1], &peak, sizeof peak);
    _exit(written == sizeof peak ? 0 : 1);
  }
  close(ends[1]);
  double peak = -1;
  if (read(ends[0], &peak, sizeof peak) != sizeof peak) peak = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return peak;
}

double mb(const at::Tensor& t) { return t.defined() ? static_cast<double>(t.nbytes()) / 1048576.0 : 0.0; }

/// The processed model once, the encoders, and the decoder rows that are active on any prompt.
double weights_mb(const World& world, const Sizes& s) {
  const auto& w = world.model.weights();
  double sum = mb(w.W_E) + mb(w.W_pos) + mb(w.W_U) + mb(w.b_U);
  for (const auto& b : w.blocks) {
    for (const auto* t : {&b.attn.W_Q, &b.attn.W_K, &b.attn.W_V, &b.attn.W_O, &b.mlp.W_in, &b.mlp.W_out}) sum += mb(*t);
  }
  for (std::int32_t l = 0; l < s.layers; ++l) {
    const Layer layer{l};
    sum += mb(world.dictionaries.attn(layer)->W_enc) + mb(world.dictionaries.mlp(layer)->W_enc);
  }
  for (std::int32_t l = 0; l < s.layers; ++l) {
    std::set<std::int64_t> attn;
    std::set<std::int64_t> mlp;
    for (const auto* tokens : {&world.prompts.clean, &world.prompts.corrupt}) {
      const auto cache =
          world.model.run(*tokens, record<hook::attn::z, hook::ln2::normalized>({.layers = {Layer{l}}})).cache;
      const auto a = world.dictionaries.active_attn(Layer{l}, cache.get<hook::attn::z>(Layer{l}).flatten(2));
      const auto m = world.dictionaries.active_mlp(Layer{l}, cache.get<hook::ln2::normalized>(Layer{l}));
      attn.insert(a.feature.begin(), a.feature.end());
      mlp.insert(m.feature.begin(), m.feature.end());
    }
    sum += static_cast<double>((attn.size() + mlp.size()) * static_cast<std::size_t>(s.d_model) * sizeof(float)) /
           1048576.0;
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"LEAP against its floor at GPT-2 small's size, random weights"};
  Sizes s;
  std::string json_file;
  std::string scratch = std::filesystem::temp_directory_path().string();
  int repeats = 3;
  app.add_option("--json", json_file, "write every figure to this file");
  app.add_option("--scratch", scratch, "folder for 5 GB of weights while it runs");
  app.add_option("--layers", s.layers, "layers");
  app.add_option("--features", s.features, "features per dictionary");
  app.add_option("--prompts", s.prompts, "prompts");
  app.add_option("--length", s.length, "tokens per prompt");
  app.add_option("--top", s.top, "edges kept per layer and type");
  app.add_option("--repeats", repeats, "runs of each; the fastest counts");
  CLI11_PARSE(app, argc, argv);

  const auto folder = std::filesystem::path{scratch} / ("circuit-benchmark-" + std::to_string(getpid()));
  struct Remove {
    std::filesystem::path folder;
    ~Remove() {
      std::error_code ignored;
      std::filesystem::remove_all(folder, ignored);
    }
  } const remove{folder};
  const Leap exact{.keep = keep::TopPerLayer{.n = s.top}, .sources = features_only};
  const Leap mean{.keep = keep::TopPerLayer{.n = s.top}, .batching = batching::MeanFirst{}, .sources = features_only};

  // In processes of their own, before this one holds anything.
  if (in_child([&] {
        write_world(s, folder);
        return 0.0;
      }) != 0.0)
    return 1;
  const double peak = in_child([&] {
    const auto child = load_world(s, folder);
    return exact(child.model, child.dictionaries, child.prompts, child.metric).empty() ? -1.0 : peak_mb();
  });
  const auto world = load_world(s, folder);
  const double weights = weights_mb(world, s);

  Floor floor;
  Timed search;
  Timed batch_mean;
  std::vector<double> ratios;
  for (int r = 0; r < repeats; ++r) {  // in turn, so that a slow minute of the machine meets all three
    const auto f = measure_floor(world, s);
    auto e = time_search(world, exact);
    auto m = time_search(world, mean);
    std::cerr << "floor " << f.seconds << " s  search " << e.seconds << " s  batch mean " << m.seconds << " s\n";
    if (r == 0 || f.seconds < floor.seconds) floor = f;
    if (r == 0 || e.seconds < search.seconds) search = std::move(e);
    if (r == 0 || m.seconds < batch_mean.seconds) batch_mean = std::move(m);
  }

  std::map<std::string, std::size_t> by_type;
  std::map<std::string, std::size_t> by_layer;
  std::set<Node> expanded;
  for (const auto& e : search.circuit.edges()) {
    ++by_type[std::string{name(e.edge.type)}];
    if (e.down.kind != NodeKind::metric) ++by_layer[std::to_string(e.down.layer.value)];
    expanded.insert(e.down);
  }
  const double floor_gflops = floor.encode_gflop / floor.encode_seconds;
  const double gemm_gflops = floor.encode_gflop / floor.gemm_seconds;
  const nlohmann::json figures{{"ratio", search.seconds / floor.seconds},
                               {"ratio_batch_mean", batch_mean.seconds / floor.seconds},
                               {"floor_s", floor.seconds},
                               {"floor_gflops", floor_gflops},
                               {"gemm_gflops", gemm_gflops},
                               {"search_s", search.seconds},
                               {"search_batch_mean_s", batch_mean.seconds},
                               {"stages_s", search.stages},
                               {"stages_batch_mean_s", batch_mean.stages},
                               {"peak_mb", peak},
                               {"weights_mb", weights},
                               {"edges_by_type", by_type},
                               {"edges_by_layer", by_layer},
                               {"targets_expanded", expanded.size()}};
  std::cout << figures.dump(2) << '\n';
  if (!json_file.empty()) write_file(json_file, figures.dump(2) + '\n');

  const auto edges = search.circuit.edge_count();
  if (edges < 500 || edges > 2000 || by_type.size() < 5 || by_layer.size() != static_cast<std::size_t>(s.layers)) {
    std::cerr << "the search found " << edges << " edges of " << by_type.size() << " types in " << by_layer.size()
              << " layers\n";
    return 1;
  }
  if (floor_gflops < 0.85 * gemm_gflops) {
    std::cerr << "the floor's encoding is slower than 85% of the bare products\n";
    return 1;
  }
  return 0;
} catch (const std::exception& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
