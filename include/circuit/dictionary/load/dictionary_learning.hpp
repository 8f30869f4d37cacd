#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/dictionary/activation/gated.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/torch_pickle.hpp"

namespace circuit {

/// Reads an SAE of the library dictionary_learning: `ae.pt`, a state dict, beside `config.json` where there is one. Its
/// class is known by its tensors, and where those leave it open by `trainer.dict_class`: AutoEncoder, AutoEncoderNew,
/// AutoEncoderTopK, BatchTopKSAE (and its Matryoshka kind), GatedAutoEncoder, JumpReluAutoEncoder. It sits on the
/// residual stream after `trainer.layer`, unless `trainer.submodule_name` names another place; hooks are empty where
/// nothing does.
///
/// throws  FileError, FormatError, ConfigError (a class that is not known)
/// throws  NameError, DTypeError, ShapeError, ValueError (NaN, k)  naming the tensor
[[nodiscard]] LoadedDictionary load_dictionary_learning(const std::filesystem::path& path,
                                                        const DictionaryOptions& options = {});

}  // namespace circuit

namespace circuit::detail::dictionary_learning {

/// The trainer's part of config.json, or null.
[[nodiscard]] inline nlohmann::json trainer(const std::filesystem::path& file) {
  const auto config = file.parent_path() / "config.json";
  if (!std::filesystem::exists(config)) return nullptr;
  return require<nlohmann::json>(read_json(config), "trainer", config);
}

[[nodiscard]] inline DictionaryHooks hooks(const nlohmann::json& trainer, const std::filesystem::path& file) {
  if (trainer.is_null()) return {};
  const auto layer = value_or<std::int32_t>(trainer, "layer", file, -1);
  if (layer < 0) return {};
  const auto module = value_or<std::string>(trainer, "submodule_name", file, "resid_post");
  for (const std::string_view name : {"resid_post", "attn_out", "mlp_out"}) {
    if (!module.starts_with(name)) continue;
    const auto hook = hook_in_block(layer, "hook_" + std::string{name});
    return {hook, hook};
  }
  return {};
}

/// Which class's state it is.
enum class Kind { plain, affine_decoder, top_k, batch_top_k, gated, jump_relu };

[[nodiscard]] inline Kind kind_of(const TensorFile& file, const nlohmann::json& trainer) {
  const auto has = [&](const char* name) { return file.find(name) != nullptr; };
  if (has("gate_bias")) return Kind::gated;
  if (has("W_enc")) return has("k") ? Kind::batch_top_k : Kind::jump_relu;  // the former a Matryoshka
  if (!has("k")) return has("decoder.bias") ? Kind::affine_decoder : Kind::plain;
  // Both of the TopK classes keep k and a threshold; only one uses the latter.
  if (trainer.is_null()) {
    throw ConfigError{{.file = file.path(),
                       .problem = "may be an AutoEncoderTopK or a BatchTopKSAE",
                       .expected = "config.json beside it, with trainer.dict_class"}};
  }
  const auto name = require<std::string>(trainer, "dict_class", file.path());
  if (name == "AutoEncoderTopK") return Kind::top_k;
  if (name == "BatchTopKSAE" || name == "MatryoshkaBatchTopKSAE") return Kind::batch_top_k;
  throw ConfigError{{.file = file.path(),
                     .tensor = "trainer.dict_class",
                     .problem = "is not known",
                     .expected = "AutoEncoderTopK or BatchTopKSAE",
                     .got = name}};
}

/// The bias that every class but one adds to its output, under the name it has there.
[[nodiscard]] inline std::string output_bias(const TensorFile& file) {
  for (const auto* name : {"bias", "decoder_bias", "decoder.bias"}) {
    if (file.find(name) != nullptr) return name;
  }
  return "b_dec";
}

[[nodiscard]] inline DictionaryWeights weights(const TensorFile& file, const DictionaryReader& reader, Kind kind) {
  DictionaryWeights out;
  if (reader.has("W_enc")) {
    reader.read_encoder(out, "W_enc");
    reader.read_decoder(out, "W_dec");
    out.b_enc = reader.read("b_enc", 1);
  } else {
    reader.read_encoder_rows(out, "encoder.weight");
    reader.read_decoder_columns(out, "decoder.weight");
    if (kind != Kind::gated) out.b_enc = reader.read("encoder.bias", 1);
  }
  out.b_out = reader.read(output_bias(file), 1);
  if (kind != Kind::jump_relu && kind != Kind::affine_decoder) out.b_in = out.b_out;
  return out;
}

}  // namespace circuit::detail::dictionary_learning

namespace circuit {

inline LoadedDictionary load_dictionary_learning(const std::filesystem::path& path, const DictionaryOptions& options) {
  namespace dl = detail::dictionary_learning;
  const auto file = open_torch(path);
  const detail::DictionaryReader reader{file, "", options};
  const auto trainer = dl::trainer(path);
  const auto kind = dl::kind_of(file, trainer);
  auto weights = dl::weights(file, reader, kind);
  const auto hooks = dl::hooks(trainer, path);
  const auto assembled = [&](activation::Any activation) -> LoadedDictionary {
    return {detail::assemble(std::move(weights), std::move(activation), path), hooks};
  };
  if (kind == dl::Kind::gated) {
    weights.name = path.string();
    SparseDictionary<> gated = from_gated(
        std::move(weights), {reader.read("gate_bias", 1), reader.read("mag_bias", 1), reader.read("r_mag", 1)});
    gated.check();
    return {std::move(gated), hooks};
  }
  if (kind == dl::Kind::top_k) return assembled({activation::TopK{.k = detail::read_whole_number(file, "k")}});
  if (kind == dl::Kind::batch_top_k || kind == dl::Kind::jump_relu) {
    const auto d_sae = weights.d_sae();
    return assembled({activation::JumpRelu{detail::read_threshold(reader, file, "threshold", options, d_sae)}});
  }
  return assembled({});
}

}  // namespace circuit
