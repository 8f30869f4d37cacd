#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/io/gguf.hpp"
#include "circuit/io/gguf_to_tensor.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/rotary.hpp"
#include "circuit/text/load_tokenizer.hpp"

namespace circuit {

/// Opens a GGUF file as architecture A: config and tokenizer from its metadata, quantised weights widened. Weights that
/// are of `options.dtype` stay mapped; pages of the others are given back as soon as they are widened. throws
/// ConfigError  an architecture that is not known, or not A's; metadata that are missing or contradictory throws
/// FileError, FormatError, NameError, ShapeError, DTypeError, ValueError (NaN)  naming the file and tensor
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_gguf(const std::filesystem::path& path, const LoadOptions& options = {});

/// The same of a file that is open already.
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_gguf(GgufFile file, const LoadOptions& options = {});

/// What the config.json of the same model would say, so that one loader reads both kinds of file.
/// throws  ConfigError  an architecture or a kind of model that is not known; metadata that are missing or of a wrong
/// type
[[nodiscard]] nlohmann::json hugging_face_config(const GgufFile& file);

}  // namespace circuit

namespace circuit::detail::gguf {

/// How llama.cpp's converter lays out the models of one `general.architecture`.
struct Family {
  std::string_view architecture;  ///< also Hugging Face's model_type
  bool interleaved;               ///< rows of W_Q and W_K come in the pairs that rotary positions turn
};
inline constexpr std::array<Family, 3> families{{{"llama", true}, {"qwen2", false}, {"qwen3", false}}};

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

/// Hugging Face's names without their block, and GGUF's.
struct Name {
  std::string_view hugging_face;
  std::string_view gguf;
};
inline constexpr std::array<Name, 3> outer_names{
    {{"model.embed_tokens.", "token_embd."}, {"model.norm.", "output_norm."}, {"lm_head.", "output."}}};
inline constexpr std::array<Name, 11> block_names{{{"input_layernorm.", "attn_norm."},
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

/// "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"; a name that no GGUF file uses stays as it is.
[[nodiscard]] inline std::string gguf_name(std::string_view name) {
  constexpr std::string_view layers = "model.layers.";
  std::string block;
  const bool inner = name.starts_with(layers);
  if (inner) {
    const auto dot = std::min(name.find('.', layers.size()), name.size() - 1) + 1;
    block = "blk." + std::string{name.substr(layers.size(), dot - layers.size())};
    name.remove_prefix(dot);
  }
  const auto replaced = [&](const auto& names) {
    for (const auto& [from, to] : names) {
      if (name.starts_with(from)) return block + std::string{to} + std::string{name.substr(from.size())};
    }
    return block + std::string{name};
  };
  return inner ? replaced(block_names) : replaced(outer_names);
}

/// Rows of a head in the half-split layout, from rows in which the two of a pair are neighbours.
[[nodiscard]] inline at::Tensor half_split(const at::Tensor& rows, std::int64_t heads) {
  const auto pairs = rows.view({heads, rows.size(0) / heads / 2, 2, -1});
  return pairs.transpose(1, 2).reshape(rows.sizes());
}

/// The file's tensors as `dtype` under Hugging Face's names, in its layout.
[[nodiscard]] inline WeightSource weight_source(GgufFile file, const ModelConfig& config, at::ScalarType dtype) {
  const auto path = file.path();
  const bool interleaved = family_of(file).interleaved;
  const auto shared = std::make_shared<const GgufFile>(std::move(file));
  const auto heads_of = [=, all = config.n_heads, shared_ones = config.n_key_value_heads](const std::string& name) {
    if (!interleaved) return std::int64_t{0};
    if (name.find("q_proj.") != name.npos) return all;
    return name.find("k_proj.") != name.npos ? shared_ones : std::int64_t{0};
  };
  const auto get = [=](const std::string& name) {
    const auto& stored = shared->get(gguf_name(name));
    auto values = to_tensor(stored).to(dtype);
    const auto heads = heads_of(name);
    // A tensor of another shape is refused by whoever asked for it.
    if (heads > 0 && values.dim() > 0 && values.numel() > 0 && values.size(0) % (2 * heads) == 0) {
      values = half_split(values, heads);
    }
    if (values.data_ptr() != stored.bytes.data()) shared->release(stored);
    return values;
  };
  return {[shared](const std::string& name) { return shared->find(gguf_name(name)) != nullptr; }, get, path, dtype};
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
  copy("beta_fast", "rope.scaling.yarn_beta_fast");
  copy("beta_slow", "rope.scaling.yarn_beta_slow");
  return json;
}

/// Divides the speeds of rotary positions by the file's factors, where it has them (Llama 3.1).
inline void scale_speeds(ModelConfig& config, const GgufFile& file) {
  const auto* stored = file.find("rope_freqs.weight");
  if (stored == nullptr) return;
  const auto factors = to_tensor(*stored).to(at::kDouble).contiguous();
  check_shape(factors, {config.rotary_dims / 2}, stored->name, file.path());
  if (config.rotary_speeds.empty()) config.rotary_speeds = plain_speeds(config);
  const auto* factor = data_of<double>(factors);
  for (std::size_t i = 0; i < config.rotary_speeds.size(); ++i) {
    if (!(factor[i] > 0)) {
      throw ValueError{
          {.file = file.path(), .tensor = stored->name, .expected = "> 0", .got = std::to_string(factor[i])}};
    }
    config.rotary_speeds[i] /= factor[i];
  }
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

}  // namespace circuit::detail::gguf

namespace circuit {

inline nlohmann::json hugging_face_config(const GgufFile& file) {
  using namespace detail::gguf;
  const auto& metadata = file.metadata();
  const std::string type{family_of(file).architecture};
  const auto in = type + '.';
  const auto number = [&](const std::string& key) { return metadata.require<std::int64_t>(in + key); };
  expect_number(file, in + "expert_count", 0);
  nlohmann::json json{{"model_type", type},
                      {"num_hidden_layers", number("block_count")},
                      {"hidden_size", number("embedding_length")},
                      {"num_attention_heads", number("attention.head_count")},
                      {"intermediate_size", number("feed_forward_length")},
                      {"max_position_embeddings", number("context_length")},
                      {"vocab_size", vocabulary_size(file, in)},
                      {"rms_norm_eps", metadata.require<double>(in + "attention.layer_norm_rms_epsilon")},
                      {"tie_word_embeddings", file.find("output.weight") == nullptr},
                      {"attention_bias", type == "llama" && file.find("blk.0.attn_q.bias") != nullptr},
                      {"mlp_bias", file.find("blk.0.ffn_up.bias") != nullptr},
                      {"rope_parameters", rotary_config(file, in)}};
  const auto heads = json["num_attention_heads"].get<std::int64_t>();
  json["num_key_value_heads"] = metadata.value_or(in + "attention.head_count_kv", heads);
  const auto width = metadata.value_or(in + "attention.key_length",
                                       heads > 0 ? json["hidden_size"].get<std::int64_t>() / heads : std::int64_t{0});
  json["head_dim"] = width;
  expect_number(file, in + "attention.value_length", width);
  expect_number(file, in + "rope.dimension_count", width);
  return json;
}

template <LoadableArchitecture A>
HookedTransformer<A> load_gguf(GgufFile file, const LoadOptions& options) {
  check_compute_dtype(options.dtype, "dtype");
  auto config = HuggingFace<A>::config(hugging_face_config(file), file.path());
  detail::gguf::scale_speeds(config, file);
  config.check(file.path().string());
  std::shared_ptr<const Tokenizer> tokenizer;
  if (file.metadata().contains("tokenizer.ggml.model"))
    tokenizer = std::make_shared<const Tokenizer>(load_tokenizer(file));
  const auto source = detail::gguf::weight_source(std::move(file), config, options.dtype);
  return build_model<A>(std::move(config), source, options, std::move(tokenizer));
}

template <LoadableArchitecture A>
HookedTransformer<A> load_gguf(const std::filesystem::path& path, const LoadOptions& options) {
  return load_gguf<A>(open_gguf(path), options);
}

}  // namespace circuit
