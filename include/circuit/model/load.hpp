#pragma once

#include <cmath>
#include <concepts>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/process_weights.hpp"
#include "circuit/text/load_tokenizer.hpp"
#include "circuit/text/tokenizer.hpp"

namespace circuit {

/// How Hugging Face stores architecture A: specialise it with
/// `static ModelConfig config(const nlohmann::json&, const std::filesystem::path& file)` and
/// `static ModelWeights weights(const TensorFile&, const ModelConfig&, at::ScalarType)`.
template <class A>
struct HuggingFace;

template <class A>
concept LoadableArchitecture =
    Architecture<A> && requires(const nlohmann::json& json, const std::filesystem::path& path, const TensorFile& file,
                                const ModelConfig& config, at::ScalarType dtype) {
      { HuggingFace<A>::config(json, path) } -> std::same_as<ModelConfig>;
      { HuggingFace<A>::weights(file, config, dtype) } -> std::same_as<ModelWeights>;
    };

struct LoadOptions {
  weights::Processing processing = weights::folded_and_centered;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
};

/// Opens a Hugging Face folder: config.json, model.safetensors and, where there is one, tokenizer.json. The weights stay
/// mapped unless a processing, another dtype or another device needs a copy; what was copied is no longer mapped.
/// throws  FileError, FormatError, ConfigError, NameError, ShapeError, DTypeError, ValueError (NaN)  naming the file and
///         tensor
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_model(const std::filesystem::path& folder, const LoadOptions& options = {});

/// One floating tensor of a file in the dtype asked for: a view of the mapping where that is its own dtype.
/// throws  NameError, ShapeError, DTypeError, ValueError (NaN or infinity)
[[nodiscard]] inline at::Tensor read_weight(const TensorFile& file, const std::string& name,
                                            const std::vector<std::int64_t>& shape, at::ScalarType dtype) {
  const auto stored = to_tensor(file.get(name));
  if (!stored.is_floating_point()) {
    throw DTypeError{{.file = file.path(),
                      .tensor = name,
                      .expected = "a floating type",
                      .got = at::toString(stored.scalar_type())}};
  }
  check_shape(stored, shape, name, file.path());
  auto weight = stored.to(dtype);
  check_finite(weight, name, file.path());
  return weight;
}

/// GPT-2's files: Conv1D weights lie as (in, out); names stand with or without the prefix `transformer.`.
template <>
struct HuggingFace<Gpt2> {
  [[nodiscard]] static ModelConfig config(const nlohmann::json& json, const std::filesystem::path& file);
  [[nodiscard]] static ModelWeights weights(const TensorFile& file, const ModelConfig& config, at::ScalarType dtype);
};

}  // namespace circuit

namespace circuit::detail {

inline void move_weights(ModelWeights& w, at::Device device) {
  const auto move = [&](at::Tensor& t) {
    if (t.defined()) t = t.to(device);
  };
  for (auto* t : {&w.W_E, &w.W_pos, &w.W_U, &w.b_U, &w.ln_final.gain, &w.ln_final.bias}) move(*t);
  for (auto& b : w.blocks) {
    for (auto* t : {&b.ln1.gain,    &b.ln1.bias,    &b.ln2.gain,  &b.ln2.bias,   &b.attn.W_Q, &b.attn.W_K,
                    &b.attn.W_V,    &b.attn.W_O,    &b.attn.b_Q,  &b.attn.b_K,   &b.attn.b_V, &b.attn.b_O,
                    &b.mlp.W_gate,  &b.mlp.W_in,    &b.mlp.W_out, &b.mlp.b_gate, &b.mlp.b_in, &b.mlp.b_out}) {
      move(*t);
    }
  }
}

}  // namespace circuit::detail

namespace circuit {

template <LoadableArchitecture A>
HookedTransformer<A> load_model(const std::filesystem::path& folder, const LoadOptions& options) {
  check_compute_dtype(options.dtype, "dtype");
  if (!std::filesystem::is_directory(folder)) {
    throw FileError{{.file = folder, .problem = "is not a folder with a model"}};
  }
  const auto config_file = folder / "config.json";
  const auto config = HuggingFace<A>::config(read_json(config_file), config_file);
  config.check(config_file.string());

  // The file object ends with this scope; unprocessed tensors hold the mapping themselves.
  auto loaded = HuggingFace<A>::weights(open_safetensors(folder / "model.safetensors"), config, options.dtype);
  if (options.device != at::Device{at::kCPU}) detail::move_weights(loaded, options.device);
  loaded = process_weights<typename A::Norm>(std::move(loaded), config, options.processing);

  std::shared_ptr<const Tokenizer> tokenizer;
  if (std::filesystem::exists(folder / "tokenizer.json")) {
    tokenizer = std::make_shared<const Tokenizer>(load_tokenizer(folder));
  }
  return {config, std::move(loaded), options.processing, std::move(tokenizer)};
}

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
  c.d_model = require<std::int64_t>(json, "n_embd", file);
  c.n_heads = c.n_key_value_heads = require<std::int64_t>(json, "n_head", file);
  c.d_vocab = require<std::int64_t>(json, "vocab_size", file);
  c.n_ctx = json.contains("n_positions") ? require<std::int64_t>(json, "n_positions", file)
                                         : require<std::int64_t>(json, "n_ctx", file);
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

inline ModelWeights HuggingFace<Gpt2>::weights(const TensorFile& file, const ModelConfig& c, at::ScalarType dtype) {
  const std::string prefix = file.find("transformer.wte.weight") != nullptr ? "transformer." : "";
  const auto read = [&](const std::string& name, const std::vector<std::int64_t>& shape) {
    return read_weight(file, prefix + name, shape, dtype);
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
  w.W_U = file.find("lm_head.weight") != nullptr ? read_weight(file, "lm_head.weight", {c.d_vocab, d}, dtype).t()
                                                 : w.W_E.t();
  return w;
}

}  // namespace circuit
