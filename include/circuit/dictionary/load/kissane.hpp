#pragma once

#include <charconv>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads an attention SAE as Kissane and others published them for GPT-2 small (2024): `{run}.pt`, a state dict of
/// W_enc, b_enc, W_dec and b_dec, beside `{run}_cfg.json`. It reads hook_z over concatenated heads of the processed
/// model. Without the configuration, the layer is the one that the run's name holds (`..._L5_Hcat_z_...`).
///
/// throws  FileError, FormatError, ConfigError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] LoadedDictionary load_kissane(const std::filesystem::path& file, const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::kissane {

[[nodiscard]] inline std::filesystem::path config_file(const std::filesystem::path& file) {
  return file.parent_path() / (file.stem().string() + "_cfg.json");
}

/// The layer in a run's name, such as `gpt2-small_L5_Hcat_z_lr1.20e-03`.
[[nodiscard]] inline std::optional<Layer> layer_of_run(std::string_view run) {
  const auto end = run.find("_Hcat_z");
  if (end == run.npos) return {};
  const auto start = run.rfind('L', end);
  if (start == run.npos || (start > 0 && run[start - 1] != '_')) return {};
  std::int32_t layer = -1;
  const auto [rest, status] = std::from_chars(run.data() + start + 1, run.data() + end, layer);
  if (status != std::errc{} || rest != run.data() + end) return {};
  return Layer{layer};
}

[[nodiscard]] inline std::string hook_of(const std::filesystem::path& file) {
  const auto config = config_file(file);
  if (std::filesystem::exists(config)) return require<std::string>(read_json(config), "act_name", config);
  if (const auto layer = layer_of_run(file.stem().string())) {
    return "blocks." + std::to_string(layer->value) + ".attn.hook_z";
  }
  throw ConfigError{{.file = file,
                     .problem = "its layer is not known",
                     .expected = config.filename().string() + " beside it, or a name with _L5_Hcat_z_"}};
}

/// Where Neuronpedia shows these features: only GPT-2 small's are there.
[[nodiscard]] inline std::string name_of(const std::filesystem::path& file, const std::string& hook) {
  const auto place = split_hook(hook);
  if (!place || !file.filename().string().starts_with("gpt2-small")) return file.string();
  return "gpt2-small/" + std::to_string(place->first.value) + "-att-kk";
}

}  // namespace circuit::detail::kissane

namespace circuit {

inline LoadedDictionary load_kissane(const std::filesystem::path& file, const DictionaryOptions& options) {
  const auto tensors = open_torch(file);
  const auto hook = detail::kissane::hook_of(file);
  auto dictionary = detail::DictionaryReader{tensors, "", options}.sae(detail::kissane::name_of(file, hook));
  const auto config = detail::kissane::config_file(file);
  if (std::filesystem::exists(config)) {
    const auto json = read_json(config);
    detail::check_size("act_size", value_or(json, "act_size", config, dictionary.d_in()), dictionary.d_in(), config);
    detail::check_size("dict_size", value_or(json, "dict_size", config, dictionary.d_sae()), dictionary.d_sae(),
                       config);
  }
  return {std::move(dictionary), {hook, hook}, weights::folded_and_centered};
}

}  // namespace circuit
