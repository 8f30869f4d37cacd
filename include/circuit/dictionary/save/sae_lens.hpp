#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit {

/// What a SAELens folder says beside the dictionary itself.
struct SaeLensMetadata {
  DictionaryHooks hooks{};  ///< equal for an SAE
  std::string model_name{};
  std::int64_t context_size = 0;  ///< 0: not said
  bool prepend_bos = true;
  std::optional<weights::Processing> expects{};  ///< the weight processing it was trained under
  at::ScalarType dtype = at::kFloat;             ///< of the stored tensors: float32 or float16
};

/// Writes a dictionary as SAELens' version 6 does: cfg.json and sae_weights.safetensors, which `sae_lens` loads.
/// throws  FileError
/// throws  ConfigError  for what that layout has no place for: GroupMax, TopK that keeps negative values or belongs to
/// a
///                      transcoder, an SAE whose b_in and b_out differ, a transcoder that subtracts a bias
void save_sae_lens(const std::filesystem::path& folder, const SparseDictionary<>& dictionary,
                   const SaeLensMetadata& metadata);

}  // namespace circuit

namespace circuit::detail::sae_lens {

[[noreturn]] inline void cannot_save(const std::filesystem::path& folder, std::string what, std::string hint = {}) {
  throw ConfigError{{.file = folder,
                     .tensor = std::move(what),
                     .problem = "has no place in SAELens' layout",
                     .hint = std::move(hint)}};
}

/// The word for a nonlinearity, and what else it needs to have said.
struct Words {
  const std::filesystem::path& folder;
  bool transcoder;
  bool skip;

  [[nodiscard]] std::string kind(const std::string& prefix) const {
    if (!transcoder) return prefix.empty() ? "standard" : prefix;
    return prefix + (prefix.empty() ? "" : "_") + (skip ? "skip_" : "") + "transcoder";
  }
  [[nodiscard]] std::string operator()(const activation::Relu&) const { return kind(""); }
  [[nodiscard]] std::string operator()(const activation::JumpRelu&) const { return kind("jumprelu"); }
  [[nodiscard]] std::string operator()(const activation::TopK& top_k) const {
    if (top_k.inner == activation::Inner::none) cannot_save(folder, "TopK that keeps negative values");
    if (transcoder) cannot_save(folder, "a TopK transcoder", "train one with BatchTopK, which is saved as a JumpReLU");
    return kind("topk");
  }
  [[nodiscard]] std::string operator()(const activation::GroupMax&) const { cannot_save(folder, "GroupMax"); }
};

[[nodiscard]] inline const char* norm_word(InputNorm norm) {
  switch (norm.kind) {
    case InputNorm::Kind::constant_norm: return "constant_norm_rescale";
    case InputNorm::Kind::layer_norm: return "layer_norm";
    case InputNorm::Kind::none: break;
  }
  return "none";
}

[[nodiscard]] inline nlohmann::json metadata_json(const SaeLensMetadata& m) {
  nlohmann::json json{{"hook_name", m.hooks.in}, {"hook_head_index", nullptr}, {"prepend_bos", m.prepend_bos}};
  if (m.hooks.head) json["hook_head_index"] = *m.hooks.head;
  if (m.hooks.out != m.hooks.in) json["hook_name_out"] = m.hooks.out;
  if (!m.model_name.empty()) json["model_name"] = m.model_name;
  if (m.context_size > 0) json["context_size"] = m.context_size;
  if (m.expects) {
    json["model_from_pretrained_kwargs"] = {{"fold_ln", m.expects->fold_norms},
                                            {"center_writing_weights", m.expects->center_writing},
                                            {"center_unembed", m.expects->center_unembed},
                                            {"fold_value_biases", m.expects->fold_value_biases}};
  }
  return json;
}

/// Whether the layout has a place for all of a dictionary: an SAE has one bias for both ways and undoes its
/// normalisation, a transcoder does neither, and each writes into one layer.
inline void check_layout(const std::filesystem::path& folder, const DictionaryWeights& d, bool transcoder) {
  if (d.later_layers() > 0) cannot_save(folder, "W_later");
  const bool normalizes = d.input_norm.kind != InputNorm::Kind::none;
  if (normalizes && d.input_norm.undone == transcoder) {
    cannot_save(folder, transcoder ? "a transcoder that undoes its normalisation of the input"
                                   : "an SAE that does not undo its normalisation of the input");
  }
  if (transcoder) {
    if (d.b_in.defined() && d.b_in.ne(0).any().item<bool>()) cannot_save(folder, "b_in of a transcoder");
    return;
  }
  if (d.has_skip()) cannot_save(folder, "W_skip of an SAE");
  if (!d.b_in.defined()) return;
  if (!d.b_out.defined() || !d.b_in.equal(d.b_out)) cannot_save(folder, "an SAE whose b_in is not its b_out");
}

[[nodiscard]] inline std::vector<TensorView> views(const SparseDictionary<>& d, at::ScalarType dtype) {
  std::vector<TensorView> out;
  const auto put = [&](const char* name, const at::Tensor& value) { out.push_back(to_view(name, value.to(dtype))); };
  put("W_enc", d.W_enc);
  put("b_enc", d.b_enc);
  put("W_dec", d.W_dec);
  put("b_dec", d.b_out.defined() ? d.b_out : make::zeros({d.d_out()}, d.W_dec.options()));
  if (d.has_skip()) put("W_skip", d.W_skip.t());
  if (const auto* jump = std::get_if<activation::JumpRelu>(&d.activation.chosen)) put("threshold", jump->threshold);
  return out;
}

}  // namespace circuit::detail::sae_lens

namespace circuit {

inline void save_sae_lens(const std::filesystem::path& folder, const SparseDictionary<>& dictionary,
                          const SaeLensMetadata& metadata) {
  namespace lens = detail::sae_lens;
  dictionary.check();
  const bool transcoder = metadata.hooks.in != metadata.hooks.out;
  lens::check_layout(folder, dictionary, transcoder);
  const auto half = metadata.dtype == at::kHalf;
  if (!half && metadata.dtype != at::kFloat) lens::cannot_save(folder, "a dtype but float16 and float32");
  nlohmann::json config{
      {"architecture",
       std::visit(lens::Words{folder, transcoder, dictionary.has_skip()}, dictionary.activation.chosen)},
      {"d_in", dictionary.d_in()},
      {"d_sae", dictionary.d_sae()},
      {"dtype", half ? "float16" : "float32"},
      {"device", "cpu"},
      {"apply_b_dec_to_input", dictionary.b_in.defined() && !transcoder},
      {"normalize_activations", lens::norm_word(dictionary.input_norm)},
      {"reshape_activations", metadata.hooks.in.ends_with("attn.hook_z") && !metadata.hooks.head ? "hook_z" : "none"},
      {"metadata", lens::metadata_json(metadata)}};
  if (transcoder) config["d_out"] = dictionary.d_out();
  if (const auto* top_k = std::get_if<activation::TopK>(&dictionary.activation.chosen)) {
    config["k"] = top_k->k;
    config["rescale_acts_by_decoder_norm"] = false;
  }
  make_folder(folder);
  write_safetensors(folder / "sae_weights.safetensors", lens::views(dictionary, metadata.dtype));
  write_file(folder / "cfg.json", config.dump(2) + "\n");
}

}  // namespace circuit
