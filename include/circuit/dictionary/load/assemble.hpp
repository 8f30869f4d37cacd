#pragma once

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/io/tensor_file.hpp"
#include "circuit/io/to_tensor.hpp"

// What the loaders of single formats share.
namespace circuit::detail {

/// A whole number that a file holds as a tensor of one element.
/// throws  NameError, ShapeError, DTypeError
[[nodiscard]] inline std::int64_t read_whole_number(const TensorFile& file, const std::string& name) {
  const auto stored = to_tensor(file.get(name));
  if (stored.numel() != 1) check_shape(stored, {}, name, file.path());
  if (stored.is_floating_point() || stored.scalar_type() == at::kBool) {
    throw DTypeError{
        {.file = file.path(), .tensor = name, .expected = "a whole number", .got = at::toString(stored.scalar_type())}};
  }
  return stored.to(at::kLong).item<std::int64_t>();
}

/// A threshold per feature, or one for all. return [d_sae]
[[nodiscard]] inline at::Tensor read_threshold(const DictionaryReader& reader, const TensorFile& file,
                                               const std::string& name, const DictionaryOptions& options,
                                               std::int64_t d_sae) {
  const auto& view = file.get(name);
  if (!view.shape.empty()) return reader.read(name, 1);
  const auto one = to_tensor(view).to(options.dtype).to(options.device);
  check_finite(one, name, file.path());
  return one.expand({d_sae}).contiguous();
}

/// What circuit-tracer and sparsify both keep: encoder and skip path as weights of linear maps, W_dec as rows, and b_dec, which
/// is added to what is written.
[[nodiscard]] inline DictionaryWeights linear_maps(const DictionaryReader& reader, const std::string& encoder,
                                                   const std::string& encoder_bias, bool skip) {
  DictionaryWeights out;
  reader.read_encoder_rows(out, encoder);
  out.b_enc = reader.read(encoder_bias, 1);
  reader.read_decoder(out, "W_dec");
  out.b_out = reader.read("b_dec", 1);
  if (skip) reader.read_skip_rows(out, "W_skip");
  return out;
}

/// The dictionary, checked with `file` in its errors and named for what it is then.
[[nodiscard]] inline SparseDictionary<> assemble(DictionaryWeights weights, activation::Any activation,
                                                 const std::filesystem::path& file, std::string name = {}) {
  SparseDictionary<> d{std::move(weights), std::move(activation)};
  d.name = file.string();
  d.check();
  if (!name.empty()) d.name = std::move(name);
  return d;
}

/// The same function, with decoder rows of norm 1 and activations multiplied by the norms they had; rows of zeros stay
/// so. In memory of its own.
/// throws  as DictionaryWeights::check, since sizes that disagree could be broadcast
inline void fold_decoder_norms(DictionaryWeights& weights) {
  weights.check();
  const auto W_dec = widened(weights.W_dec);
  const auto norms = W_dec.square().sum(-1).sqrt();
  weights.W_enc = widened(weights.W_enc).mul(norms);
  weights.b_enc = weights.b_enc.mul(norms);
  weights.W_dec = W_dec.div(norms.add(norms.eq(0)).unsqueeze(-1));
  weights.W_dec_pages = {};
}

/// Whether weights can be multiplied and divided by a number, which they hold as a float32 or a double.
[[nodiscard]] inline bool is_scale(double number) {
  return number >= std::numeric_limits<float>::min() && number <= std::numeric_limits<float>::max();
}

/// The same dictionary for inputs that have not been multiplied by `in`, and outputs that are not by `out`, which are
/// scales.
/// throws  ValueError  where that makes weights that are not finite
inline void fold_scale(DictionaryWeights& weights, double in, double out, const std::filesystem::path& file = {}) {
  weights.W_enc = widened(weights.W_enc).mul(in);
  weights.W_dec = widened(weights.W_dec).div(out);
  weights.W_dec_pages = {};
  check_finite(weights.W_enc, "W_enc with the activations' scale", file);
  check_finite(weights.W_dec, "W_dec with the activations' scale", file);
  if (weights.b_in.defined()) weights.b_in = weights.b_in.div(in);
  if (weights.b_out.defined()) weights.b_out = weights.b_out.div(out);
}

/// The number behind a word in a path's components, nearest first: 12 for `layer_` in "res/layer_12/width_16k".
[[nodiscard]] inline std::optional<std::int32_t> number_in_path(const std::filesystem::path& path,
                                                                std::string_view word) {
  std::optional<std::int32_t> found;
  for (const auto& part : path) {
    const auto text = part.string();
    if (!text.starts_with(word)) continue;
    std::int32_t value = -1;
    const auto [rest, status] = std::from_chars(text.data() + word.size(), text.data() + text.size(), value);
    const bool ends = rest == text.data() + text.size() || *rest == '.' || *rest == '_';
    if (status == std::errc{} && value >= 0 && ends) found = value;
  }
  return found;
}

[[nodiscard]] inline std::string hook_in_block(std::int32_t layer, std::string_view hook) {
  return "blocks." + std::to_string(layer) + '.' + std::string{hook};
}

}  // namespace circuit::detail
