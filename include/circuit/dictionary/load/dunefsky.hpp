#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads an MLP transcoder as Dunefsky, Chlenski and Nanda published them for GPT-2 small (2024): a .pt file of a
/// pickled configuration object `cfg` and a `state_dict` of W_enc, b_enc, W_dec, b_dec and b_dec_out. Nothing in the
/// pickle is executed. It reads ln2.hook_normalized of the processed model and describes hook_mlp_out.
///
/// throws  FileError, FormatError, ConfigError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] LoadedDictionary load_dunefsky(const std::filesystem::path& file, const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::dunefsky {

/// The configuration object among a file's values, or null.
[[nodiscard]] inline const nlohmann::json* config(const TorchFile& file) {
  const auto* found = find_field(file.values, "cfg");
  return found != nullptr && found->is_object() ? found : nullptr;
}

[[nodiscard]] inline DictionaryHooks hooks(const nlohmann::json& config, const std::filesystem::path& file) {
  if (!value_or(config, "is_transcoder", file, true)) {
    throw ConfigError{{.file = file, .tensor = "cfg.is_transcoder", .expected = "true", .got = "false"}};
  }
  return {require<std::string>(config, "hook_point", file), require<std::string>(config, "out_hook_point", file)};
}

/// Where Neuronpedia shows these features: only GPT-2 small's are there.
[[nodiscard]] inline std::string name_of(const std::filesystem::path& file, const std::string& hook) {
  const auto place = split_hook(hook);
  if (!place || file.filename().string().find("gpt2-small") == std::string::npos) return file.string();
  return "gpt2-small/" + std::to_string(place->first.value) + "-tres-dc";
}

}  // namespace circuit::detail::dunefsky

namespace circuit {

inline LoadedDictionary load_dunefsky(const std::filesystem::path& file, const DictionaryOptions& options) {
  const auto torch = read_torch(file);
  const auto* config = detail::dunefsky::config(torch);
  if (config == nullptr) {
    throw ConfigError{{.file = file, .tensor = "cfg", .problem = "is missing", .expected = "a configuration object"}};
  }
  const auto hooks = detail::dunefsky::hooks(*config, file);
  const detail::DictionaryReader reader{torch.tensors, "state_dict.", options};
  auto dictionary = reader.transcoder(detail::dunefsky::name_of(file, hooks.in));
  detail::check_size("cfg.d_in", value_or(*config, "d_in", file, dictionary.d_in()), dictionary.d_in(), file);
  detail::check_size("cfg.d_sae", value_or(*config, "d_sae", file, dictionary.d_sae()), dictionary.d_sae(), file);
  return {std::move(dictionary), hooks, weights::folded_and_centered};
}

}  // namespace circuit
