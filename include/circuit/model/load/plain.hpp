#pragma once

#include <cmath>
#include <filesystem>
#include <string>
#include <utility>

#include "circuit/model/architecture/plain.hpp"
#include "circuit/model/load.hpp"

namespace circuit {

/// TransformerLens' own state dict and config of a model with `normalization_type` null, which no Hugging Face class can
/// hold: weights by head, named `blocks.0.attn.W_Q`. `attn_only` must be the type's answer.
template <MlpKind M>
struct HuggingFace<BasicPlain<M>> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const WeightSource& source, const ModelConfig& config);
};

}  // namespace circuit

namespace circuit::detail {

/// Attention by head, joined head-major.
[[nodiscard]] inline AttentionWeights plain_attention(const WeightSource& source, const ModelConfig& c,
                                                      const std::string& in) {
  const auto reader = [&](const char* name) {
    return source.read(in + name, {c.n_heads, c.d_model, c.d_head}).transpose(0, 1).flatten(1);
  };
  const auto bias = [&](const char* name) { return source.read(in + name, {c.n_heads, c.d_head}).flatten(); };
  return {.W_Q = reader("W_Q"),
          .W_K = reader("W_K"),
          .W_V = reader("W_V"),
          .W_O = source.read(in + "W_O", {c.n_heads, c.d_head, c.d_model}).flatten(0, 1),
          .b_Q = bias("b_Q"),
          .b_K = bias("b_K"),
          .b_V = bias("b_V"),
          .b_O = source.read(in + "b_O", {c.d_model})};
}

}  // namespace circuit::detail

namespace circuit {

template <MlpKind M>
ModelConfig HuggingFace<BasicPlain<M>>::config(const nlohmann::json& json, const std::filesystem::path& file) {
  constexpr bool with_mlp = has_mlp<BasicPlain<M>>;
  detail::expect_word(json, "normalization_type", file, {"none"}, "none");
  detail::expect_word(json, "positional_embedding_type", file, {"standard"}, "standard");
  detail::expect_word(json, "attention_dir", file, {"causal"}, "causal");
  for (const auto* key : {"scale_attn_by_inverse_layer_idx", "parallel_attn_mlp", "gated_mlp"}) {
    if (value_or(json, key, file, false)) {
      throw ConfigError{{.file = file, .tensor = key, .expected = "false", .got = "true"}};
    }
  }
  if (const bool attn_only = value_or(json, "attn_only", file, false); attn_only == with_mlp) {
    throw ConfigError{{.file = file,
                       .tensor = "attn_only",
                       .expected = with_mlp ? "false" : "true",
                       .got = attn_only ? "true" : "false",
                       .hint = attn_only ? "load it as AttentionOnly" : "load it as Plain"}};
  }
  ModelConfig c;
  c.n_layers = require<std::int64_t>(json, "n_layers", file);
  c.d_model = require<std::int64_t>(json, "d_model", file);
  c.d_head = require<std::int64_t>(json, "d_head", file);
  c.n_heads = c.n_key_value_heads = value_or(json, "n_heads", file, c.d_head > 0 ? c.d_model / c.d_head : 0);
  c.d_vocab = require<std::int64_t>(json, "d_vocab", file);
  c.n_ctx = require<std::int64_t>(json, "n_ctx", file);
  if constexpr (with_mlp) {
    detail::expect_word(json, "act_fn", file, {M::Activation::name}, "");
    c.d_mlp = value_or(json, "d_mlp", file, 4 * c.d_model);
  }
  const auto scale = value_or(json, "attn_scale", file, -1.0);  // negative: the default
  c.score_scale = scale > 0 ? scale : std::sqrt(static_cast<double>(c.d_head));
  if (!value_or(json, "use_attn_scale", file, true)) c.score_scale = 1.0;
  return c;
}

template <MlpKind M>
ModelWeights HuggingFace<BasicPlain<M>>::weights(const WeightSource& source, const ModelConfig& c) {
  ModelWeights w;
  w.W_E = source.read("embed.W_E", {c.d_vocab, c.d_model});
  w.W_pos = source.read("pos_embed.W_pos", {c.n_ctx, c.d_model});
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    const auto in = "blocks." + std::to_string(l) + '.';
    BlockWeights block;
    block.attn = detail::plain_attention(source, c, in + "attn.");
    if constexpr (has_mlp<BasicPlain<M>>) {
      block.mlp.W_in = source.read(in + "mlp.W_in", {c.d_model, c.d_mlp});
      block.mlp.b_in = source.read(in + "mlp.b_in", {c.d_mlp});
      block.mlp.W_out = source.read(in + "mlp.W_out", {c.d_mlp, c.d_model});
      block.mlp.b_out = source.read(in + "mlp.b_out", {c.d_model});
    }
    w.blocks.push_back(std::move(block));
  }
  w.W_U = source.read("unembed.W_U", {c.d_model, c.d_vocab});
  w.b_U = source.read("unembed.b_U", {c.d_vocab});
  return w;
}

}  // namespace circuit
