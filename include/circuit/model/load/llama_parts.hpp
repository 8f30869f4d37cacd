#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "circuit/io/json.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/load/weight_source.hpp"
#include "circuit/model/weights.hpp"

// What the files of Llama's descendants spell alike.

namespace circuit::detail {

/// Sizes from config.json.
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

/// Attention as Llama's files name it, in block `in`.
[[nodiscard]] inline AttentionWeights llama_attention(const WeightSource& source, const ModelConfig& c,
                                                      const std::string& in) {
  const auto queries = c.n_heads * c.d_head;
  const auto keys = c.n_key_value_heads * c.d_head;
  return {.W_Q = source.transposed_heads(in + "q_proj.weight", c.d_model, queries),
          .W_K = source.transposed_heads(in + "k_proj.weight", c.d_model, keys),
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
