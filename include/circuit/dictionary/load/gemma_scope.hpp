#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/io/npz.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// Reads a dictionary of Gemma Scope (2024: `params.npz`) or Gemma Scope 2 (`params.safetensors`): JumpReLU SAEs that
/// subtract nothing from their input, and transcoders, of which the second may have an affine skip path or be one layer
/// of a cross-layer transcoder (`clt/.../params_layer_12.safetensors`). Where it sits is read from the folders' names, as
/// published: `gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82/params.npz`; hooks are empty where they do not say. A
/// SAE of the embedding (`embedding/...`) is scaled to what hook_embed holds.
///
/// throws  FileError, FormatError, ConfigError (a cross-layer transcoder of an unknown layer)
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] LoadedDictionary load_gemma_scope(const std::filesystem::path& path,
                                                const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::gemma_scope {

enum class Site { unknown, embedding, resid, mlp, attention, transcoder };

[[nodiscard]] inline Site site_of(const std::filesystem::path& path) {
  auto site = Site::unknown;
  for (auto part = path.begin(); part != path.end(); ++part) {
    const auto text = part->string();
    const auto has = [&](std::string_view word) { return text.find(word) != text.npos; };
    const auto next = std::next(part);
    if (text == "embedding" && next != path.end() && next->string().starts_with("width_")) {
      site = Site::embedding;
    } else if (has("transcoder") || has("clt")) {
      site = Site::transcoder;
    } else if (text.ends_with("-res") || has("resid_post")) {
      site = Site::resid;
    } else if (text.ends_with("-mlp") || has("mlp_out")) {
      site = Site::mlp;
    } else if (text.ends_with("-att") || has("attn_out")) {
      site = Site::attention;
    }
  }
  return site;
}

/// The layer in `layer_12/...` or `params_layer_12.safetensors`.
[[nodiscard]] inline std::optional<std::int32_t> layer_of(const std::filesystem::path& path) {
  const auto in_name = number_in_path(path.filename(), "params_layer_");
  return in_name ? in_name : number_in_path(path.parent_path(), "layer_");
}

[[nodiscard]] inline DictionaryHooks hooks(const std::filesystem::path& path) {
  const auto site = site_of(path);
  if (site == Site::embedding) return {std::string{hook::embed::name}, std::string{hook::embed::name}};
  const auto layer = layer_of(path);
  if (!layer || site == Site::unknown) return {};
  const auto both = [&](std::string_view hook) {
    return DictionaryHooks{hook_in_block(*layer, hook), hook_in_block(*layer, hook)};
  };
  if (site == Site::resid) return both(hook::resid_post::name);
  if (site == Site::mlp) return both(hook::mlp_out::name);
  if (site == Site::attention) return both(hook::attn::z::name);
  return {hook_in_block(*layer, hook::ln2::normalized::name), hook_in_block(*layer, hook::mlp_out::name)};
}

[[nodiscard]] inline bool is_in(const std::filesystem::path& path, std::string_view folder) {
  return std::any_of(path.begin(), path.end(), [&](const std::filesystem::path& part) { return part == folder; });
}

/// A tensor's name as the file spells it: some files have w_enc for W_enc.
[[nodiscard]] inline std::string spelled(const TensorFile& file, std::string name) {
  if (file.find(name) == nullptr && name.starts_with("W_")) {
    auto small = name;
    small[0] = 'w';
    if (file.find(small) != nullptr) return small;
  }
  return name;
}

}  // namespace circuit::detail::gemma_scope

namespace circuit {

inline LoadedDictionary load_gemma_scope(const std::filesystem::path& path, const DictionaryOptions& options) {
  namespace scope = detail::gemma_scope;
  const auto file = path.extension() == ".npz" ? open_npz(path) : open_safetensors(path);
  const detail::DictionaryReader reader{file, "", options};
  const auto W_dec = scope::spelled(file, "W_dec");
  const bool cross_layer = file.get(W_dec).shape.size() == 3;
  const auto layer = scope::layer_of(path);
  if (cross_layer && scope::is_in(path, "crosscoder")) {
    throw ConfigError{{.file = path,
                       .tensor = W_dec,
                       .problem = "is one layer of a crosscoder",
                       .hint = "read the folder with load_crosscoder"}};
  }
  if (cross_layer && !layer) {
    throw ConfigError{{.file = path,
                       .tensor = W_dec,
                       .problem = "is of a cross-layer transcoder, and its layer is not known",
                       .expected = "a name such as params_layer_3.safetensors"}};
  }
  DictionaryWeights weights;
  reader.read_encoder(weights, scope::spelled(file, "W_enc"));
  weights.b_enc = reader.read("b_enc", 1);
  cross_layer ? reader.read_cross_layer_decoder(weights, W_dec, *layer) : reader.read_decoder(weights, W_dec);
  weights.b_out = reader.read("b_dec", 1);
  if (reader.has("affine_skip_connection")) weights.W_skip = reader.read("affine_skip_connection", 2);
  if (scope::site_of(path) == scope::Site::embedding) {
    const auto scale = std::sqrt(static_cast<double>(weights.d_in()));
    weights.W_enc = widened(weights.W_enc).div(scale);
    weights.W_dec = widened(weights.W_dec).mul(scale);
    weights.W_dec_pages = {};
  }
  return {detail::assemble(std::move(weights), {activation::JumpRelu{reader.read("threshold", 1)}}, path),
          scope::hooks(path)};
}

}  // namespace circuit
