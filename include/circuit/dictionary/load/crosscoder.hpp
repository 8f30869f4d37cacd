#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads a crosscoder of the residual stream. Of Gemma Scope 2, a folder `crosscoder/layer_7_13_17_22_width_.../` with
/// params_layer_0.safetensors and so on: a part for each layer, which reads that layer and writes into it and later ones
/// (or all, where the file has it write into earlier ones too). Else a file (.pt, .safetensors) of one part that reads
/// and writes all layers: `encoder.weight` [layers, d_model, d_sae] and `decoder.weight` [layers, d_sae, d_model], as
/// CrossCoder of dictionary_learning's forks has them, or `W_enc` and `W_dec` [d_sae, layers, d_model]; with a ReLU.
///
/// layers   the streams that it describes, each by the layer behind it: hook_resid_post of layer 7 is the stream before
///          layer 8. None: as a Gemma Scope folder's name says
/// throws   FileError, FormatError, ConfigError (layers that nothing says, nonlinearities and skip paths that are not
///          known)
/// throws   NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] Crosscoder load_crosscoder(const std::filesystem::path& path, std::vector<Layer> layers = {},
                                         const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::crosscoder {

/// The streams behind the layers in "layer_7_13_17_22_width_65k_l0_medium", or none.
[[nodiscard]] inline std::vector<Layer> layers_of_name(const std::string& name) {
  constexpr std::string_view start = "layer_";
  std::vector<Layer> layers;
  if (!name.starts_with(start)) return layers;
  const char* at = name.data() + start.size();
  const char* const end = name.data() + name.size();
  while (at < end) {
    std::int32_t layer = -1;
    const auto [rest, status] = std::from_chars(at, end, layer);
    if (status != std::errc{} || layer < 0) break;
    layers.push_back(Layer{layer + 1});
    at = rest == end ? end : rest + 1;
  }
  return layers;
}

[[nodiscard]] inline std::filesystem::path file_of_layer(const std::filesystem::path& folder, std::size_t i) {
  return folder / ("params_layer_" + std::to_string(i) + ".safetensors");
}

/// What is wrong with a crosscoder's file.
[[noreturn]] inline void refuse(const std::filesystem::path& file, std::string tensor, std::string problem,
                                std::string hint = {}) {
  throw ConfigError{
      {.file = file, .tensor = std::move(tensor), .problem = std::move(problem), .hint = std::move(hint)}};
}

/// One layer's features of Gemma Scope 2, and the output bias of that layer.
[[nodiscard]] inline std::pair<CrosscoderPart, at::Tensor> gemma_scope_part(const std::filesystem::path& path,
                                                                           const std::vector<Layer>& layers,
                                                                           std::size_t own,
                                                                           const DictionaryOptions& options) {
  const auto file = open_safetensors(path);
  const DictionaryReader reader{file, "", options};
  if (reader.has("affine_skip_connection")) {
    refuse(path, "affine_skip_connection", "a crosscoder with a skip path is not supported");
  }
  CrosscoderPart part{.reads = {layers[own]}};
  DictionaryWeights& weights = part.dictionary;
  reader.read_encoder(weights, "w_enc");
  weights.b_enc = reader.read("b_enc", 1);
  const auto decoder = reader.read_matrix("w_dec", 3);  // [d_sae, layers, d_model]
  const auto count = static_cast<std::int64_t>(layers.size());
  check_shape(decoder, {-1, count, -1}, "w_dec", path, "one row per layer of the crosscoder");
  const auto place = static_cast<std::int64_t>(own);
  const bool earlier = place > 0 && decoder.narrow(1, 0, place).ne(0).any().item<bool>();
  const auto first = earlier ? 0 : place;
  part.writes.assign(layers.begin() + first, layers.end());
  weights.W_dec = decoder.select(1, first);
  if (first + 1 < count) weights.W_later = decoder.narrow(1, first + 1, count - first - 1);
  weights.W_dec_pages = file.pages(file.get("w_dec"));
  part.dictionary.activation = {activation::JumpRelu{reader.read("threshold", 1)}};
  weights.name = path.string();
  return {std::move(part), reader.read("b_dec", 1)};
}

[[nodiscard]] inline Crosscoder gemma_scope(const std::filesystem::path& folder, std::vector<Layer> layers,
                                            const DictionaryOptions& options) {
  auto named = folder.filename();
  if (named.empty()) named = folder.parent_path().filename();
  if (layers.empty()) layers = layers_of_name(named.string());
  if (layers.empty()) {
    refuse(folder, "layers", "the folder's name does not say which layers it describes", "name them");
  }
  if (std::filesystem::exists(file_of_layer(folder, layers.size()))) {
    refuse(folder, "layers", "there are more files than layers");
  }
  Crosscoder out{.layers = std::move(layers), .name = folder.string()};
  std::vector<at::Tensor> biases;
  for (std::size_t own = 0; own < out.layers.size(); ++own) {
    auto [part, bias] = gemma_scope_part(file_of_layer(folder, own), out.layers, own, options);
    out.parts.push_back(std::move(part));
    biases.push_back(std::move(bias));
    check_shape(biases.back(), {biases.front().size(0)}, "b_dec", folder);
  }
  out.b_out = make::stack(biases);
  return out;
}

/// One part that reads and writes all layers.
[[nodiscard]] inline Crosscoder acausal(const TensorFile& file, std::vector<Layer> layers,
                                        const DictionaryOptions& options) {
  const DictionaryReader reader{file, "", options};
  const bool learned = reader.has("encoder.weight");
  for (const auto* name : {"k", "threshold", "log_threshold"}) {
    if (reader.has(name)) refuse(file.path(), name, "only crosscoders with a ReLU are supported in this layout");
  }
  const std::string encoder_name = learned ? "encoder.weight" : "W_enc";
  const auto encoder = reader.read_matrix(encoder_name, 3);  // [layers, d_model, d_sae]
  const auto count = encoder.size(0);
  if (layers.empty()) refuse(file.path(), "layers", "the file does not say which layers it describes", "name them");
  check_shape(encoder, {static_cast<std::int64_t>(layers.size()), -1, -1}, encoder_name, file.path(),
              "one block per layer");
  Crosscoder out{.layers = layers, .name = file.path().string()};
  CrosscoderPart part{.reads = layers, .writes = std::move(layers)};
  DictionaryWeights& weights = part.dictionary;
  weights.W_enc = encoder.reshape({count * encoder.size(1), encoder.size(2)});
  weights.b_enc = reader.read(learned ? "encoder.bias" : "b_enc", 1);
  const std::string decoder_name = learned ? "decoder.weight" : "W_dec";
  auto decoder = reader.read_matrix(decoder_name, 3);
  if (learned) decoder = decoder.transpose(0, 1);  // [d_sae, layers, d_model]
  check_shape(decoder, {encoder.size(2), count, encoder.size(1)}, decoder_name, file.path());
  weights.W_dec = decoder.select(1, 0);
  if (count > 1) weights.W_later = decoder.narrow(1, 1, count - 1);
  weights.W_dec_pages = file.pages(file.get(decoder_name));
  weights.name = out.name;
  out.b_out = reader.read(learned ? "decoder.bias" : "b_dec", 2);
  out.parts.push_back(std::move(part));
  return out;
}

}  // namespace circuit::detail::crosscoder

namespace circuit {

inline Crosscoder load_crosscoder(const std::filesystem::path& path, std::vector<Layer> layers,
                                  const DictionaryOptions& options) {
  namespace cross = detail::crosscoder;
  Crosscoder out;
  if (std::filesystem::is_directory(path)) {
    if (!std::filesystem::exists(cross::file_of_layer(path, 0))) {
      cross::refuse(path, "params_layer_0.safetensors", "is not in this folder",
                    "a crosscoder in one file is read by the file's path");
    }
    out = cross::gemma_scope(path, std::move(layers), options);
  } else {
    const auto file = path.extension() == ".safetensors" ? open_safetensors(path) : open_torch(path);
    out = cross::acausal(file, std::move(layers), options);
  }
  out.check();
  return out;
}

}  // namespace circuit
