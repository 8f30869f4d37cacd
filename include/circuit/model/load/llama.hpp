#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "circuit/model/architecture/llama.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/llama_parts.hpp"
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
  const auto norm = [&](const std::string& name) {
    return NormWeights{source.read(name + ".weight", {c.d_model}), {}};
  };
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

#ifdef CIRCUIT_COMPILED
extern template HookedTransformer<Llama> load_model<Llama>(const std::filesystem::path&, const LoadOptions&);
#endif

}  // namespace circuit
