#pragma once

#include <concepts>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/io/json.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/load/weight_files.hpp"
#include "circuit/model/load/weight_source.hpp"
#include "circuit/model/process_weights.hpp"
#include "circuit/text/tokenizer.hpp"
#include "circuit/text/tokenizer_json.hpp"

namespace circuit {

/// How Hugging Face stores architecture A: specialise it with
/// `static ModelConfig config(const nlohmann::json&, const std::filesystem::path& file)` and
/// `static ModelWeights weights(const WeightSource&, const ModelConfig&)`.
/// `load/<architecture>.hpp` has that of each architecture this library brings.
template <class A>
struct HuggingFace;

template <class A>
concept LoadableArchitecture =
    Architecture<A> && requires(const nlohmann::json& json, const std::filesystem::path& path,
                                const WeightSource& source, const ModelConfig& config) {
      { HuggingFace<A>::config(json, path) } -> std::same_as<ModelConfig>;
      { HuggingFace<A>::weights(source, config) } -> std::same_as<ModelWeights>;
    };

struct LoadOptions {
  /// Which processings are applied; by default all where they are exact for the architecture (LayerNorm), else none.
  std::optional<weights::Processing> processing{};
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  /// Of float16 and bfloat16 matrices. `mapped` leaves them as they are in the file, half the memory, and widens them
  /// where they are used, which takes longer. It is for models whose weights are used unprocessed, and then what
  /// `processing` is by default: a processing changes matrices, which could only be held widened.
  HalfPrecision half = HalfPrecision::widened;
};

/// Opens a Hugging Face folder: config.json, weights as open_weights finds them and, where there is one, tokenizer.json.
/// The weights stay mapped unless a processing, another dtype or another device needs a copy; what was copied is no longer
/// mapped.
/// throws  FileError, FormatError, ConfigError, NameError, ShapeError, DTypeError, ValueError (NaN)  naming the file and
///         tensor
/// throws  ConfigError  a processing, or a dtype other than float32, together with HalfPrecision::mapped
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_model(const std::filesystem::path& folder, const LoadOptions& options = {});

/// The same from a config and tensors that come from elsewhere.
/// source  in `options.dtype` and with `options.half`, its tensors called as Hugging Face calls them
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> build_model(ModelConfig config, const WeightSource& source,
                                               const LoadOptions& options = {},
                                               std::shared_ptr<const Tokenizer> tokenizer = {});

}  // namespace circuit

namespace circuit::detail {

/// throws  ConfigError  unless the word under `key` is one of those allowed, so that what computes otherwise is refused
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

/// Which processing the options ask for.
template <class A>
[[nodiscard]] weights::Processing chosen_processing(const LoadOptions& options) {
  if (options.half == HalfPrecision::widened) {
    return options.processing.value_or(A::Norm::centers ? weights::folded_and_centered : weights::unprocessed);
  }
  if (options.processing.value_or(weights::unprocessed) != weights::unprocessed) {
    throw ConfigError{{.tensor = "half",
                       .problem = "matrices of half precision cannot stay mapped and be processed too",
                       .hint = "HalfPrecision::widened, or weights::unprocessed"}};
  }
  if (options.dtype != at::kFloat) {
    throw ConfigError{{.tensor = "half",
                       .problem = "matrices of half precision stay mapped only where float32 is computed with",
                       .got = at::toString(options.dtype)}};
  }
  return weights::unprocessed;
}

inline void move_weights(ModelWeights& w, at::Device device) {
  const auto move = [&](at::Tensor& t) {
    if (t.defined()) t = t.to(device);
  };
  for (auto* t : {&w.W_E, &w.W_pos, &w.W_U, &w.b_U, &w.ln_final.gain, &w.ln_final.bias}) move(*t);
  for (auto& b : w.blocks) {
    for (auto* norm : {&b.ln1, &b.ln2, &b.ln1_post, &b.ln2_post}) {
      move(norm->gain);
      move(norm->bias);
    }
    for (auto* t : {&b.attn.W_Q, &b.attn.W_K, &b.attn.W_V, &b.attn.W_O, &b.attn.b_Q, &b.attn.b_K, &b.attn.b_V,
                    &b.attn.b_O, &b.attn.q_gain, &b.attn.k_gain, &b.mlp.W_gate, &b.mlp.W_in, &b.mlp.W_out,
                    &b.mlp.b_gate, &b.mlp.b_in, &b.mlp.b_out}) {
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
  auto config = HuggingFace<A>::config(read_json(config_file), config_file);
  config.check(config_file.string());

  std::shared_ptr<const Tokenizer> tokenizer;
  if (std::filesystem::exists(folder / "tokenizer.json")) {
    tokenizer = std::make_shared<const Tokenizer>(read_tokenizer_json(folder / "tokenizer.json"));
  }
  return build_model<A>(std::move(config), {open_weights(folder), options.dtype, options.half}, options,
                        std::move(tokenizer));
}

template <LoadableArchitecture A>
HookedTransformer<A> build_model(ModelConfig config, const WeightSource& source, const LoadOptions& options,
                                 std::shared_ptr<const Tokenizer> tokenizer) {
  const auto processing = detail::chosen_processing<A>(options);
  detail::check_processing<A>(config, processing);
  auto weights = HuggingFace<A>::weights(source, config);
  if (options.device != at::Device{at::kCPU}) detail::move_weights(weights, options.device);
  weights = process_weights<A>(std::move(weights), config, processing);
  return {std::move(config), std::move(weights), processing, std::move(tokenizer)};
}

}  // namespace circuit
