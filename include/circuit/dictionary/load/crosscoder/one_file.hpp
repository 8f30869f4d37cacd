#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/load/assemble.hpp"
#include "circuit/dictionary/load/crosscoder/refuse.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/torch_pickle.hpp"

// Crosscoders in one file, as dictionary_learning's forks and others save them.

namespace circuit::detail::crosscoder {

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
    refuse(file.path(),
           k           ? "k"
           : threshold ? "threshold"
                       : "log_threshold",
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
inline void fold(const Normalisation& by, at::Tensor& encoder, at::Tensor& b_enc, at::Tensor& decoder,
                 at::Tensor& b_out) {
  encoder = widened(encoder).mul(by.scale.view({-1, 1, 1}));
  b_enc = b_enc.sub(by.mean.unsqueeze(1).matmul(encoder).sum(0).squeeze(0));
  const auto undone = by.scale.add(1e-8);  // as the forks have it
  decoder = widened(decoder).div(undone.view({1, -1, 1}));
  b_out = b_out.div(undone.unsqueeze(-1)).add(by.mean);
}

/// One part that reads and writes all layers.
[[nodiscard]] inline Crosscoder acausal(const TensorFile& file, const std::vector<Layer>& layers,
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
  CrosscoderPart part{.reads = layers, .writes = layers};
  part.dictionary.activation = activation(file, reader, decoder, options);
  DictionaryWeights& weights = part.dictionary;
  weights.b_enc = reader.read(learned ? "encoder.bias" : "b_enc", 1);
  out.b_out = reader.read(learned ? "decoder.bias" : "b_dec", 2);
  if (const auto by = normalisation(file, reader, options, count, d_model)) {
    check_shape(weights.b_enc, {encoder.size(2)}, learned ? "encoder.bias" : "b_enc", file.path());
    check_shape(out.b_out, {count, d_model}, learned ? "decoder.bias" : "b_dec", file.path());
    fold(*by, encoder, weights.b_enc, decoder, out.b_out);
    for (const auto& folded : {encoder, weights.b_enc, decoder, out.b_out}) {
      check_finite(folded, "activation_global_scale and activation_mean, folded into the weights", file.path());
    }
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
