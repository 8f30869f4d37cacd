#pragma once

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/io/tensor_file.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

struct DictionaryOptions {
  at::ScalarType dtype = at::kFloat;           ///< tensors of this dtype stay mapped; others are converted
  HalfPrecision half = HalfPrecision::mapped;  ///< of encoders and decoders, where dtype is float32 on the CPU
  at::Device device = at::kCPU;
  /// What activations were multiplied by in training, for files that say they were and not by what (SAELens'
  /// `expected_average_only_in`). It is folded into the weights.
  std::optional<double> activation_scale{};
};

/// What `b_dec` means in a file that does not say.
enum class DictionaryKind {
  sae,         ///< b_dec is subtracted on the way in and added on the way out
  transcoder,  ///< b_dec is subtracted on the way in, b_dec_out added on the way out
};

/// The activations that a dictionary was trained to read and to describe, as TransformerLens names them, such as
/// "blocks.3.attn.hook_z"; equal for an SAE, both empty where a file does not say.
struct DictionaryHooks {
  std::string in{};
  std::string out{};
  std::optional<std::int32_t> head{};  ///< the one head of attn.hook_z that it was trained on; none: all heads
};

/// One dictionary as a file holds it.
struct LoadedDictionary {
  SparseDictionary<> dictionary;
  DictionaryHooks hooks{};
  std::optional<weights::Processing> expects{};  ///< the weight processing it was trained under, where that is known
};

}  // namespace circuit

namespace circuit::detail {

/// A folder's own name, also of "here/", which a shell completes, and of ".".
[[nodiscard]] inline std::string folder_name(const std::filesystem::path& folder) {
  return (std::filesystem::absolute(folder) / "").lexically_normal().parent_path().filename().string();
}

/// The layer and the rest of "blocks.3.attn.hook_z", or nothing for another text or a layer that no model has.
[[nodiscard]] inline std::optional<std::pair<Layer, std::string_view>> split_hook(std::string_view hook) {
  constexpr std::string_view start = "blocks.";
  if (!hook.starts_with(start)) return {};
  std::int32_t layer = -1;
  const auto [rest, status] = std::from_chars(hook.data() + start.size(), hook.data() + hook.size(), layer);
  const bool counted = status == std::errc{} && layer >= 0 && layer < ModelConfig::most_layers;
  if (!counted || rest == hook.data() + hook.size() || *rest != '.') return {};
  return std::pair{Layer{layer}, hook.substr(static_cast<std::size_t>(rest - hook.data()) + 1)};
}

/// Reads the parts of one dictionary, each checked and in the dtype asked for.
class DictionaryReader {
 public:
  DictionaryReader(const TensorFile& file, std::string prefix, DictionaryOptions options)
      : file_{file}, prefix_{std::move(prefix)}, options_{options} {
    check_compute_dtype(options_.dtype, "DictionaryOptions::dtype");
  }

  [[nodiscard]] bool has(const std::string& name) const { return file_.find(prefix_ + name) != nullptr; }

  /// throws  NameError, DTypeError, ShapeError (number of axes), ValueError (NaN or infinity)
  [[nodiscard]] at::Tensor read(const std::string& name, std::size_t axes) const {
    return read_stored(name, axes).to(options_.dtype).to(options_.device);
  }
  /// An encoder [d_in, d_sae] with its pages.
  void read_encoder(DictionaryWeights& weights, const std::string& name) const {
    weights.W_enc = read_matrix(name);
    weights.W_enc_pages = file_.pages(file_.get(prefix_ + name));
  }
  /// The same of one that is stored as a linear map's weight, [d_sae, d_in].
  void read_encoder_rows(DictionaryWeights& weights, const std::string& name) const {
    read_encoder(weights, name);
    weights.W_enc = weights.W_enc.t();
  }
  /// A decoder [d_sae, d_out] with its pages.
  void read_decoder(DictionaryWeights& weights, const std::string& name) const {
    weights.W_dec = read_matrix(name);
    weights.W_dec_pages = file_.pages(file_.get(prefix_ + name));
  }
  /// One that is stored as a linear map's weight, [d_out, d_sae]: in memory, since its rows are read one by one.
  void read_decoder_columns(DictionaryWeights& weights, const std::string& name) const {
    weights.W_dec = read_matrix(name).t().contiguous();
  }
  /// A skip path that is stored as a linear map's weight, [d_out, d_in].
  void read_skip_rows(DictionaryWeights& weights, const std::string& name) const { weights.W_skip = read(name, 2).t(); }
  /// A decoder [d_sae, layers, d_out] of a cross-layer transcoder with its pages.
  /// own     which of the layers is the dictionary's own; those before it are left out
  /// throws  ShapeError  when there is no such layer
  void read_cross_layer_decoder(DictionaryWeights& weights, const std::string& name, std::int64_t own) const {
    const auto all = read_matrix(name, 3);
    const auto later = all.size(1) - own - 1;
    if (later < 0) {
      throw ShapeError{{.file = file_.path(),
                        .tensor = prefix_ + name,
                        .expected = {-1, own + 1, -1},
                        .got = shape_of(all),
                        .hint = "one row per layer that is written to"}};
    }
    weights.W_dec = all.select(1, own);
    if (later > 0) weights.W_later = all.narrow(1, own + 1, later);
    weights.W_dec_pages = file_.pages(file_.get(prefix_ + name));
  }
  /// A matrix, which stays in half precision where the options say so.
  [[nodiscard]] at::Tensor read_matrix(const std::string& name, std::size_t axes = 2) const {
    const auto stored = read_stored(name, axes);
    const bool stays = is_half(stored) && options_.half == HalfPrecision::mapped && options_.dtype == at::kFloat &&
                       options_.device.is_cpu();
    return stays ? stored : stored.to(options_.dtype).to(options_.device);
  }

  /// The four tensors that every format has, and b_in and b_out made of what it has of biases.
  [[nodiscard]] SparseDictionary<> dictionary(const at::Tensor& b_in, const at::Tensor& b_out, std::string name) const {
    SparseDictionary<> d;
    read_encoder(d, "W_enc");
    d.b_enc = read("b_enc", 1);
    read_decoder(d, "W_dec");
    d.b_in = b_in;
    d.b_out = b_out;
    d.name = file_.path().string();
    d.check();
    d.name = std::move(name);
    return d;
  }

  [[nodiscard]] SparseDictionary<> sae(std::string name) const {
    const auto b_dec = read("b_dec", 1);
    auto d = dictionary(b_dec, b_dec, std::move(name));
    check_shape(d.W_dec, {d.d_sae(), d.d_in()}, prefix_ + "W_dec", file_.path(), "an SAE describes what it reads");
    return d;
  }
  [[nodiscard]] SparseDictionary<> transcoder(std::string name) const {
    return dictionary(read("b_dec", 1), read("b_dec_out", 1), std::move(name));
  }

 private:
  [[nodiscard]] at::Tensor read_stored(const std::string& name, std::size_t axes) const {
    const auto& view = file_.get(prefix_ + name);
    auto stored = to_tensor(view);
    if (!stored.is_floating_point()) {
      throw DTypeError{{.file = file_.path(),
                        .tensor = prefix_ + name,
                        .expected = "a floating type",
                        .got = at::toString(stored.scalar_type())}};
    }
    check_shape(stored, std::vector<std::int64_t>(axes, -1), prefix_ + name, file_.path());
    check_rows(stored, view, prefix_ + name);
    return stored;
  }

  /// Block by block, giving pages back, so that a mapped decoder never lies in memory whole: a run touches few rows.
  void check_rows(const at::Tensor& stored, const TensorView& view, const std::string& name) const {
    constexpr std::int64_t block = std::int64_t{1} << 20U;  // elements
    if (stored.numel() == 0) return;
    const auto rows = std::max<std::int64_t>(1, block / std::max<std::int64_t>(1, stored.numel() / stored.size(0)));
    const auto row_bytes = view.bytes.size() / static_cast<std::size_t>(stored.size(0));
    for (std::int64_t row = 0; row < stored.size(0); row += rows) {
      const auto count = std::min(rows, stored.size(0) - row);
      const auto part = stored.narrow(0, row, count);
      check_finite(part.scalar_type() == at::kDouble ? part : part.to(at::kFloat), name, file_.path());
      auto done = view;
      done.bytes =
          view.bytes.subspan(static_cast<std::size_t>(row) * row_bytes, static_cast<std::size_t>(count) * row_bytes);
      file_.release(done);
    }
  }

  const TensorFile& file_;
  std::string prefix_;
  DictionaryOptions options_;
};

/// throws  ConfigError  unless a size that a configuration names is the tensor's
inline void check_size(const char* key, std::int64_t configured, std::int64_t got, const std::filesystem::path& file) {
  if (configured == got) return;
  throw ConfigError{{.file = file,
                     .tensor = key,
                     .problem = "disagrees with the tensors",
                     .expected = std::to_string(configured),
                     .got = std::to_string(got)}};
}

}  // namespace circuit::detail
