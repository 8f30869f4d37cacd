#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "circuit/model/architecture/gpt2.hpp"
#include "circuit/model/load.hpp"

namespace circuit {

/// GPT-2's files: Conv1D weights lie as (in, out); names stand with or without the prefix `transformer.`.
template <>
struct HuggingFace<Gpt2> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& config);
};

inline ModelConfig HuggingFace<Gpt2>::config(const nlohmann::json& json, const std::filesystem::path& file) {
  const auto type = value_or<std::string>(json, "model_type", file, "gpt2");
  const auto act = value_or<std::string>(json, "activation_function", file, "gelu_new");
  if (type != "gpt2") {
    throw ConfigError{{.file = file, .tensor = "model_type", .expected = "gpt2", .got = type}};
  }
  if (act != activation::GeluNew::name) {
    throw ConfigError{{.file = file, .tensor = "activation_function", .expected = "gelu_new", .got = act}};
  }
  for (const auto* key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (value_or(json, key, file, false)) {
      throw ConfigError{{.file = file, .tensor = key, .expected = "false", .got = "true"}};
    }
  }
  ModelConfig c;
  c.n_layers = require<std::int64_t>(json, "n_layer", file);
  c.d_model = require<std::int32_t>(json, "n_embd", file);  // which leaves room for its multiples
  c.n_heads = c.n_key_value_heads = require<std::int64_t>(json, "n_head", file);
  c.d_vocab = require<std::int64_t>(json, "vocab_size", file);
  c.n_ctx = require<std::int64_t>(json, find_field(json, "n_positions") != nullptr ? "n_positions" : "n_ctx", file);
  c.norm_eps = value_or(json, "layer_norm_epsilon", file, 1e-5);
  c.d_mlp = value_or(json, "n_inner", file, 4 * c.d_model);
  if (c.n_heads <= 0 || c.d_model <= 0 || c.d_model % c.n_heads != 0) {
    throw ConfigError{{.file = file,
                       .tensor = "n_head",
                       .expected = "a divisor of n_embd = " + std::to_string(c.d_model),
                       .got = std::to_string(c.n_heads)}};
  }
  c.d_head = c.d_model / c.n_heads;
  c.score_scale = value_or(json, "scale_attn_weights", file, true) ? std::sqrt(static_cast<double>(c.d_head)) : 1.0;
  return c;
}

inline ModelWeights HuggingFace<Gpt2>::weights(const WeightSource& source, const ModelConfig& c) {
  const std::string prefix = source.contains("transformer.wte.weight") ? "transformer." : "";
  const auto read = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    return source.read(prefix + name, shape);
  };
  const auto norm = [&](const std::string& name) {
    return NormWeights{read(name + ".weight", {c.d_model}), read(name + ".bias", {c.d_model})};
  };
  const auto d = c.d_model;
  ModelWeights w;
  w.W_E = read("wte.weight", {c.d_vocab, d});
  w.W_pos = read("wpe.weight", {c.n_ctx, d});
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const auto in = "h." + std::to_string(l) + '.';
    const auto qkv = read(in + "attn.c_attn.weight", {d, 3 * d});
    const auto qkv_bias = read(in + "attn.c_attn.bias", {3 * d});
    BlockWeights block;
    block.ln1 = norm(in + "ln_1");
    block.attn = {.W_Q = qkv.narrow(1, 0, d),
                  .W_K = qkv.narrow(1, d, d),
                  .W_V = qkv.narrow(1, 2 * d, d),
                  .W_O = read(in + "attn.c_proj.weight", {d, d}),
                  .b_Q = qkv_bias.narrow(0, 0, d),
                  .b_K = qkv_bias.narrow(0, d, d),
                  .b_V = qkv_bias.narrow(0, 2 * d, d),
                  .b_O = read(in + "attn.c_proj.bias", {d})};
    block.ln2 = norm(in + "ln_2");
    block.mlp = {.W_gate = {},
                 .W_in = read(in + "mlp.c_fc.weight", {d, c.d_mlp}),
                 .W_out = read(in + "mlp.c_proj.weight", {c.d_mlp, d}),
                 .b_gate = {},
                 .b_in = read(in + "mlp.c_fc.bias", {c.d_mlp}),
                 .b_out = read(in + "mlp.c_proj.bias", {d})};
    w.blocks.push_back(std::move(block));
  }
  w.ln_final = norm("ln_f");
  w.W_U = source.contains("lm_head.weight") ? source.transposed("lm_head.weight", d, c.d_vocab) : w.W_E.t();
  return w;
}

#ifdef CIRCUIT_COMPILED
extern template HookedTransformer<Gpt2> load_model<Gpt2>(const std::filesystem::path&, const LoadOptions&);
#endif

}  // namespace circuit
