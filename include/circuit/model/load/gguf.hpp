#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "circuit/io/gguf.hpp"
#include "circuit/io/gguf_to_tensor.hpp"
#include "circuit/model/load.hpp"
#include "circuit/model/load/gguf_families.hpp"
#include "circuit/model/load/rotary.hpp"
#include "circuit/text/load_tokenizer.hpp"

namespace circuit {

/// Opens a GGUF file as architecture A: config and tokenizer from its metadata, quantised weights widened. Weights that
/// are of `options.dtype`, or by `options.half` of half precision, stay mapped (Llama's queries and keys of
/// `options.dtype` are put in order, in memory of their own; those of half precision are views in that order); pages of the
/// others are given back as soon as they are widened. throws
/// ConfigError  an architecture that is not known, or not A's; metadata that are missing or contradictory throws
/// FileError, FormatError, NameError, ShapeError, DTypeError, ValueError (NaN)  naming the file and tensor
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_gguf(const std::filesystem::path& path, const LoadOptions& options = {});

/// The same of a file that is open already.
template <LoadableArchitecture A>
[[nodiscard]] HookedTransformer<A> load_gguf(GgufFile file, const LoadOptions& options = {});

/// What the config.json of the same model would say, so that one loader reads both kinds of file.
/// throws  ConfigError  an architecture or a kind of model that is not known; metadata that are missing or of a wrong
/// type
[[nodiscard]] nlohmann::json hugging_face_config(const GgufFile& file);

}  // namespace circuit

namespace circuit::detail::gguf {

/// The file's tensors as `dtype` under Hugging Face's names, in its layout.
[[nodiscard]] inline WeightSource weight_source(GgufFile file, const ModelConfig& config, at::ScalarType dtype,
                                                HalfPrecision half) {
  const auto path = file.path();
  const auto* family = &family_of(file);
  const auto shared = std::make_shared<const GgufFile>(std::move(file));
  const auto get = [=](const std::string& name) {
    const auto& stored = shared->get(gguf_name(name, *family));
    auto values = family->restore(to_tensor(stored), name, config);
    if (values.data_ptr() != stored.bytes.data()) shared->release(stored);
    return values;
  };
  return {[=](const std::string& name) { return shared->find(gguf_name(name, *family)) != nullptr; },
          get,
          path,
          dtype,
          half,
          [=](const std::string& name) { shared->release(shared->get(gguf_name(name, *family))); },
          [=](const at::Tensor& stored, const std::string& name) { return family->order(stored, name, config); }};
}

/// Divides the speeds of rotary positions by the file's factors, where it has them (Llama 3.1).
inline void scale_speeds(ModelConfig& config, const GgufFile& file) {
  const auto* stored = file.find("rope_freqs.weight");
  if (stored == nullptr) return;
  const auto factors = to_tensor(*stored).to(at::kDouble).contiguous();
  check_shape(factors, {config.rotary_dims / 2}, stored->name, file.path());
  if (config.rotary_speeds.empty()) config.rotary_speeds = plain_speeds(config);
  const auto* factor = data_of<double>(factors);
  for (std::size_t i = 0; i < config.rotary_speeds.size(); ++i) {
    if (!(factor[i] > 0)) {
      throw ValueError{
          {.file = file.path(), .tensor = stored->name, .expected = "> 0", .got = std::to_string(factor[i])}};
    }
    config.rotary_speeds[i] /= factor[i];
  }
}

}  // namespace circuit::detail::gguf

namespace circuit {

inline nlohmann::json hugging_face_config(const GgufFile& file) { return detail::gguf::family_of(file).config(file); }

template <LoadableArchitecture A>
// NOLINTNEXTLINE(performance-unnecessary-value-param): moved from
HookedTransformer<A> load_gguf(GgufFile file, const LoadOptions& options) {
  check_compute_dtype(options.dtype, "dtype");
  auto config = HuggingFace<A>::config(hugging_face_config(file), file.path());
  detail::gguf::scale_speeds(config, file);
  config.check(file.path().string());
  std::shared_ptr<const Tokenizer> tokenizer;
  if (file.metadata().contains("tokenizer.ggml.model"))
    tokenizer = std::make_shared<const Tokenizer>(load_tokenizer(file));
  const auto source = detail::gguf::weight_source(std::move(file), config, options.dtype, options.half);
  return build_model<A>(std::move(config), source, options, std::move(tokenizer));
}

template <LoadableArchitecture A>
HookedTransformer<A> load_gguf(const std::filesystem::path& path, const LoadOptions& options) {
  return load_gguf<A>(open_gguf(path), options);
}

}  // namespace circuit
