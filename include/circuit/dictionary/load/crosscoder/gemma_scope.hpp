#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load/crosscoder/refuse.hpp"
#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

// Crosscoders of Gemma Scope 2: a folder with a file per layer.

namespace circuit::detail::crosscoder {

/// The streams behind the layers that a text counts up: 8, 14 and 18 for "{7,13,17}" or "7_13_17".
[[nodiscard]] inline std::vector<Layer> streams_behind(std::string_view text) {
  constexpr auto most = std::numeric_limits<std::int32_t>::max();
  std::vector<Layer> layers;
  while (!text.empty()) {
    std::int32_t layer = -1;
    const auto [rest, status] = std::from_chars(text.data(), text.data() + text.size(), layer);
    if (status == std::errc{} && layer >= 0 && layer < most) layers.emplace_back(layer + 1);
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

}  // namespace circuit::detail::crosscoder
