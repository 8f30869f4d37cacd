#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// Reads a SAELens folder: cfg.json and sae_weights.safetensors, as written before and since its version 6. The ReLU
/// architectures "standard" and "transcoder" are read; others, input normalisation and dictionaries on a single head
/// are refused by name.
///
/// throws  FileError, FormatError, ConfigError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] LoadedDictionary load_sae_lens(const std::filesystem::path& folder,
                                             const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::sae_lens {

/// What a cfg.json says of all that this library reads.
struct Config {
  std::string architecture;
  std::int64_t d_in;
  std::int64_t d_sae;
  bool subtracts_b_dec;
  DictionaryHooks hooks;
  std::string neuronpedia_id;
  std::optional<weights::Processing> expects;
};

inline void refuse(const std::filesystem::path& file, std::string key, std::string expected, std::string got,
                   std::string hint = {}) {
  throw ConfigError{{.file = file,
                     .tensor = std::move(key),
                     .problem = "is not supported",
                     .expected = std::move(expected),
                     .got = std::move(got),
                     .hint = std::move(hint)}};
}

/// A key's value from `metadata`, where version 6 keeps it, or from the top, where older ones do.
template <class T>
[[nodiscard]] T anywhere(const nlohmann::json& json, const std::string& key, const std::filesystem::path& file,
                         T otherwise) {
  const auto metadata = json.find("metadata");
  if (metadata != json.end() && metadata->is_object() && metadata->contains(key)) {
    return value_or<T>(*metadata, key, file, std::move(otherwise));
  }
  return value_or<T>(json, key, file, std::move(otherwise));
}

[[nodiscard]] inline std::string architecture(const nlohmann::json& json, const std::filesystem::path& file) {
  const auto name = value_or<std::string>(json, "architecture", file, "standard");
  if (name != "standard" && name != "transcoder") refuse(file, "architecture", "standard or transcoder", name);
  for (const auto* key : {"activation_fn", "activation_fn_str"}) {
    const auto activation = value_or<std::string>(json, key, file, "relu");
    if (activation != "relu") refuse(file, key, "relu", activation);
  }
  return name;
}

inline void check_normalization(const nlohmann::json& json, const std::filesystem::path& file) {
  const auto found = json.find("normalize_activations");
  if (found == json.end() || found->is_null() || *found == false || *found == "none") return;
  refuse(file, "normalize_activations", "none", short_dump(*found),
         "fold the activations' scale into W_enc, W_dec and b_dec first");
}

[[nodiscard]] inline DictionaryHooks hooks(const nlohmann::json& json, const std::filesystem::path& file,
                                           bool transcoder) {
  auto in = anywhere<std::string>(json, "hook_name", file, "");
  if (in.empty()) in = require<std::string>(json, "hook_point", file);
  for (const auto* key : {"hook_head_index", "hook_point_head_index", "hook_head_index_out"}) {
    const auto head = anywhere<nlohmann::json>(json, key, file, nullptr);
    if (!head.is_null()) refuse(file, key, "null: all heads", short_dump(head));
  }
  auto out = transcoder ? anywhere<std::string>(json, "hook_name_out", file, "") : in;
  if (out.empty()) throw ConfigError{{.file = file, .tensor = "hook_name_out", .problem = "is missing"}};
  return {std::move(in), std::move(out)};
}

/// The model's loading options, of which a missing one means TransformerLens' default: all on.
[[nodiscard]] inline std::optional<weights::Processing> expected_processing(const nlohmann::json& json,
                                                                            const std::filesystem::path& file) {
  const auto options = anywhere<nlohmann::json>(json, "model_from_pretrained_kwargs", file, nullptr);
  if (!options.is_object()) return {};
  return weights::Processing{.fold_norms = value_or(options, "fold_ln", file, true),
                             .center_writing = value_or(options, "center_writing_weights", file, true),
                             .center_unembed = value_or(options, "center_unembed", file, true),
                             .fold_value_biases = value_or(options, "fold_value_biases", file, true)};
}

[[nodiscard]] inline Config config(const std::filesystem::path& file) {
  const auto json = read_json(file);
  if (!json.is_object()) throw ConfigError{{.file = file, .expected = "an object", .got = json.type_name()}};
  const auto name = architecture(json, file);
  check_normalization(json, file);
  const bool transcoder = name == "transcoder";
  const bool subtracts = value_or(json, "apply_b_dec_to_input", file, !transcoder);
  if (transcoder && subtracts) {
    refuse(file, "apply_b_dec_to_input", "false: a transcoder's b_dec is its output's", "true");
  }
  return {.architecture = name,
          .d_in = require<std::int64_t>(json, "d_in", file),
          .d_sae = require<std::int64_t>(json, "d_sae", file),
          .subtracts_b_dec = subtracts,
          .hooks = hooks(json, file, transcoder),
          .neuronpedia_id = anywhere<std::string>(json, "neuronpedia_id", file, ""),
          .expects = expected_processing(json, file)};
}

/// A tensor of ones is what old trainers left behind.
inline void check_scaling_factor(const DictionaryReader& reader, const std::filesystem::path& file) {
  if (!reader.has("scaling_factor") || reader.read("scaling_factor", 1).eq(1).all().item<bool>()) return;
  throw ConfigError{{.file = file,
                     .tensor = "scaling_factor",
                     .problem = "is not supported",
                     .expected = "ones",
                     .got = "other values",
                     .hint = "multiply it into the rows of W_dec and leave it out"}};
}

}  // namespace circuit::detail::sae_lens

namespace circuit {

inline LoadedDictionary load_sae_lens(const std::filesystem::path& folder, const DictionaryOptions& options) {
  const auto config_file = folder / "cfg.json";
  const auto config = detail::sae_lens::config(config_file);
  const auto file = open_safetensors(folder / "sae_weights.safetensors");
  const detail::DictionaryReader reader{file, "", options};
  detail::sae_lens::check_scaling_factor(reader, file.path());

  const auto b_dec = reader.read("b_dec", 1);
  auto dictionary = reader.dictionary(config.subtracts_b_dec ? b_dec : at::Tensor{}, b_dec,
                                      config.neuronpedia_id.empty() ? folder.string() : config.neuronpedia_id);
  detail::check_size("d_in", config.d_in, dictionary.d_in(), config_file);
  detail::check_size("d_sae", config.d_sae, dictionary.d_sae(), config_file);
  return {std::move(dictionary), config.hooks, config.expects};
}

}  // namespace circuit
