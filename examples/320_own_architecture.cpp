// An architecture of one's own, from outside the library: parts, where its weights come from, and a search on it.
#include <circuit/leap.hpp>
#include <circuit/report/table.hpp>
#include <iostream>

using namespace circuit;

// A part of its own: models MlpActivation.
struct SquaredRelu {
  [[nodiscard]] static at::Tensor apply(const at::Tensor& x) { return x.relu().square(); }
};

// Attention and an ungated squared-ReLU MLP side by side, RMSNorm, rotary positions.
struct Mine {
  static constexpr std::string_view name = "mine";
  using Norm = norm::RmsNorm;
  using Positions = positions::Rotary;
  using Attention = attention::Causal;
  using Mlp = mlp::Plain<SquaredRelu>;
  using Wiring = wiring::Parallel;
};

// How its files spell sizes and weights. With this, load_model<Mine>(folder) opens config.json and model.safetensors.
template <>
struct circuit::HuggingFace<Mine> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file) {
    ModelConfig c;
    c.n_layers = require<std::int64_t>(json, "layers", file);
    c.d_model = require<std::int64_t>(json, "width", file);
    c.n_heads = c.n_key_value_heads = require<std::int64_t>(json, "heads", file);
    c.d_head = c.rotary_dims = c.d_model / c.n_heads;
    c.d_mlp = 4 * c.d_model;
    c.d_vocab = require<std::int64_t>(json, "vocabulary", file);
    c.n_ctx = value_or<std::int64_t>(json, "context", file, 64);
    c.score_scale = std::sqrt(static_cast<double>(c.d_head));
    return c;
  }
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& c) {
    const auto d = c.d_model;
    ModelWeights w;
    w.W_E = source.read("embed", {c.d_vocab, d});
    w.W_U = w.W_E.t();
    for (std::int64_t l = 0; l < c.n_layers; ++l) {
      const auto in = "layer" + std::to_string(l) + '.';
      const auto norm = source.read(in + "norm", {d});
      BlockWeights block;
      block.ln1.gain = block.ln2.gain = norm;  // both modules read behind one norm
      block.attn.W_Q = source.transposed(in + "q", d, d);
      block.attn.W_K = source.transposed(in + "k", d, d);
      block.attn.W_V = source.transposed(in + "v", d, d);
      block.attn.W_O = source.transposed(in + "o", d, d);
      block.mlp.W_in = source.transposed(in + "up", d, c.d_mlp);
      block.mlp.W_out = source.transposed(in + "down", c.d_mlp, d);
      w.blocks.push_back(std::move(block));
    }
    w.ln_final.gain = source.read("norm", {d});
    return w;
  }
};

// Weights need not lie in a file: here they are waves, shaped by their names.
at::Tensor wave(const std::string& name) {
  constexpr std::int64_t d = 16;
  const auto part = name.substr(name.find('.') + 1);
  const std::vector<std::int64_t> shape = part == "norm"    ? std::vector{d}
                                          : part == "embed" ? std::vector{std::int64_t{30}, d}
                                          : part == "up"    ? std::vector{4 * d, d}
                                          : part == "down"  ? std::vector{d, 4 * d}
                                                            : std::vector{d, d};
  std::int64_t size = 1;
  for (const auto n : shape) size *= n;
  double seed = 0;
  for (const char c : name) seed = seed * 7 + c;
  return make::arange(size, at::kDouble).mul(1.7).add(seed).sin().view(shape);
}

int main() {
  const auto json = nlohmann::json{{"layers", 2}, {"width", 16}, {"heads", 4}, {"vocabulary", 30}};
  const WeightSource waves{[](const std::string&) { return true; }, wave, "waves", at::kDouble};
  const auto model = build_model<Mine>(HuggingFace<Mine>::config(json, "waves"), waves, {.dtype = at::kDouble});

  const std::vector<std::vector<std::int32_t>> prompt{{3, 1, 4, 1, 5}};
  const std::vector<std::int64_t> answer{9};
  const std::vector<std::int64_t> other{2};
  const LogitDifference metric{answer, other};

  // With no dictionary, whole modules are the nodes; their shares and the embeddings' sum to the metric.
  const Leap search{.keep = keep::All{}, .contrast = contrast::None{}};
  const auto found = search(model, DictionarySet{}, {to_tokens(prompt), {}}, metric);
  double sum = 0;
  for (const auto& edge : found.incoming(Node::metric())) {
    if (edge.up.position == Position{4}) {
      std::cout << edge.up << ' ' << fixed(edge.edge.em_attrib, 3) << '\n';
    }
    sum += edge.edge.em_attrib;
  }
  std::cout << "sum " << fixed(sum, 3) << ", logit difference "
            << fixed(mean(metric, model.run(to_tokens(prompt)).logits).item<double>(), 3) << '\n';
}
