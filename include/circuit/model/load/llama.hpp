#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "circuit/model/architecture/llama.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/rotary.hpp"
#include "circuit/model/load/windows.hpp"

namespace circuit {

/// Files of Llama, Mistral, Qwen2 and Qwen3; matrices lie as (out, in) and are read as transposed views.
template <>
struct HuggingFace<Llama> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& config);
};

}  // namespace circuit

namespace circuit::detail {

/// The sizes that Llama's config and its descendants' spell alike.
/// d_head  where the file is silent; 0: d_model / n_heads
[[nodiscard]] inline ModelConfig llama_sizes(const nlohmann::json& json, const std::filesystem::path& file,
                                             std::int64_t d_head = 0) {
  ModelConfig c;
  c.n_layers = require<std::int64_t>(json, "num_hidden_layers", file);
  c.d_model = require<std::int64_t>(json, "hidden_size", file);
  c.n_heads = require<std::int64_t>(json, "num_attention_heads", file);
  c.n_key_value_heads = value_or(json, "num_key_value_heads", file, c.n_heads);
  if (d_head == 0 && c.n_heads > 0) d_head = c.d_model / c.n_heads;
  c.d_head = value_or(json, "head_dim", file, d_head);
  c.d_mlp = require<std::int64_t>(json, "intermediate_size", file);
  c.d_vocab = require<std::int64_t>(json, "vocab_size", file);
  c.n_ctx = require<std::int64_t>(json, "max_position_embeddings", file);
  c.norm_eps = value_or(json, "rms_norm_eps", file, 1e-6);
  c.check(file.string());
  return c;
}

/// `what` must be one of the words listed; so a model that computes something else is refused.
inline void expect_word(const nlohmann::json& json, const char* key, const std::filesystem::path& file,
                        std::initializer_list<std::string_view> allowed, const std::string& otherwise) {
  const auto got = value_or(json, key, file, otherwise);
  std::string text;
  for (const auto word : allowed) {
    if (got == word) return;
    text += (text.empty() ? "" : " or ") + std::string{word};
  }
  throw ConfigError{{.file = file, .tensor = key, .expected = text, .got = got}};
}

/// Attention as Llama's files name it, in block `in`.
[[nodiscard]] inline AttentionWeights llama_attention(const WeightSource& source, const ModelConfig& c,
                                                      const std::string& in) {
  const auto queries = c.n_heads * c.d_head;
  const auto keys = c.n_key_value_heads * c.d_head;
  return {.W_Q = source.transposed(in + "q_proj.weight", c.d_model, queries),
          .W_K = source.transposed(in + "k_proj.weight", c.d_model, keys),
          .W_V = source.transposed(in + "v_proj.weight", c.d_model, keys),
          .W_O = source.transposed(in + "o_proj.weight", queries, c.d_model),
          .b_Q = source.read_if(c.attn_bias, in + "q_proj.bias", {queries}),
          .b_K = source.read_if(c.attn_bias, in + "k_proj.bias", {keys}),
          .b_V = source.read_if(c.attn_bias, in + "v_proj.bias", {keys}),
          .b_O = source.read_if(c.attn_out_bias, in + "o_proj.bias", {c.d_model}),
          .q_gain = source.read_if(c.head_norms, in + "q_norm.weight", {c.d_head}),
          .k_gain = source.read_if(c.head_norms, in + "k_norm.weight", {c.d_head})};
}

/// The gated MLP as Llama's files name it.
[[nodiscard]] inline MlpWeights llama_mlp(const WeightSource& source, const ModelConfig& c, const std::string& in) {
  return {.W_gate = source.transposed(in + "gate_proj.weight", c.d_model, c.d_mlp),
          .W_in = source.transposed(in + "up_proj.weight", c.d_model, c.d_mlp),
          .W_out = source.transposed(in + "down_proj.weight", c.d_mlp, c.d_model),
          .b_gate = source.read_if(c.mlp_bias, in + "gate_proj.bias", {c.d_mlp}),
          .b_in = source.read_if(c.mlp_bias, in + "up_proj.bias", {c.d_mlp}),
          .b_out = source.read_if(c.mlp_bias, in + "down_proj.bias", {c.d_model})};
}

}  // namespace circuit::detail

namespace circuit {

inline ModelConfig HuggingFace<Llama>::config(const nlohmann::json& json, const std::filesystem::path& file) {
  detail::expect_word(json, "model_type", file, {"llama", "mistral", "qwen2", "qwen3"}, "llama");
  detail::expect_word(json, "hidden_act", file, {activation::Silu::name}, "silu");
  const auto type = value_or<std::string>(json, "model_type", file, "llama");
  auto c = detail::llama_sizes(json, file, type == "qwen3" ? 128 : 0);
  c.score_scale = std::sqrt(static_cast<double>(c.d_head));
  c.tied_unembedding = value_or(json, "tie_word_embeddings", file, false);
  c.attn_bias = type == "qwen2" || value_or(json, "attention_bias", file, false);
  c.attn_out_bias = type != "qwen2" && c.attn_bias;
  c.mlp_bias = value_or(json, "mlp_bias", file, false);
  c.head_norms = type == "qwen3";
  c.windows = detail::read_windows(json, file, type, c.n_layers);
  read_rotary(c, json, file);
  return c;
}

inline ModelWeights HuggingFace<Llama>::weights(const WeightSource& source, const ModelConfig& c) {
  const auto norm = [&](const std::string& name) { return NormWeights{source.read(name + ".weight", {c.d_model}), {}}; };
  ModelWeights w;
  w.W_E = source.read("model.embed_tokens.weight", {c.d_vocab, c.d_model});
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const auto in = "model.layers." + std::to_string(l) + '.';
    BlockWeights block;
    block.ln1 = norm(in + "input_layernorm");
    block.attn = detail::llama_attention(source, c, in + "self_attn.");
    block.ln2 = norm(in + "post_attention_layernorm");
    block.mlp = detail::llama_mlp(source, c, in + "mlp.");
    w.blocks.push_back(std::move(block));
  }
  w.ln_final = norm("model.norm");
  w.W_U = c.tied_unembedding ? w.W_E.t() : source.transposed("lm_head.weight", c.d_model, c.d_vocab);
  return w;
}

}  // namespace circuit
