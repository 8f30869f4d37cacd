#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "circuit/model/architecture/gemma2.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/llama_parts.hpp"
#include "circuit/model/load/rotary.hpp"
#include "circuit/model/load/windows.hpp"

namespace circuit {

/// Gemma 2's files: Llama's names with four norms per block. What stands in `NormWeights` is the effective gain.
template <>
struct HuggingFace<Gemma2> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& config);
};

}  // namespace circuit

namespace circuit::detail {

/// A soft cap, which null switches off.
[[nodiscard]] inline double cap_or(const nlohmann::json& json, const std::string& key,
                                   const std::filesystem::path& file, double otherwise) {
  const auto found = json.find(key);
  return found != json.end() && found->is_null() ? 0.0 : value_or(json, key, file, otherwise);
}

}  // namespace circuit::detail

namespace circuit {

inline ModelConfig HuggingFace<Gemma2>::config(const nlohmann::json& json, const std::filesystem::path& file) {
  detail::expect_word(json, "model_type", file, {"gemma2"}, "gemma2");
  detail::expect_word(json, "hidden_activation", file, {"gelu_pytorch_tanh"}, "gelu_pytorch_tanh");
  if (value_or(json, "use_bidirectional_attention", file, false)) {
    throw ConfigError{{.file = file, .tensor = "use_bidirectional_attention", .expected = "false", .got = "true"}};
  }
  auto c = detail::llama_sizes(json, file, 256);
  const auto scalar = value_or(json, "query_pre_attn_scalar", file, 256.0);
  c.score_scale = scalar > 0 ? std::sqrt(scalar) : 0.0;
  c.score_soft_cap = detail::cap_or(json, "attn_logit_softcapping", file, 50.0);
  c.logit_soft_cap = detail::cap_or(json, "final_logit_softcapping", file, 30.0);
  c.embed_scale = std::sqrt(static_cast<double>(c.d_model));
  c.tied_unembedding = value_or(json, "tie_word_embeddings", file, true);
  c.attn_bias = c.attn_out_bias = value_or(json, "attention_bias", file, false);
  c.windows = detail::read_windows(json, file, "gemma2", c.n_layers);
  read_rotary(c, json, file);
  return c;
}

inline ModelWeights HuggingFace<Gemma2>::weights(const WeightSource& source, const ModelConfig& c) {
  const auto norm = [&](const std::string& name) {
    return NormWeights{source.read(name + ".weight", {c.d_model}).add(1.0), {}};
  };
  ModelWeights w;
  w.W_E = source.read("model.embed_tokens.weight", {c.d_vocab, c.d_model});
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const auto in = "model.layers." + std::to_string(l) + '.';
    BlockWeights block;
    block.ln1 = norm(in + "input_layernorm");
    block.attn = detail::llama_attention(source, c, in + "self_attn.");
    block.ln1_post = norm(in + "post_attention_layernorm");
    block.ln2 = norm(in + "pre_feedforward_layernorm");
    block.mlp = detail::llama_mlp(source, c, in + "mlp.");
    block.ln2_post = norm(in + "post_feedforward_layernorm");
    w.blocks.push_back(std::move(block));
  }
  w.ln_final = norm("model.norm");
  w.W_U = c.tied_unembedding ? w.W_E.t() : source.transposed("lm_head.weight", c.d_model, c.d_vocab);
  return w;
}

}  // namespace circuit
