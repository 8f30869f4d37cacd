#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/io/flat_yaml.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// One transcoder of a set that circuit-tracer reads: `layer_3.safetensors` beside config.yaml. JumpReLU where the file
/// has thresholds, else what the configuration or the file's k says, else ReLU; TopK keeps negative values too.
///
/// throws  FileError, FormatError, ConfigError (one of a cross-layer transcoder, an activation that is not known)
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN, k)  naming the tensor
[[nodiscard]] LoadedDictionary load_circuit_tracer(const std::filesystem::path& file,
                                                   const DictionaryOptions& options = {});

/// Every transcoder of such a set, by layer: what its configuration lists, or every layer_{l}.safetensors beside it. Of a
/// cross-layer transcoder, W_enc_{l}.safetensors and W_dec_{l}.safetensors of every layer.
/// throws  ConfigError  also for one that lies elsewhere (`hf://`);  as load_circuit_tracer
[[nodiscard]] std::map<Layer, LoadedDictionary> load_circuit_tracer_set(const std::filesystem::path& folder,
                                                                        const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::circuit_tracer {

struct Config {
  bool cross_layer;
  std::string hook_in;
  std::string hook_out;
  std::optional<std::string> activation;
  std::optional<std::int64_t> k;
  std::vector<std::string> files;
};

[[nodiscard]] inline Config config(const std::filesystem::path& file) {
  const auto yaml = read_flat_yaml(file);
  const auto kind = require<std::string>(yaml, "model_kind", file);
  const bool cross_layer = kind == "cross_layer_transcoder";
  if (!cross_layer && kind != "transcoder_set") {
    throw ConfigError{{.file = file,
                       .tensor = "model_kind",
                       .problem = "is not supported",
                       .expected = "transcoder_set or cross_layer_transcoder",
                       .got = kind}};
  }
  Config out{.cross_layer = cross_layer,
             .hook_in = require<std::string>(yaml, "feature_input_hook", file),
             .hook_out = require<std::string>(yaml, "feature_output_hook", file),
             .activation = {},
             .k = {},
             .files = value_or<std::vector<std::string>>(yaml, "transcoders", file, {})};
  if (const auto name = value_or<std::string>(yaml, "activation", file, ""); !name.empty()) out.activation = name;
  if (yaml.contains("k")) out.k = require<std::int64_t>(yaml, "k", file);
  return out;
}

[[nodiscard]] inline activation::Any activation(const TensorFile& file, const DictionaryReader& reader,
                                                const Config& config) {
  constexpr auto threshold = "activation_function.threshold";
  if (reader.has(threshold)) return {activation::JumpRelu{reader.read(threshold, 1)}};
  const auto name = config.activation.value_or(reader.has("k") ? "topk" : "relu");
  if (name == "relu") return {};
  if (name == "topk") {
    const auto k = reader.has("k") ? read_whole_number(file, "k") : config.k.value_or(0);
    return {activation::TopK{.k = k, .inner = activation::Inner::none}};
  }
  throw ConfigError{{.file = file.path(),
                     .tensor = "activation",
                     .problem = "is not known",
                     .expected = "relu or topk",
                     .got = name}};
}

[[nodiscard]] inline LoadedDictionary load(const std::filesystem::path& path, std::int32_t layer, const Config& config,
                                           const DictionaryOptions& options) {
  const auto file = open_safetensors(path);
  const DictionaryReader reader{file, "", options};
  return {assemble(linear_maps(reader, "W_enc", "b_enc", reader.has("W_skip")), activation(file, reader, config), path),
          {hook_in_block(layer, config.hook_in), hook_in_block(layer, config.hook_out)}};
}

/// One layer of a cross-layer transcoder of so many: its features write into all from its own on.
[[nodiscard]] inline LoadedDictionary load_cross_layer(const std::filesystem::path& folder, std::int32_t layer,
                                                       std::int32_t layers, const Config& config,
                                                       const DictionaryOptions& options) {
  const auto name = [&](const char* what) { return what + std::to_string(layer); };
  const auto encoder = open_safetensors(folder / (name("W_enc_") + ".safetensors"));
  const auto decoder = open_safetensors(folder / (name("W_dec_") + ".safetensors"));
  const DictionaryReader reader{encoder, "", options};
  DictionaryWeights weights;
  reader.read_encoder_rows(weights, name("W_enc_"));
  weights.b_enc = reader.read(name("b_enc_"), 1);
  weights.b_out = reader.read(name("b_dec_"), 1);
  DictionaryReader{decoder, "", options}.read_cross_layer_decoder(weights, name("W_dec_"), 0);
  if (weights.later_layers() != layers - layer - 1) {
    throw ShapeError{{.file = decoder.path(),
                      .tensor = name("W_dec_"),
                      .expected = {-1, layers - layer, -1},
                      .got = decoder.get(name("W_dec_")).shape,
                      .hint = "one row per layer from its own to the last that has a file"}};
  }
  activation::Any activation;
  if (reader.has(name("threshold_"))) activation = {activation::JumpRelu{reader.read(name("threshold_"), 1)}};
  return {assemble(std::move(weights), std::move(activation), encoder.path()),
          {hook_in_block(layer, config.hook_in), hook_in_block(layer, config.hook_out)}};
}

[[nodiscard]] inline std::map<Layer, LoadedDictionary> load_cross_layers(const std::filesystem::path& folder,
                                                                         const Config& config,
                                                                         const DictionaryOptions& options) {
  std::int32_t layers = 0;
  while (std::filesystem::exists(folder / ("W_enc_" + std::to_string(layers) + ".safetensors"))) ++layers;
  if (layers == 0) throw ConfigError{{.file = folder, .problem = "holds no W_enc_0.safetensors"}};
  std::map<Layer, LoadedDictionary> out;
  for (std::int32_t l = 0; l < layers; ++l) {
    out.try_emplace(Layer{l}, load_cross_layer(folder, l, layers, config, options));
  }
  return out;
}

[[nodiscard]] inline std::int32_t require_layer(const std::filesystem::path& file) {
  if (const auto layer = number_in_path(file.filename(), "layer_")) return *layer;
  throw ConfigError{
      {.file = file, .problem = "its layer is not known", .expected = "a name such as layer_3.safetensors"}};
}

}  // namespace circuit::detail::circuit_tracer

namespace circuit {

inline LoadedDictionary load_circuit_tracer(const std::filesystem::path& file, const DictionaryOptions& options) {
  namespace tracer = detail::circuit_tracer;
  const auto config_file = file.parent_path() / "config.yaml";
  const auto config = tracer::config(config_file);
  if (config.cross_layer) {
    throw ConfigError{{.file = config_file,
                       .tensor = "model_kind",
                       .problem = "is a cross-layer transcoder's, whose layers are read together",
                       .hint = "use load_circuit_tracer_set"}};
  }
  return tracer::load(file, tracer::require_layer(file), config, options);
}

inline std::map<Layer, LoadedDictionary> load_circuit_tracer_set(const std::filesystem::path& folder,
                                                                 const DictionaryOptions& options) {
  namespace tracer = detail::circuit_tracer;
  const auto config_file = folder / "config.yaml";
  const auto config = tracer::config(config_file);
  if (config.cross_layer) return tracer::load_cross_layers(folder, config, options);
  std::map<Layer, LoadedDictionary> out;
  const auto add = [&](std::int32_t layer, const std::filesystem::path& file) {
    if (!out.try_emplace(Layer{layer}, tracer::load(file, layer, config, options)).second) {
      throw ConfigError{{.file = file, .problem = "two transcoders of layer " + std::to_string(layer)}};
    }
  };
  for (std::size_t l = 0; l < config.files.size(); ++l) {
    const auto& name = config.files[l];
    const std::filesystem::path path{name};
    if (name.find("://") != name.npos || path.is_absolute() || name.find("..") != name.npos) {
      throw ConfigError{{.file = config_file,
                         .tensor = "transcoders",
                         .problem = "lies outside this folder",
                         .got = name,
                         .hint = "fetch the file into the folder and list it by its name"}};
    }
    add(static_cast<std::int32_t>(l), folder / path);
  }
  if (!config.files.empty()) return out;
  for (const auto& entry : std::filesystem::directory_iterator{folder}) {
    const auto& path = entry.path();
    const auto layer = detail::number_in_path(path.filename(), "layer_");
    if (path.extension() == ".safetensors" && layer) add(*layer, path);
  }
  if (out.empty()) throw ConfigError{{.file = folder, .problem = "holds no layer_{l}.safetensors"}};
  return out;
}

}  // namespace circuit
