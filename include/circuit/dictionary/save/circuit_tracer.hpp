#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/save/cross_layer.hpp"
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

inline void save_layer(const std::filesystem::path& folder, std::size_t layer, const SparseDictionary<>& d,
                       at::ScalarType dtype) {
  const auto number = std::to_string(layer);
  const auto view = [&](const char* name, const at::Tensor& value) { return to_view(name + number, value.to(dtype)); };
  std::vector<TensorView> encoder{view("W_enc_", widened(d.W_enc).t()), view("b_enc_", d.b_enc),
                                  view("b_dec_", cross_layer::output_bias(d))};
  if (const auto* jump = std::get_if<activation::JumpRelu>(&d.activation.chosen)) {
    encoder.push_back(view("threshold_", jump->threshold));
  }
  write_safetensors(folder / ("W_enc_" + number + ".safetensors"), encoder);
  const auto decoder = view("W_dec_", cross_layer::all_rows(d));
  write_safetensors(folder / ("W_dec_" + number + ".safetensors"), {&decoder, 1});
}

}  // namespace circuit::detail::circuit_tracer

namespace circuit {

inline void save_circuit_tracer_cross_layer(const std::filesystem::path& folder,
                                            std::span<const SparseDictionary<>> layers,
                                            const CircuitTracerMetadata& metadata) {
  namespace tracer = detail::circuit_tracer;
  detail::cross_layer::check_savable(folder, layers, metadata.dtype, {.name = "circuit-tracer's"});
  make_folder(folder);
  for (std::size_t l = 0; l < layers.size(); ++l) tracer::save_layer(folder, l, layers[l], metadata.dtype);
  std::string config = "model_kind: cross_layer_transcoder\nfeature_input_hook: " + metadata.hook_in +
                       "\nfeature_output_hook: " + metadata.hook_out + '\n';
  if (!metadata.model_name.empty()) config += "model_name: " + metadata.model_name + '\n';
  write_file(folder / "config.yaml", config);
}

}  // namespace circuit
