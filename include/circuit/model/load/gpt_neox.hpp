#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "circuit/model/architecture/gpt_neox.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/rotary.hpp"

namespace circuit {

/// Files of GPT-NeoX and Pythia: queries, keys and values are one matrix, its rows ordered by head, then q, k, v, then the
/// head's dimensions. The unembedding is `embed_out` in files, `lm_head` in a state dict of recent `transformers`.
template <BlockWiring W>
struct HuggingFace<BasicGptNeox<W>> {
  /// throws  ConfigError  also when the file's `use_parallel_residual` is not the type's wiring
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& config);
};

}  // namespace circuit

namespace circuit::detail {

/// The fused matrix and bias taken apart.
[[nodiscard]] inline AttentionWeights neox_attention(const WeightSource& source, const ModelConfig& c,
                                                     const std::string& in) {
  const auto d = c.d_model;
  const auto fused = source.read(in + "query_key_value.weight", {3 * d, d}).view({c.n_heads, 3, c.d_head, d});
  auto bias = source.read_if(c.attn_bias, in + "query_key_value.bias", {3 * d});
  if (bias.defined()) bias = bias.view({c.n_heads, 3, c.d_head});
  const auto matrix = [&](std::int64_t part) { return fused.select(1, part).reshape({d, d}).t(); };
  const auto vector = [&](std::int64_t part) { return bias.defined() ? bias.select(1, part).reshape({d}) : bias; };
  return {.W_Q = matrix(0),
          .W_K = matrix(1),
          .W_V = matrix(2),
          .W_O = source.transposed(in + "dense.weight", d, d),
          .b_Q = vector(0),
          .b_K = vector(1),
          .b_V = vector(2),
          .b_O = source.read_if(c.attn_out_bias, in + "dense.bias", {d})};
}

}  // namespace circuit::detail

namespace circuit {

template <BlockWiring W>
ModelConfig HuggingFace<BasicGptNeox<W>>::config(const nlohmann::json& json, const std::filesystem::path& file) {
  detail::expect_word(json, "model_type", file, {"gpt_neox"}, "gpt_neox");
  detail::expect_word(json, "hidden_act", file, {activation::Gelu::name}, "gelu");
  if (const bool parallel = value_or(json, "use_parallel_residual", file, true); parallel != W::parallel) {
    throw ConfigError{{.file = file,
                       .tensor = "use_parallel_residual",
                       .expected = W::parallel ? "true" : "false",
                       .got = parallel ? "true" : "false",
                       .hint = parallel ? "load it as GptNeox" : "load it as SequentialGptNeox"}};
  }
  ModelConfig c;
  c.n_layers = require<std::int64_t>(json, "num_hidden_layers", file);
  c.d_model = require<std::int64_t>(json, "hidden_size", file);
  c.n_heads = c.n_key_value_heads = require<std::int64_t>(json, "num_attention_heads", file);
  if (c.n_heads <= 0 || c.d_model <= 0 || c.d_model % c.n_heads != 0) {
    throw ConfigError{{.file = file,
                       .tensor = "num_attention_heads",
                       .expected = "a divisor of hidden_size = " + std::to_string(c.d_model),
                       .got = std::to_string(c.n_heads)}};
  }
  c.d_head = c.d_model / c.n_heads;
  c.d_mlp = require<std::int64_t>(json, "intermediate_size", file);
  c.d_vocab = require<std::int64_t>(json, "vocab_size", file);
  c.n_ctx = require<std::int64_t>(json, "max_position_embeddings", file);
  c.norm_eps = value_or(json, "layer_norm_eps", file, 1e-5);
  c.score_scale = std::sqrt(static_cast<double>(c.d_head));
  c.attn_bias = c.attn_out_bias = value_or(json, "attention_bias", file, true);
  c.tied_unembedding = value_or(json, "tie_word_embeddings", file, false);
  read_rotary(c, json, file, value_or(json, "rotary_emb_base", file, 10000.0),
              value_or(json, "rotary_pct", file, 0.25));
  return c;
}

template <BlockWiring W>
ModelWeights HuggingFace<BasicGptNeox<W>>::weights(const WeightSource& source, const ModelConfig& c) {
  const auto d = c.d_model;
  const auto norm = [&](const std::string& name) {
    return NormWeights{source.read(name + ".weight", {d}), source.read(name + ".bias", {d})};
  };
  ModelWeights w;
  w.W_E = source.read("gpt_neox.embed_in.weight", {c.d_vocab, d});
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const auto in = "gpt_neox.layers." + std::to_string(l) + '.';
    BlockWeights block;
    block.ln1 = norm(in + "input_layernorm");
    block.attn = detail::neox_attention(source, c, in + "attention.");
    block.ln2 = norm(in + "post_attention_layernorm");
    block.mlp.W_in = source.transposed(in + "mlp.dense_h_to_4h.weight", d, c.d_mlp);
    block.mlp.b_in = source.read(in + "mlp.dense_h_to_4h.bias", {c.d_mlp});
    block.mlp.W_out = source.transposed(in + "mlp.dense_4h_to_h.weight", c.d_mlp, d);
    block.mlp.b_out = source.read(in + "mlp.dense_4h_to_h.bias", {d});
    w.blocks.push_back(std::move(block));
  }
  w.ln_final = norm("gpt_neox.final_layer_norm");
  const std::string unembedding = source.contains("lm_head.weight") ? "lm_head.weight" : "embed_out.weight";
  w.W_U = c.tied_unembedding ? w.W_E.t() : source.transposed(unembedding, d, c.d_vocab);
  return w;
}

}  // namespace circuit
