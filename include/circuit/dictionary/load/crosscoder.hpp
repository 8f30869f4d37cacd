#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads a crosscoder of the residual stream. Of Gemma Scope 2, a folder `crosscoder/layer_7_13_17_22_width_.../` with
/// params_layer_0.safetensors and so on: a part for each layer, which reads that layer and writes into it and later ones
/// (or all, where the file has it write into earlier ones too). Else a file (.pt, .safetensors) of one part that reads
/// and writes all layers: `encoder.weight` [layers, d_model, d_sae] and `decoder.weight` [layers, d_sae, d_model], as
/// CrossCoder of dictionary_learning's forks has them, or `W_enc` and `W_dec` [d_sae, layers, d_model]; with a ReLU, or
/// (`k` and `threshold`) a BatchTopK, which is a JumpReLU in use: a feature is kept where its activation times the norms of
/// its decoder rows, as `code_normalization_id` joins them, is over the threshold. The forks' statistics of the streams, by
/// which some are normalised, are folded into the weights.
///
/// layers   the streams that it describes, each by the layer behind it: hook_resid_post of layer 7 is the stream before
///          layer 8. None: as a Gemma Scope folder's name or its config.json says
/// throws   FileError, FormatError, ConfigError (layers that nothing says; nonlinearities, code normalisations and skip
///          paths that are not known; hooks other than the stream's)
/// throws   NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] Crosscoder load_crosscoder(const std::filesystem::path& path, std::vector<Layer> layers = {},
                                         const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::crosscoder {

/// The streams behind the layers that a text counts up: 8, 14 and 18 for "{7,13,17}" or "7_13_17".
[[nodiscard]] inline std::vector<Layer> streams_behind(std::string_view text) {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  std::vector<Layer> layers;
  while (!text.empty()) {
    std::int32_t layer = -1;
    const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), layer);
    if (status == std::errc{} && layer >= 0 && layer < most) layers.push_back(Layer{layer + 1});
    text.remove_prefix(std::max<std::size_t>(1, static_cast<std::size_t>(rest - text.data())));
  }
  return layers;
}

/// Those in "layer_7_13_17_22_width_65k_l0_medium", or none.
[[nodiscard]] inline std::vector<Layer> layers_of_name(std::string_view name) {
  constexpr std::string_view start = "layer_";
  if (!name.starts_with(start)) return {};
  name.remove_prefix(start.size());
  return streams_behind(name.substr(0, name.find("_width")));
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

[[noreturn]] inline void refuse_unnamed(const std::filesystem::path& path, std::string problem) {
  refuse(path, "layers", std::move(problem), "name them, or list their hooks (dictionary::load_listed)");
}

[[nodiscard]] inline std::string folder_name(const std::filesystem::path& folder) {
  return (folder.filename().empty() ? folder.parent_path() : folder).filename().string();
}

/// The streams in "model.layers.{7,13}.output", as a configuration names a hook.
/// throws  ConfigError  for another module's output
[[nodiscard]] inline std::vector<Layer> layers_of_hook(const nlohmann::json& config, const char* key,
                                                       const std::filesystem::path& file) {
  const auto hook = value_or<std::string>(config, key, file, "");
  if (hook.empty()) return {};
  constexpr std::string_view start = "layers.";
  const auto from = hook.find(start);
  const auto to = from == hook.npos ? from : hook.find('.', from + start.size());
  if (to == hook.npos || hook.substr(to) != ".output") {
    throw ConfigError{{.file = file,
                       .tensor = key,
                       .problem = "is not of the residual stream, which alone a crosscoder is read for",
                       .expected = "model.layers.{...}.output",
                       .got = hook}};
  }
  return streams_behind(std::string_view{hook}.substr(from, to - from));
}

/// The streams that a folder of Gemma Scope 2 describes by its name or its configuration; none where neither says.
/// throws  ConfigError  for hooks other than the stream's
[[nodiscard]] inline std::vector<Layer> layers_of_folder(const std::filesystem::path& folder) {
  auto layers = layers_of_name(folder_name(folder));
  const auto file = folder / "config.json";
  if (!std::filesystem::exists(file)) return layers;
  const auto config = read_json(file);
  for (const auto* key : {"hf_hook_point_in", "hf_hook_point_out"}) {
    auto configured = layers_of_hook(config, key, file);
    if (layers.empty()) layers = std::move(configured);
  }
  return layers;
}

/// Whether a folder of Gemma Scope 2 with a file per layer is a crosscoder's: by its configuration, its name or its
/// parents'. Others are of cross-layer transcoders.
[[nodiscard]] inline bool is_folder(const std::filesystem::path& folder) {
  if (!std::filesystem::exists(file_of_layer(folder, 0))) return false;
  if (const auto config = folder / "config.json"; std::filesystem::exists(config)) {
    const auto type = value_or<std::string>(read_json(config), "type", config, "");
    if (!type.empty()) return type == "crosscoder";
  }
  const bool inside = std::any_of(folder.begin(), folder.end(), [](const auto& part) { return part == "crosscoder"; });
  return inside || layers_of_name(folder_name(folder)).size() > 1;
}

[[nodiscard]] inline TensorFile open(const std::filesystem::path& path) {
  return path.extension() == ".safetensors" ? open_safetensors(path) : open_torch(path);
}

/// Whether a file of tensors is a crosscoder: its encoder has an axis of layers.
/// throws  as the file's reader
[[nodiscard]] inline bool is_file(const std::filesystem::path& path) {
  if (path.extension() != ".safetensors" && path.extension() != ".pt") return false;
  const auto file = open(path);
  for (const auto* name : {"encoder.weight", "W_enc"}) {
    if (const auto* encoder = file.find(name)) return encoder->shape.size() == 3;
  }
  return false;
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
  auto named = layers_of_folder(folder);
  if (layers.empty()) layers = std::move(named);
  if (layers.empty()) {
    refuse_unnamed(folder, "neither the folder's name nor its config.json says which layers it describes");
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

/// What dictionary_learning's forks multiply activations by before they compare them, from a feature's decoder rows.
/// decoder  [d_sae, layers, d_model]   return  [d_sae], or undefined for 1
[[nodiscard]] inline at::Tensor code_norms(const TensorFile& file, const at::Tensor& decoder) {
  constexpr auto name = "code_normalization_id";
  enum : std::int64_t { crosscoder = 1, sae, mixed, none, decoupled };  // as the forks number them
  const auto id = file.find(name) == nullptr ? std::int64_t{crosscoder} : read_whole_number(file, name);
  const auto squares = widened(decoder).square().sum(-1);
  if (id == crosscoder) return squares.sqrt().sum(-1);
  if (id == sae) return squares.sum(-1).sqrt();
  if (id == none) return {};
  throw ConfigError{{.file = file.path(),
                     .tensor = name,
                     .problem = id == mixed       ? "is MIXED, by weights that the file does not say"
                                : id == decoupled ? "is DECOUPLED, with activations for every layer"
                                                  : "is not known",
                     .expected = "1 (CROSSCODER), 2 (SAE) or 4 (NONE)",
                     .got = std::to_string(id)}};
}

/// A ReLU, or what a BatchTopK is in use. decoder [d_sae, layers, d_model]
[[nodiscard]] inline activation::Any activation(const TensorFile& file, const DictionaryReader& reader,
                                                const at::Tensor& decoder, const DictionaryOptions& options) {
  const bool k = reader.has("k");
  const bool threshold = reader.has("threshold");
  if (!k && !threshold && !reader.has("log_threshold")) return {};
  if (!k || !threshold || reader.has("log_threshold")) {
    refuse(file.path(), k ? "k" : threshold ? "threshold" : "log_threshold",
           "in this layout only crosscoders with a ReLU, or k and threshold of a BatchTopK, are supported");
  }
  const auto norms = code_norms(file, decoder);
  auto per_feature = read_threshold(reader, file, "threshold", options, decoder.size(0));
  check_shape(per_feature, {decoder.size(0)}, "threshold", file.path());
  if (norms.defined()) {
    const auto never = std::numeric_limits<double>::infinity();  // a feature without rows is not over a threshold of 0
    per_feature = per_feature.div(norms).nan_to_num(never, never, -never);
  }
  return {activation::JumpRelu{std::move(per_feature)}};
}

/// What dictionary_learning's forks normalise a crosscoder's streams by: (x - mean) * scale before it encodes, undone behind
/// what it decodes.
struct Normalisation {
  at::Tensor mean;   ///< [layers, d_model]
  at::Tensor scale;  ///< [layers]
};

/// return  nothing where the file has none: the forks keep NaN for statistics that they do not use
[[nodiscard]] inline std::optional<Normalisation> normalisation(const TensorFile& file, const DictionaryReader& reader,
                                                               const DictionaryOptions& options, std::int64_t layers,
                                                               std::int64_t d_model) {
  for (const auto* name : {"activation_mean", "activation_std"}) {
    const auto* statistic = file.find(name);
    if (statistic == nullptr || to_tensor(*statistic).isnan().any().item<bool>()) return {};
  }
  constexpr auto scale_name = "activation_global_scale";  // one for all, or one per layer
  Normalisation out{reader.read("activation_mean", 2), read_threshold(reader, file, scale_name, options, layers)};
  check_shape(out.mean, {layers, d_model}, "activation_mean", file.path());
  check_shape(out.scale, {layers}, scale_name, file.path());
  if (out.scale.gt(0).all().item<bool>()) return out;
  throw ValueError{{.file = file.path(), .tensor = scale_name, .expected = "numbers over 0", .got = "others"}};
}

/// The same crosscoder of streams that are not normalised, in memory of its own.
/// encoder  [layers, d_model, d_sae]   decoder  [d_sae, layers, d_model]   b_out  [layers, d_model]
inline void fold(const Normalisation& by, at::Tensor& encoder, at::Tensor& b_enc, at::Tensor& decoder, at::Tensor& b_out) {
  encoder = widened(encoder).mul(by.scale.view({-1, 1, 1}));
  b_enc = b_enc.sub(by.mean.unsqueeze(1).matmul(encoder).sum(0).squeeze(0));
  const auto undone = by.scale.add(1e-8);  // as the forks have it
  decoder = widened(decoder).div(undone.view({1, -1, 1}));
  b_out = b_out.div(undone.unsqueeze(-1)).add(by.mean);
}

/// One part that reads and writes all layers.
[[nodiscard]] inline Crosscoder acausal(const TensorFile& file, std::vector<Layer> layers,
                                        const DictionaryOptions& options) {
  const DictionaryReader reader{file, "", options};
  const bool learned = reader.has("encoder.weight");
  const std::string encoder_name = learned ? "encoder.weight" : "W_enc";
  auto encoder = reader.read_matrix(encoder_name, 3);  // [layers, d_model, d_sae]
  const auto count = encoder.size(0);
  const auto d_model = encoder.size(1);
  if (layers.empty()) refuse_unnamed(file.path(), "the file does not say which layers it describes");
  check_shape(encoder, {static_cast<std::int64_t>(layers.size()), -1, -1}, encoder_name, file.path(),
              "one block per layer");
  const std::string decoder_name = learned ? "decoder.weight" : "W_dec";
  auto decoder = reader.read_matrix(decoder_name, 3);
  if (learned) decoder = decoder.transpose(0, 1);  // [d_sae, layers, d_model]
  check_shape(decoder, {encoder.size(2), count, d_model}, decoder_name, file.path());
  Crosscoder out{.layers = layers, .name = file.path().string()};
  CrosscoderPart part{.reads = layers, .writes = std::move(layers)};
  part.dictionary.activation = activation(file, reader, decoder, options);
  DictionaryWeights& weights = part.dictionary;
  weights.b_enc = reader.read(learned ? "encoder.bias" : "b_enc", 1);
  out.b_out = reader.read(learned ? "decoder.bias" : "b_dec", 2);
  if (const auto by = normalisation(file, reader, options, count, d_model)) {
    check_shape(weights.b_enc, {encoder.size(2)}, learned ? "encoder.bias" : "b_enc", file.path());
    check_shape(out.b_out, {count, d_model}, learned ? "decoder.bias" : "b_dec", file.path());
    fold(*by, encoder, weights.b_enc, decoder, out.b_out);
  } else {
    weights.W_dec_pages = file.pages(file.get(decoder_name));
  }
  weights.W_enc = encoder.reshape({count * d_model, encoder.size(2)});
  weights.W_dec = decoder.select(1, 0);
  if (count > 1) weights.W_later = decoder.narrow(1, 1, count - 1);
  weights.name = out.name;
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
    out = cross::acausal(cross::open(path), std::move(layers), options);
  }
  out.check();
  return out;
}

}  // namespace circuit
