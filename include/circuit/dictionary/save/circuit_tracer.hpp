#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit {

/// What a circuit-tracer folder says beside its tensors.
struct CircuitTracerMetadata {
  std::string hook_in = "ln2.hook_normalized";  ///< within a block
  std::string hook_out = "hook_mlp_out";
  std::string model_name{};
  at::ScalarType dtype = at::kFloat;  ///< of the stored tensors: float32 or float16
};

/// Writes a cross-layer transcoder, one dictionary per layer of the model, as circuit-tracer keeps it: config.yaml and
/// of every layer W_enc_{l}.safetensors and W_dec_{l}.safetensors. `load_circuit_tracer_set` reads it back.
/// throws  FileError
/// throws  ConfigError  for what that layout has no place for: no layer, a nonlinearity but ReLU and JumpReLU, an input
///                      bias, a skip path, a normalisation, another dtype
/// throws  ShapeError   unless layer l of L writes into L - l - 1 later ones, and all have equally many features
void save_circuit_tracer_cross_layer(const std::filesystem::path& folder, std::span<const SparseDictionary<>> layers,
                                     const CircuitTracerMetadata& metadata = {});

}  // namespace circuit

namespace circuit::detail::circuit_tracer {

inline void check_savable(const std::filesystem::path& folder, std::span<const SparseDictionary<>> layers,
                          const CircuitTracerMetadata& metadata) {
  const auto refuse = [&](std::string what, std::string hint = {}) {
    throw ConfigError{{.file = folder,
                       .tensor = std::move(what),
                       .problem = "has no place in circuit-tracer's layout",
                       .hint = std::move(hint)}};
  };
  if (layers.empty()) refuse("a transcoder without layers");
  if (metadata.dtype != at::kHalf && metadata.dtype != at::kFloat) refuse("a dtype but float16 and float32");
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto& d = layers[l];
    d.check();
    const bool relu = std::holds_alternative<activation::Relu>(d.activation.chosen);
    if (!relu && !std::holds_alternative<activation::JumpRelu>(d.activation.chosen)) {
      refuse("a nonlinearity of this kind", "train with BatchTopK, which becomes a JumpReLU, or with JumpReLU or ReLU");
    }
    if (d.b_in.defined() && d.b_in.ne(0).any().item<bool>()) refuse("b_in");
    if (d.has_skip()) refuse("W_skip");
    if (d.input_norm.kind != InputNorm::Kind::none) refuse("a normalisation of inputs");
    const auto after = static_cast<std::int64_t>(layers.size() - l) - 1;
    if (d.later_layers() == after && d.d_sae() == layers.front().d_sae()) continue;
    throw ShapeError{{.file = folder,
                      .tensor = "W_later of layer " + std::to_string(l),
                      .expected = {layers.front().d_sae(), after, d.d_out()},
                      .got = {d.d_sae(), d.later_layers(), d.d_out()}}};
  }
}

/// What a layer's features write, its own layer's output first. return [d_sae, L - l, d_out]
[[nodiscard]] inline at::Tensor all_rows(const DictionaryWeights& d) {
  const auto own = widened(d.W_dec).unsqueeze(1);
  return d.W_later.defined() ? make::cat({own, widened(d.W_later)}, 1) : own;
}

inline void save_layer(const std::filesystem::path& folder, std::size_t layer, const SparseDictionary<>& d,
                       at::ScalarType dtype) {
  const auto number = std::to_string(layer);
  const auto view = [&](const char* name, const at::Tensor& value) { return to_view(name + number, value.to(dtype)); };
  const auto no_bias = make::zeros({d.d_out()}, d.options());
  std::vector<TensorView> encoder{view("W_enc_", widened(d.W_enc).t()), view("b_enc_", d.b_enc),
                                  view("b_dec_", d.b_out.defined() ? d.b_out : no_bias)};
  if (const auto* jump = std::get_if<activation::JumpRelu>(&d.activation.chosen)) {
    encoder.push_back(view("threshold_", jump->threshold));
  }
  write_safetensors(folder / ("W_enc_" + number + ".safetensors"), encoder);
  const auto decoder = view("W_dec_", all_rows(d));
  write_safetensors(folder / ("W_dec_" + number + ".safetensors"), {&decoder, 1});
}

}  // namespace circuit::detail::circuit_tracer

namespace circuit {

inline void save_circuit_tracer_cross_layer(const std::filesystem::path& folder,
                                            std::span<const SparseDictionary<>> layers,
                                            const CircuitTracerMetadata& metadata) {
  namespace tracer = detail::circuit_tracer;
  tracer::check_savable(folder, layers, metadata);
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw FileError{{.file = folder, .problem = "cannot be made", .got = failed.message()}};
  for (std::size_t l = 0; l < layers.size(); ++l) tracer::save_layer(folder, l, layers[l], metadata.dtype);
  std::string config = "model_kind: cross_layer_transcoder\nfeature_input_hook: " + metadata.hook_in +
                       "\nfeature_output_hook: " + metadata.hook_out + '\n';
  if (!metadata.model_name.empty()) config += "model_name: " + metadata.model_name + '\n';
  write_file(folder / "config.yaml", config);
}

}  // namespace circuit
