#pragma once

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// What a transcoder of sparsify subtracts from its input, which its files do not say.
enum class SparsifyInput {
  as_configured,  ///< nothing; an SAE its b_dec
  b_dec_too,      ///< its b_dec, as transcoders trained before February 2025 do
};

/// Reads a folder of EleutherAI's sparsify: cfg.json and sae.safetensors, TopK or GroupMax, SAE or transcoder, with or
/// without a skip path. Where it sits is read from the folder's name, a module's: `layers.3` (the residual stream),
/// `layers.3.mlp` or `h.3.mlp` (an MLP, its input behind the norm's gain), `embed_tokens`.
///
/// throws  FileError, FormatError, ConfigError (signed activations, an activation that is not known)
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN, k)  naming the tensor
[[nodiscard]] LoadedDictionary load_sparsify(const std::filesystem::path& folder, const DictionaryOptions& options = {},
                                             SparsifyInput input = SparsifyInput::as_configured);

}  // namespace circuit

namespace circuit::detail::sparsify {

/// The layer and the module behind it in "layers.3.mlp"; the module is empty for the block itself.
[[nodiscard]] inline std::optional<std::pair<std::int32_t, std::string>> module_of(std::string_view name) {
  for (const std::string_view start : {"layers.", "layers_", "h."}) {
    if (!name.starts_with(start)) continue;
    const auto rest = name.substr(start.size());
    std::int32_t layer = -1;
    const auto [end, status] = std::from_chars(rest.data(), rest.data() + rest.size(), layer);
    if (status != std::errc{} || layer < 0) return {};
    const auto module = rest.substr(static_cast<std::size_t>(end - rest.data()));
    if (!module.empty() && module.front() != '.' && module.front() != '_') return {};
    return std::pair{layer, std::string{module.empty() ? module : module.substr(1)}};
  }
  return {};
}

[[nodiscard]] inline DictionaryHooks hooks(const std::filesystem::path& folder, bool transcoder) {
  const auto name = folder_name(folder);
  if (name == "embed_tokens") return {std::string{hook::embed::name}, std::string{hook::embed::name}};
  const auto place = module_of(name);
  if (!place) return {};
  const auto& [layer, module] = *place;
  const auto at_layer = [&, l = layer](std::string_view hook) { return hook_in_block(l, hook); };
  if (module.empty() && !transcoder) return {at_layer(hook::resid_post::name), at_layer(hook::resid_post::name)};
  if (module != "mlp") return {};
  return {at_layer(transcoder ? "mlp.hook_in" : hook::mlp_out::name), at_layer(hook::mlp_out::name)};
}

[[nodiscard]] inline activation::Any activation(const nlohmann::json& config, const std::filesystem::path& file) {
  if (value_or(config, "signed", file, false)) {
    throw ConfigError{
        {.file = file, .tensor = "signed", .problem = "is not supported", .expected = "false", .got = "true"}};
  }
  const auto name = value_or<std::string>(config, "activation", file, "topk");
  const auto k = require<std::int64_t>(config, "k", file);
  if (name == "topk") return {activation::TopK{.k = k}};
  if (name == "groupmax") return {activation::GroupMax{.groups = k}};
  throw ConfigError{
      {.file = file, .tensor = "activation", .problem = "is not known", .expected = "topk or groupmax", .got = name}};
}

}  // namespace circuit::detail::sparsify

namespace circuit {

inline LoadedDictionary load_sparsify(const std::filesystem::path& folder, const DictionaryOptions& options,
                                      SparsifyInput input) {
  const auto config_file = folder / "cfg.json";
  const auto config = read_json(config_file);
  const bool transcoder = value_or(config, "transcode", config_file, false);
  const auto file = open_safetensors(folder / "sae.safetensors");
  const detail::DictionaryReader reader{file, "", options};
  const bool skip = value_or(config, "skip_connection", config_file, reader.has("W_skip"));
  auto weights = detail::linear_maps(reader, "encoder.weight", "encoder.bias", skip);
  if (!transcoder || input == SparsifyInput::b_dec_too) weights.b_in = weights.b_out;
  detail::check_size("d_in", value_or(config, "d_in", config_file, weights.d_in()), weights.d_in(), config_file);
  if (const auto latents = value_or<std::int64_t>(config, "num_latents", config_file, 0); latents != 0) {
    detail::check_size("num_latents", latents, weights.d_sae(), config_file);
  }
  return {detail::assemble(std::move(weights), detail::sparsify::activation(config, config_file), file.path(),
                           folder.string()),
          detail::sparsify::hooks(folder, transcoder)};
}

}  // namespace circuit
