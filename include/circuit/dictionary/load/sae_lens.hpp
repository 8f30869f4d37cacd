#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/activation/gated.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/safetensors.hpp"

namespace circuit {

/// Reads a SAELens folder: cfg.json and sae_weights.safetensors, as written before and since its version 6. All
/// architectures that it saves for inference are read (standard, gated, topk, jumprelu, transcoder, skip_transcoder,
/// jumprelu_transcoder, jumprelu_skip_transcoder), with every normalisation but whitening; those of training alone
/// are refused by name. A dictionary of a single head says which. Activations are SAELens': `rescale_acts_by_decoder_norm`
/// is folded.
///
/// throws  FileError, FormatError, ConfigError
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN)  naming the tensor
[[nodiscard]] LoadedDictionary load_sae_lens(const std::filesystem::path& folder,
                                             const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::sae_lens {

/// What becomes of pre-activations.
enum class Nonlinearity { relu, gated, top_k, jump_relu };

struct Architecture {
  Nonlinearity nonlinearity = Nonlinearity::relu;
  bool transcoder = false;
  bool skip = false;
};

/// What a cfg.json says of all that this library reads.
struct Config {
  Architecture architecture;
  std::int64_t k;      // of TopK
  bool decoder_norms;  // whether they multiply pre-activations
  InputNorm input_norm;
  bool scaled;  // whether activations were multiplied by a number that is not said
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
  const auto* metadata = find_field(json, "metadata");
  if (metadata != nullptr && find_field(*metadata, key) != nullptr) {
    return value_or<T>(*metadata, key, file, std::move(otherwise));
  }
  return value_or<T>(json, key, file, std::move(otherwise));
}

[[nodiscard]] inline Architecture architecture(const nlohmann::json& json, const std::filesystem::path& file) {
  constexpr std::pair<std::string_view, Architecture> known[] = {
      {"standard", {}},
      {"gated", {Nonlinearity::gated}},
      {"topk", {Nonlinearity::top_k}},
      {"jumprelu", {Nonlinearity::jump_relu}},
      {"transcoder", {Nonlinearity::relu, true}},
      {"skip_transcoder", {Nonlinearity::relu, true, true}},
      {"jumprelu_transcoder", {Nonlinearity::jump_relu, true}},
      {"jumprelu_skip_transcoder", {Nonlinearity::jump_relu, true, true}}};
  const auto name = value_or<std::string>(json, "architecture", file, "standard");
  const auto* found = std::ranges::find(known, name, [](const auto& entry) { return entry.first; });
  if (found == std::end(known)) {
    refuse(file, "architecture", "standard, gated, topk, jumprelu or a transcoder of these", name,
           "an SAE saved for inference has one of them");
  }
  auto out = found->second;
  for (const auto* key : {"activation_fn", "activation_fn_str"}) {
    const auto activation = value_or<std::string>(json, key, file, "relu");
    if (activation == "topk" && out.nonlinearity == Nonlinearity::relu) out.nonlinearity = Nonlinearity::top_k;
    if (activation == "relu" || (activation == "topk" && out.nonlinearity == Nonlinearity::top_k)) continue;
    refuse(file, key, "relu or topk", activation);
  }
  return out;
}

/// The number of features a TopK keeps; before version 6 among the activation's arguments. 0: not said
[[nodiscard]] inline std::int64_t kept_features(const nlohmann::json& json, const std::filesystem::path& file) {
  const auto arguments = value_or<nlohmann::json>(json, "activation_fn_kwargs", file, nlohmann::json::object());
  return value_or(json, "k", file, value_or<std::int64_t>(arguments, "k", file, 0));
}

/// The normalisation's name; before version 6 a bool.
[[nodiscard]] inline std::string normalization(const nlohmann::json& json, const std::filesystem::path& file) {
  const auto* found = find_field(json, "normalize_activations");
  if (found == nullptr || found->is_null()) return "none";
  if (const auto* flag = stored<bool>(*found)) return *flag ? "expected_average_only_in" : "none";
  return require<std::string>(json, "normalize_activations", file);
}

[[nodiscard]] inline InputNorm input_norm(const std::string& name, const std::filesystem::path& file, bool transcoder) {
  const bool undone = !transcoder;
  if (name == "none" || name == "expected_average_only_in") return {};
  if (name == "constant_norm_rescale") return {InputNorm::Kind::constant_norm, undone};
  if (name == "layer_norm") return {InputNorm::Kind::layer_norm, undone};
  throw ConfigError{{.file = file,
                     .tensor = "normalize_activations",
                     .problem = "is not supported",
                     .expected = "none, expected_average_only_in, constant_norm_rescale or layer_norm",
                     .got = name}};
}

[[nodiscard]] inline DictionaryHooks hooks(const nlohmann::json& json, const std::filesystem::path& file,
                                           bool transcoder) {
  auto in = anywhere<std::string>(json, "hook_name", file, "");
  if (in.empty()) in = require<std::string>(json, "hook_point", file);
  std::optional<std::int32_t> one_head;
  for (const auto* key : {"hook_head_index", "hook_point_head_index", "hook_head_index_out"}) {
    const auto head = anywhere<nlohmann::json>(json, key, file, nullptr);
    if (head.is_null()) continue;
    if (transcoder || !json_holds<std::uint16_t>(head) || !in.ends_with(hook::attn::z::name)) {
      refuse(file, key, "null, or a number for an SAE of attn.hook_z", short_dump(head));
    }
    one_head = json_as<std::int32_t>(head);
  }
  auto out = transcoder ? anywhere<std::string>(json, "hook_name_out", file, "") : in;
  if (out.empty()) throw ConfigError{{.file = file, .tensor = "hook_name_out", .problem = "is missing"}};
  return {std::move(in), std::move(out), one_head};
}

/// The model's loading options. SAELens hands them to TransformerLens' from_pretrained_no_processing, so that a missing
/// one is off.
[[nodiscard]] inline std::optional<weights::Processing> expected_processing(const nlohmann::json& json,
                                                                            const std::filesystem::path& file) {
  const auto options = anywhere<nlohmann::json>(json, "model_from_pretrained_kwargs", file, nullptr);
  if (!options.is_object()) return {};
  return weights::Processing{.fold_norms = value_or(options, "fold_ln", file, false),
                             .center_writing = value_or(options, "center_writing_weights", file, false),
                             .center_unembed = value_or(options, "center_unembed", file, false),
                             .fold_value_biases = value_or(options, "fold_value_biases", file, false)};
}

[[nodiscard]] inline Config config(const std::filesystem::path& file) {
  const auto json = read_json(file);
  if (!json.is_object()) throw ConfigError{{.file = file, .expected = "an object", .got = json.type_name()}};
  const auto kind = architecture(json, file);
  const auto normalized = normalization(json, file);
  const bool subtracts = value_or(json, "apply_b_dec_to_input", file, !kind.transcoder);
  if (kind.transcoder && subtracts) {
    refuse(file, "apply_b_dec_to_input", "false: a transcoder's b_dec is its output's", "true");
  }
  return {.architecture = kind,
          .k = kept_features(json, file),
          .decoder_norms = value_or(json, "rescale_acts_by_decoder_norm", file, false),
          .input_norm = input_norm(normalized, file, kind.transcoder),
          .scaled = normalized == "expected_average_only_in",
          .d_in = require<std::int64_t>(json, "d_in", file),
          .d_sae = require<std::int64_t>(json, "d_sae", file),
          .subtracts_b_dec = subtracts,
          .hooks = hooks(json, file, kind.transcoder),
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

/// The parts that every architecture has, and the bias of those that are not gated.
[[nodiscard]] inline DictionaryWeights weights(const DictionaryReader& reader, const Config& config) {
  DictionaryWeights out;
  reader.read_encoder(out, "W_enc");
  reader.read_decoder(out, "W_dec");
  out.b_out = reader.read("b_dec", 1);
  if (config.subtracts_b_dec) out.b_in = out.b_out;
  if (config.architecture.skip) reader.read_skip_rows(out, "W_skip");
  if (config.architecture.nonlinearity != Nonlinearity::gated) out.b_enc = reader.read("b_enc", 1);
  out.input_norm = config.input_norm;
  return out;
}

/// The dictionary of those parts with its nonlinearity.
[[nodiscard]] inline SparseDictionary<> with_nonlinearity(DictionaryWeights weights, const DictionaryReader& reader,
                                                          const Config& config) {
  switch (config.architecture.nonlinearity) {
    case Nonlinearity::gated:
      return from_gated(std::move(weights),
                        {reader.read("b_gate", 1), reader.read("b_mag", 1), reader.read("r_mag", 1)});
    case Nonlinearity::top_k:
      if (config.decoder_norms) fold_decoder_norms(weights);
      return {std::move(weights), {activation::TopK{.k = config.k}}};
    case Nonlinearity::jump_relu: return {std::move(weights), {activation::JumpRelu{reader.read("threshold", 1)}}};
    case Nonlinearity::relu: break;
  }
  return {std::move(weights), {}};
}

/// throws  ConfigError  unless the scale that a configuration leaves open was given, and is a number over 0
inline void fold_activation_scale(DictionaryWeights& weights, const DictionaryOptions& options,
                                  const std::filesystem::path& file) {
  if (options.activation_scale && is_scale(*options.activation_scale)) {
    return fold_scale(weights, *options.activation_scale, *options.activation_scale, weights.name);
  }
  throw ConfigError{{.file = file,
                     .tensor = "normalize_activations",
                     .problem = "says that activations were scaled in training, and not by what",
                     .expected = "DictionaryOptions::activation_scale, a number over 0",
                     .got = options.activation_scale ? std::to_string(*options.activation_scale) : "none",
                     .hint = "sqrt(d_in) / the activations' mean norm; 1 for weights into which it was folded"}};
}

}  // namespace circuit::detail::sae_lens

namespace circuit {

inline LoadedDictionary load_sae_lens(const std::filesystem::path& folder, const DictionaryOptions& options) {
  namespace lens = detail::sae_lens;
  const auto config_file = folder / "cfg.json";
  const auto config = lens::config(config_file);
  const auto file = open_safetensors(folder / "sae_weights.safetensors");
  const detail::DictionaryReader reader{file, "", options};
  lens::check_scaling_factor(reader, file.path());

  auto weights = lens::weights(reader, config);
  weights.name = file.path().string();
  if (config.scaled) lens::fold_activation_scale(weights, options, config_file);
  auto dictionary = lens::with_nonlinearity(std::move(weights), reader, config);
  dictionary.check();
  if (!config.architecture.transcoder) {
    check_shape(dictionary.W_dec, {dictionary.d_sae(), dictionary.d_in()}, "W_dec", file.path(),
                "an SAE describes what it reads");
  }
  dictionary.name = config.neuronpedia_id.empty() ? folder.string() : config.neuronpedia_id;
  detail::check_size("d_in", config.d_in, dictionary.d_in(), config_file);
  detail::check_size("d_sae", config.d_sae, dictionary.d_sae(), config_file);
  return {std::move(dictionary), config.hooks, config.expects};
}

}  // namespace circuit
