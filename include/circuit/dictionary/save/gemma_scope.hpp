#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/load/gemma_scope.hpp"
#include "circuit/dictionary/save/cross_layer.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit {

struct GemmaScopeMetadata {
  std::int32_t first_layer = 0;       ///< of the model: the layer that the first dictionary sits at
  at::ScalarType dtype = at::kFloat;  ///< of the stored tensors: float32 or float16
};

/// Writes a cross-layer transcoder, one dictionary per layer from some layer on, as Gemma Scope 2 keeps it:
/// params_layer_{l}.safetensors, each with rows for every layer up to the last, zeros for those before its own. Skip
/// paths have a place; a ReLU becomes a JumpReLU at 0, which is the same. `load_gemma_scope` reads them back, one by one,
/// as from ln2.hook_normalized to hook_mlp_out.
/// folder  known by its name: "clt" is in a part of it
/// throws  FileError
/// throws  ConfigError  for another folder's name, and for what that layout has no place for: no layer, a nonlinearity
///                      but ReLU and JumpReLU, an input bias, a normalisation, another dtype
/// throws  ShapeError   unless layer l of L writes into L - l - 1 later ones, and all have equally many features
void save_gemma_scope_cross_layer(const std::filesystem::path& folder, std::span<const SparseDictionary<>> layers,
                                  const GemmaScopeMetadata& metadata = {});

}  // namespace circuit

namespace circuit::detail::gemma_scope {

[[nodiscard]] inline at::Tensor threshold_of(const SparseDictionary<>& d) {
  const auto* jump = std::get_if<activation::JumpRelu>(&d.activation.chosen);
  return jump != nullptr ? jump->threshold : make::zeros({d.d_sae()}, d.options());
}

inline void save_layer(const std::filesystem::path& file, const SparseDictionary<>& d, std::int64_t layer,
                       at::ScalarType dtype) {
  const auto before = make::zeros({d.d_sae(), layer, d.d_out()}, d.options());
  std::vector<TensorView> tensors;
  const auto add = [&](const char* name, const at::Tensor& value) {
    tensors.push_back(to_view(name, value.to(dtype)));
  };
  add("w_enc", widened(d.W_enc));
  add("b_enc", d.b_enc);
  add("w_dec", make::cat({before, cross_layer::all_rows(d)}, 1));
  add("b_dec", cross_layer::output_bias(d));
  add("threshold", threshold_of(d));
  if (d.has_skip()) add("affine_skip_connection", d.W_skip);
  write_safetensors(file, tensors);
}

}  // namespace circuit::detail::gemma_scope

namespace circuit {

inline void save_gemma_scope_cross_layer(const std::filesystem::path& folder,
                                         std::span<const SparseDictionary<>> layers,
                                         const GemmaScopeMetadata& metadata) {
  namespace scope = detail::gemma_scope;
  detail::cross_layer::check_savable(folder, layers, metadata.dtype, {.name = "Gemma Scope 2's", .skip_paths = true});
  if (scope::site_of(folder) != scope::Site::transcoder) {
    throw ConfigError{
        {.file = folder, .problem = "its name does not say what it holds", .expected = "a folder \"clt\""}};
  }
  make_folder(folder);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto layer = metadata.first_layer + static_cast<std::int64_t>(l);
    scope::save_layer(folder / ("params_layer_" + std::to_string(layer) + ".safetensors"), layers[l], layer,
                      metadata.dtype);
  }
}

}  // namespace circuit
