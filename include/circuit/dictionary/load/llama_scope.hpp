#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// Reads a folder of Llama Scope (2024): hyperparams.json and checkpoints/final.safetensors, JumpReLU SAEs with one
/// threshold, trained on activations scaled to a mean norm of sqrt(d_model); that scale is folded into the weights, and
/// into the threshold. Or one of its DeepSeek-R1 distillation: config.json and sae_weights.safetensors, with a
/// logarithm of a threshold per feature.
///
/// throws  FileError, FormatError, ConfigError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN, norms that are not over 0)  naming the tensor
[[nodiscard]] LoadedDictionary load_llama_scope(const std::filesystem::path& folder,
                                                const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::llama_scope {

[[nodiscard]] inline DictionaryWeights weights(const DictionaryReader& reader) {
  DictionaryWeights out;
  reader.read_encoder_rows(out, "encoder.weight");
  out.b_enc = reader.read("encoder.bias", 1);
  reader.read_decoder_columns(out, "decoder.weight");
  out.b_out = reader.read("decoder.bias", 1);
  return out;
}

/// sqrt(d_model) over the mean norm that activations had.
[[nodiscard]] inline double scale(const nlohmann::json& config, const char* side, const std::filesystem::path& file) {
  const auto norms = require<nlohmann::json>(config, "dataset_average_activation_norm", file);
  const auto norm = require<double>(norms, side, file);
  const auto scale = std::sqrt(static_cast<double>(require<std::int64_t>(config, "d_model", file))) / norm;
  if (is_scale(scale)) return scale;
  throw ValueError{{.file = file,
                    .tensor = std::string{"dataset_average_activation_norm."} + side,
                    .expected = "a number over 0 that float32 can scale by",
                    .got = short_dump(norms.at(side))}};
}

/// The threshold of all features, for activations that are not scaled.
[[nodiscard]] inline double threshold(const nlohmann::json& config, double scale, const std::filesystem::path& file) {
  constexpr auto key = "jump_relu_threshold";
  const auto threshold = require<double>(config, key, file) * scale;
  if (std::abs(threshold) <= std::numeric_limits<float>::max()) return threshold;
  throw ValueError{{.file = file,
                    .tensor = key,
                    .expected = "a number that float32 holds, as it is and scaled",
                    .got = short_dump(config.at(key))}};
}

}  // namespace circuit::detail::llama_scope

namespace circuit {

inline LoadedDictionary load_llama_scope(const std::filesystem::path& folder, const DictionaryOptions& options) {
  namespace scope = detail::llama_scope;
  const bool distilled = !std::filesystem::exists(folder / "hyperparams.json");
  const auto config_file = folder / (distilled ? "config.json" : "hyperparams.json");
  const auto config = read_json(config_file);
  const auto file =
      open_safetensors(folder / (distilled ? "sae_weights.safetensors" : "checkpoints/final.safetensors"));
  const detail::DictionaryReader reader{file, "", options};
  auto weights = scope::weights(reader);
  detail::check_size("d_model", require<std::int64_t>(config, "d_model", config_file), weights.d_in(), config_file);
  const auto in = require<std::string>(config, "hook_point_in", config_file);
  const DictionaryHooks hooks{in, value_or(config, "hook_point_out", config_file, in)};
  at::Tensor threshold;
  if (distilled) {
    threshold = reader.read("log_jumprelu_threshold", 1).exp();
  } else {
    const auto scale = scope::scale(config, "in", config_file);
    detail::fold_scale(weights, scale, scope::scale(config, "out", config_file), file.path());
    threshold = make::full({weights.d_sae()}, scope::threshold(config, scale, config_file), weights.b_enc.options());
  }
  return {
      detail::assemble(std::move(weights), {activation::JumpRelu{std::move(threshold)}}, file.path(), folder.string()),
      hooks};
}

}  // namespace circuit
