#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"

/// What the layouts of cross-layer transcoders have in common.
namespace circuit::detail::cross_layer {

/// A layout, and what it has a place for.
struct Layout {
  std::string_view name;  ///< "circuit-tracer's"
  bool skip_paths = false;
};

/// throws  ConfigError  for what a layout has no place for: no layer, a nonlinearity but ReLU and JumpReLU, an input
///                      bias, a skip path, a normalisation, another dtype than float16 and float32
/// throws  ShapeError   unless layer l of L writes into L - l - 1 later ones, and all have equally many features
inline void check_savable(const std::filesystem::path& folder, std::span<const SparseDictionary<>> layers,
                          at::ScalarType dtype, const Layout& layout) {
  const auto refuse = [&](std::string what, std::string hint = {}) {
    throw ConfigError{{.file = folder,
                       .tensor = std::move(what),
                       .problem = "has no place in " + std::string{layout.name} + " layout",
                       .hint = std::move(hint)}};
  };
  if (layers.empty()) refuse("a transcoder without layers");
  if (dtype != at::kHalf && dtype != at::kFloat) refuse("a dtype but float16 and float32");
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const auto& d = layers[l];
    d.check();
    const bool relu = std::holds_alternative<activation::Relu>(d.activation.chosen);
    if (!relu && !std::holds_alternative<activation::JumpRelu>(d.activation.chosen)) {
      refuse("a nonlinearity of this kind", "train with BatchTopK, which becomes a JumpReLU, or with JumpReLU or ReLU");
    }
    if (d.b_in.defined() && d.b_in.ne(0).any().item<bool>()) refuse("b_in");
    if (d.has_skip() && !layout.skip_paths) refuse("W_skip");
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

[[nodiscard]] inline at::Tensor output_bias(const DictionaryWeights& d) {
  return d.b_out.defined() ? d.b_out : make::zeros({d.d_out()}, d.options());
}

}  // namespace circuit::detail::cross_layer
