#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "circuit/core/tensor.hpp"
#include "circuit/io/gguf.hpp"
#include "circuit/io/json.hpp"
#include "circuit/model/config.hpp"

namespace circuit::detail::gguf {

/// Hugging Face's names without their block, and GGUF's.
struct Name {
  std::string_view hugging_face;
  std::string_view gguf;
};

/// How llama.cpp's converter lays out the models of one `general.architecture`.
struct Family {
  std::string_view architecture;
  std::string_view layers;  ///< Hugging Face's prefix of a block
  std::span<const Name> outer_names;
  std::span<const Name> block_names;
  /// What Hugging Face's file of the same model would say.
  nlohmann::json (*config)(const GgufFile& file);
  /// A tensor, known by Hugging Face's name, as it lies in Hugging Face's files. One of another shape than the config's
  /// is left alone: whoever asked for it refuses it.
  at::Tensor (*restore)(const at::Tensor& stored, std::string_view name, const ModelConfig& config);
  /// The same for the order of rows: a view, its rows over several axes, of one that needs another order.
  at::Tensor (*order)(const at::Tensor& stored, std::string_view name, const ModelConfig& config);
};

/// throws  ConfigError  for an architecture that is not known
[[nodiscard]] const Family& family_of(const GgufFile& file);

/// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; a name that no GGUF file uses stays as it is.
[[nodiscard]] inline std::string gguf_name(std::string_view name, const Family& family) {
  std::string block;
  const bool inner = name.starts_with(family.layers);
  if (inner) {
    const auto dot = std::min(name.find('.', family.layers.size()), name.size() - 1) + 1;
    block = "blk." + std::string{name.substr(family.layers.size(), dot - family.layers.size())};
    name.remove_prefix(dot);
  }
  for (const auto& [from, to] : inner ? family.block_names : family.outer_names) {
    if (name.starts_with(from)) return block + std::string{to} + std::string{name.substr(from.size())};
  }
  return block + std::string{name};
}

/// The scaling of rotary positions: linear and YaRN by metadata, others by a tensor of factors, which is no config.
[[nodiscard]] inline nlohmann::json rotary_config(const GgufFile& file, const std::string& in) {
  const auto& metadata = file.metadata();
  nlohmann::json json{{"rope_theta", metadata.value_or(in + "rope.freq_base", 10000.0)}};
  const auto kind = metadata.value_or<std::string>(in + "rope.scaling.type", "none");
  if (kind == "none") return json;
  json["rope_type"] = kind;
  json["factor"] = metadata.require<double>(in + "rope.scaling.factor");
  const auto copy = [&](const char* to, const std::string& from) {
    if (metadata.contains(in + from)) json[to] = metadata.require<double>(in + from);
  };
  copy("original_max_position_embeddings", "rope.scaling.original_context_length");
  copy("attention_factor", "rope.scaling.attn_factor");
  // What these do beside the others differs between programs; 1 and 0 change nothing.
  for (const auto& [key, neutral] :
       {std::pair{"yarn_attn_factor", 1.0}, std::pair{"yarn_ext_factor", 1.0}, std::pair{"yarn_log_multiplier", 0.0}}) {
    const auto got = metadata.value_or(in + "rope.scaling." + key, neutral);
    if (got == neutral) continue;
    throw ConfigError{{.file = file.path(),
                       .tensor = in + "rope.scaling." + key,
                       .problem = "is not supported",
                       .expected = std::to_string(neutral),
                       .got = std::to_string(got)}};
  }
  copy("beta_fast", "rope.scaling.yarn_beta_fast");
  copy("beta_slow", "rope.scaling.yarn_beta_slow");
  return json;
}

/// throws  ConfigError  for a value that another one must equal
inline void expect_number(const GgufFile& file, const std::string& key, std::int64_t expected) {
  const auto got = file.metadata().value_or(key, expected);
  if (got == expected) return;
  throw ConfigError{
      {.file = file.path(), .tensor = key, .expected = std::to_string(expected), .got = std::to_string(got)}};
}

/// Entries of the vocabulary: as many as there are tokens; else what the metadata say.
[[nodiscard]] inline std::int64_t vocabulary_size(const GgufFile& file, const std::string& in) {
  const auto& values = file.metadata().values();
  const auto tokens = values.find("tokenizer.ggml.tokens");
  return tokens != values.end() && tokens->second.is_list ? static_cast<std::int64_t>(tokens->second.count)
                                                          : file.metadata().require<std::int64_t>(in + "vocab_size");
}

/// What every architecture says.
[[nodiscard]] inline nlohmann::json sizes_config(const GgufFile& file, std::string_view model_type) {
  const auto& metadata = file.metadata();
  const auto in = metadata.require<std::string>("general.architecture") + '.';
  const auto number = [&](const std::string& key) { return metadata.require<std::int64_t>(in + key); };
  expect_number(file, in + "expert_count", 0);
  return {{"model_type", model_type},
          {"num_hidden_layers", number("block_count")},
          {"hidden_size", number("embedding_length")},
          {"num_attention_heads", number("attention.head_count")},
          {"intermediate_size", number("feed_forward_length")},
          {"max_position_embeddings", number("context_length")},
          {"vocab_size", vocabulary_size(file, in)},
          {"tie_word_embeddings", file.find("output.weight") == nullptr}};
}

/// Llama and its descendants.
[[nodiscard]] inline nlohmann::json llama_config(const GgufFile& file) {
  const auto& metadata = file.metadata();
  const auto type = metadata.require<std::string>("general.architecture");
  const auto in = type + '.';
  auto json = sizes_config(file, type);
  json["rms_norm_eps"] = metadata.require<double>(in + "attention.layer_norm_rms_epsilon");
  json["attention_bias"] = type == "llama" && file.find("blk.0.attn_q.bias") != nullptr;
  json["mlp_bias"] = file.find("blk.0.ffn_up.bias") != nullptr;
  json["rope_parameters"] = rotary_config(file, in);
  const auto heads = json["num_attention_heads"].get<std::int64_t>();
  json["num_key_value_heads"] = metadata.value_or(in + "attention.head_count_kv", heads);
  const auto width = metadata.value_or(in + "attention.key_length",
                                       heads > 0 ? json["hidden_size"].get<std::int64_t>() / heads : std::int64_t{0});
  json["head_dim"] = width;
  expect_number(file, in + "attention.value_length", width);
  expect_number(file, in + "rope.dimension_count", width);
  return json;
}

/// Gemma 2. The scale of its queries is in no metadata: it follows from the sizes, otherwise in the model of 46 blocks
/// (27B) than in the others.
[[nodiscard]] inline nlohmann::json gemma2_config(const GgufFile& file) {
  constexpr std::int64_t blocks_of_27b = 46;
  const auto& metadata = file.metadata();
  auto json = llama_config(file);
  const auto heads = json["num_attention_heads"].get<std::int64_t>();
  const bool by_width = json["num_hidden_layers"] == blocks_of_27b && heads > 0;
  json["query_pre_attn_scalar"] =
      by_width ? json["hidden_size"].get<std::int64_t>() / heads : json["head_dim"].get<std::int64_t>();
  json["attn_logit_softcapping"] = metadata.value_or("gemma2.attn_logit_softcapping", 50.0);
  json["final_logit_softcapping"] = metadata.value_or("gemma2.final_logit_softcapping", 30.0);
  json["sliding_window"] = metadata.value_or("gemma2.attention.sliding_window", std::int64_t{4096});
  return json;
}

[[nodiscard]] inline nlohmann::json gpt2_config(const GgufFile& file) {
  const auto json = sizes_config(file, "gpt2");
  return {{"model_type", "gpt2"},
          {"n_layer", json["num_hidden_layers"]},
          {"n_embd", json["hidden_size"]},
          {"n_head", json["num_attention_heads"]},
          {"n_inner", json["intermediate_size"]},
          {"n_positions", json["max_position_embeddings"]},
          {"vocab_size", json["vocab_size"]},
          {"layer_norm_epsilon", file.metadata().require<double>("gpt2.attention.layer_norm_epsilon")}};
}

[[nodiscard]] inline nlohmann::json gpt_neox_config(const GgufFile& file) {
  const auto& metadata = file.metadata();
  auto json = sizes_config(file, "gpt_neox");
  json["layer_norm_eps"] = metadata.require<double>("gptneox.attention.layer_norm_epsilon");
  json["use_parallel_residual"] = metadata.value_or("gptneox.use_parallel_residual", true);
  json["rope_parameters"] = rotary_config(file, "gptneox.");
  const auto heads = json["num_attention_heads"].get<std::int64_t>();
  const auto width = heads > 0 ? json["hidden_size"].get<std::int64_t>() / heads : std::int64_t{0};
  const auto turned = metadata.require<std::int64_t>("gptneox.rope.dimension_count");
  json["rope_parameters"]["partial_rotary_factor"] =
      width > 0 ? static_cast<double>(turned) / static_cast<double>(width) : 0.0;
  return json;
}

[[nodiscard]] inline at::Tensor as_stored(const at::Tensor& stored, std::string_view, const ModelConfig&) {
  return stored;
}

/// Rows of a head in the half-split layout, from rows in which the two of a pair are neighbours: of a matrix the view
/// [heads, 2, pairs, columns].
[[nodiscard]] inline at::Tensor half_split(const at::Tensor& stored, std::string_view name, const ModelConfig& c) {
  const bool queries = name.find("q_proj.") != name.npos;
  if (!queries && name.find("k_proj.") == name.npos) return stored;
  const auto heads = queries ? c.n_heads : c.n_key_value_heads;
  if (heads <= 0 || stored.dim() == 0 || stored.numel() == 0 || stored.size(0) % (2 * heads) != 0) return stored;
  const auto pairs = stored.view({heads, stored.size(0) / heads / 2, 2, -1}).transpose(1, 2);
  return stored.dim() == 2 ? pairs : pairs.reshape(stored.sizes());
}

/// Gains as they are learned, one less than what is multiplied; exact from any type.
[[nodiscard]] inline at::Tensor without_one(const at::Tensor& stored, std::string_view name, const ModelConfig&) {
  return name.find("norm.") == name.npos ? stored : stored.to(at::kDouble).sub(1.0);
}

/// Matrices of a Conv1D, (in, out).
[[nodiscard]] inline at::Tensor conv1d(const at::Tensor& stored, std::string_view name, const ModelConfig&) {
  return stored.dim() == 2 && name.find(".c_") != name.npos ? stored.t() : stored;
}

/// Rows ordered by head, then q, k, v, from rows in the order q, k, v, then head.
[[nodiscard]] inline at::Tensor by_head(const at::Tensor& stored, std::string_view name, const ModelConfig& c) {
  const bool fused = name.find("query_key_value.") != name.npos;
  if (!fused || c.n_heads <= 0 || stored.dim() == 0 || stored.numel() == 0 || stored.size(0) % (3 * c.n_heads) != 0)
    return stored;
  return stored.view({3, c.n_heads, stored.size(0) / c.n_heads / 3, -1}).transpose(0, 1).reshape(stored.sizes());
}

inline constexpr std::array<Name, 3> llama_outer{
    {{"model.embed_tokens.", "token_embd."}, {"model.norm.", "output_norm."}, {"lm_head.", "output."}}};
inline constexpr std::array<Name, 11> llama_block{{{"input_layernorm.", "attn_norm."},
                                                   {"self_attn.q_proj.", "attn_q."},
                                                   {"self_attn.k_proj.", "attn_k."},
                                                   {"self_attn.v_proj.", "attn_v."},
                                                   {"self_attn.o_proj.", "attn_output."},
                                                   {"self_attn.q_norm.", "attn_q_norm."},
                                                   {"self_attn.k_norm.", "attn_k_norm."},
                                                   {"post_attention_layernorm.", "ffn_norm."},
                                                   {"mlp.gate_proj.", "ffn_gate."},
                                                   {"mlp.up_proj.", "ffn_up."},
                                                   {"mlp.down_proj.", "ffn_down."}}};
inline constexpr std::array<Name, 11> gemma2_block{{{"input_layernorm.", "attn_norm."},
                                                    {"self_attn.q_proj.", "attn_q."},
                                                    {"self_attn.k_proj.", "attn_k."},
                                                    {"self_attn.v_proj.", "attn_v."},
                                                    {"self_attn.o_proj.", "attn_output."},
                                                    {"post_attention_layernorm.", "post_attention_norm."},
                                                    {"pre_feedforward_layernorm.", "ffn_norm."},
                                                    {"post_feedforward_layernorm.", "post_ffw_norm."},
                                                    {"mlp.gate_proj.", "ffn_gate."},
                                                    {"mlp.up_proj.", "ffn_up."},
                                                    {"mlp.down_proj.", "ffn_down."}}};
inline constexpr std::array<Name, 4> gpt2_outer{
    {{"wte.", "token_embd."}, {"wpe.", "position_embd."}, {"ln_f.", "output_norm."}, {"lm_head.", "output."}}};
inline constexpr std::array<Name, 6> gpt2_block{{{"ln_1.", "attn_norm."},
                                                 {"attn.c_attn.", "attn_qkv."},
                                                 {"attn.c_proj.", "attn_output."},
                                                 {"ln_2.", "ffn_norm."},
                                                 {"mlp.c_fc.", "ffn_up."},
                                                 {"mlp.c_proj.", "ffn_down."}}};
inline constexpr std::array<Name, 3> gpt_neox_outer{
    {{"gpt_neox.embed_in.", "token_embd."}, {"gpt_neox.final_layer_norm.", "output_norm."}, {"embed_out.", "output."}}};
inline constexpr std::array<Name, 6> gpt_neox_block{{{"input_layernorm.", "attn_norm."},
                                                     {"attention.query_key_value.", "attn_qkv."},
                                                     {"attention.dense.", "attn_output."},
                                                     {"post_attention_layernorm.", "ffn_norm."},
                                                     {"mlp.dense_h_to_4h.", "ffn_up."},
                                                     {"mlp.dense_4h_to_h.", "ffn_down."}}};

inline constexpr std::array<Family, 6> families{
    {{"llama", "model.layers.", llama_outer, llama_block, llama_config, as_stored, half_split},
     {"qwen2", "model.layers.", llama_outer, llama_block, llama_config, as_stored, as_stored},
     {"qwen3", "model.layers.", llama_outer, llama_block, llama_config, as_stored, as_stored},
     {"gemma2", "model.layers.", llama_outer, gemma2_block, gemma2_config, without_one, as_stored},
     {"gpt2", "h.", gpt2_outer, gpt2_block, gpt2_config, conv1d, as_stored},
     {"gptneox", "gpt_neox.layers.", gpt_neox_outer, gpt_neox_block, gpt_neox_config, by_head, as_stored}}};

inline const Family& family_of(const GgufFile& file) {
  const auto name = file.metadata().require<std::string>("general.architecture");
  std::string known;
  for (const auto& family : families) {
    if (family.architecture == name) return family;
    known += (known.empty() ? "" : " or ") + std::string{family.architecture};
  }
  throw ConfigError{{.file = file.path(),
                     .tensor = "general.architecture",
                     .problem = "is not supported in GGUF files",
                     .expected = known,
                     .got = name,
                     .hint = "other families are read from Hugging Face's files"}};
}

}  // namespace circuit::detail::gguf
