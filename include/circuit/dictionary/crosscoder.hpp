#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"

namespace circuit {

/// Some features of a crosscoder: which layers they read and into which they write. The dictionary reads what it reads
/// one layer after another, [layers read * d_model]; W_dec is what it writes into the first layer written, W_later
/// what into the others. It has no output bias.
struct CrosscoderPart {
  SparseDictionary<> dictionary{};
  std::vector<Layer> reads{};
  std::vector<Layer> writes{};

  /// Whether all that its features read lies upstream of all that they write, so that they can be targets of a search:
  /// before a layer, a feature reads the stream and then writes what stands for it.
  [[nodiscard]] bool causal() const { return reads.back() <= writes.front(); }
};

/// One dictionary of the residual stream at several layers at once: its features read the stream before some layers
/// (layer n_layers is the stream behind the last) and write into it before some, each by another row. Features are
/// numbered through its parts; one that is acausal, as the first were, has a single part that reads and writes all
/// layers. source  Lindsey et al. 2024, "Sparse Crosscoders for Cross-Layer Features and Model Diffing"
struct Crosscoder {
  std::vector<Layer> layers{};          ///< ascending
  std::vector<CrosscoderPart> parts{};  ///< at least one
  at::Tensor b_out{};                   ///< [layers, d_model]
  std::string name{};                   ///< where it came from, for errors and pages

  [[nodiscard]] std::int64_t d_model() const { return b_out.size(1); }
  [[nodiscard]] std::int64_t d_sae() const;
  /// Where a layer stands among those it describes.
  /// throws  NameError  for one that it does not describe
  [[nodiscard]] std::int64_t index_of(Layer layer) const;

  /// throws  ShapeError, DTypeError, ValueError  when the parts disagree
  /// throws  ConfigError  for layers that do not ascend, no part, skip paths or a part that normalises its input
  void check() const;

  /// x  [..., layers, d_model]   return  [..., d_sae]
  [[nodiscard]] at::Tensor encode(const at::Tensor& x) const;
  /// What features write into the stream before one layer. acts [..., d_sae]  return [..., d_model]
  [[nodiscard]] at::Tensor decode(const at::Tensor& acts, Layer layer) const;
  /// Into all of them. return [..., layers, d_model]
  [[nodiscard]] at::Tensor decode(const at::Tensor& acts) const;
  /// x  [..., layers, d_model]   return  the same shape
  [[nodiscard]] at::Tensor reconstruct(const at::Tensor& x) const { return decode(encode(x)); }

  /// The decoder [d_sae, d_model] of one layer; a part that does not write there has zeros. A view where there is one
  /// part.
  [[nodiscard]] at::Tensor decoder(Layer layer) const;
};

/// As of a SparseDictionary, the features of every part, which writing_into numbers through. x [batch, pos, layers, d_model]
[[nodiscard]] std::vector<ActiveFeatures> encode_parts(const Crosscoder& crosscoder, const at::Tensor& x);

/// Those of encode_parts that write into the stream before a layer.
/// throws  NameError  for a layer that the crosscoder does not describe
[[nodiscard]] ActiveFeatures writing_into(const Crosscoder& crosscoder, const std::vector<ActiveFeatures>& parts,
                                          Layer layer);

/// Both for one layer: what writes elsewhere is not encoded.
[[nodiscard]] ActiveFeatures encode_active(const Crosscoder& crosscoder, const at::Tensor& x, Layer layer);

}  // namespace circuit

namespace circuit::detail {

[[nodiscard]] inline bool ascends(const std::vector<Layer>& layers) {
  return !layers.empty() && layers.front().value >= 0 &&
         std::adjacent_find(layers.begin(), layers.end(), [](Layer a, Layer b) { return a >= b; }) == layers.end();
}

/// What a part reads of all layers. x [..., layers, d_model]  return [..., layers read * d_model]
[[nodiscard]] inline at::Tensor read_by(const Crosscoder& crosscoder, const CrosscoderPart& part, const at::Tensor& x) {
  std::vector<at::Tensor> read;
  for (const auto layer : part.reads) read.push_back(x.select(-2, crosscoder.index_of(layer)));
  return read.size() == 1 ? read.front() : make::cat(read, -1);
}

/// What a part writes into a layer, [d_sae, d_model]; undefined where it does not.
[[nodiscard]] inline at::Tensor decoder_of(const CrosscoderPart& part, Layer layer) {
  const auto found = std::ranges::find(part.writes, layer);
  if (found == part.writes.end()) return {};
  const auto place = found - part.writes.begin();
  return place == 0 ? part.dictionary.W_dec : part.dictionary.W_later.select(1, place - 1);
}

/// Some of the features, first_feature and on, as those of a dictionary of their own.
[[nodiscard]] inline ActiveFeatures features_within(const ActiveFeatures& all, std::int64_t first_feature,
                                                    std::int64_t count) {
  ActiveFeatures some;
  std::vector<std::int64_t> from;
  for (std::int64_t row = 0; row < all.rows(); ++row) {
    for (auto e = all.begin(row); e < all.end(row); ++e) {
      const auto feature = all.feature[static_cast<std::size_t>(e)] - first_feature;
      if (feature < 0 || feature >= count) continue;
      some.feature.push_back(feature);
      from.push_back(e);
    }
    some.row_begin.push_back(static_cast<std::int64_t>(from.size()));
  }
  const auto entries = ids_tensor(from);
  some.activation = all.activation.index_select(0, entries);
  some.slope = all.slope.index_select(0, entries);
  return some;
}

/// Features of several dictionaries at the same rows, numbered through.
[[nodiscard]] inline ActiveFeatures numbered_through(const std::vector<ActiveFeatures>& parts,
                                                     const std::vector<std::int64_t>& first_feature) {
  ActiveFeatures all;
  std::vector<std::int64_t> from;  // of the parts' entries, one after another
  std::vector<std::int64_t> start;
  std::int64_t entries = 0;
  for (const auto& part : parts) {
    start.push_back(entries);
    entries += part.size();
  }
  for (std::int64_t row = 0; row < parts.front().rows(); ++row) {
    for (std::size_t i = 0; i < parts.size(); ++i) {
      for (auto e = parts[i].begin(row); e < parts[i].end(row); ++e) {
        all.feature.push_back(first_feature[i] + parts[i].feature[static_cast<std::size_t>(e)]);
        from.push_back(start[i] + e);
      }
    }
    all.row_begin.push_back(static_cast<std::int64_t>(from.size()));
  }
  std::vector<at::Tensor> activation;
  std::vector<at::Tensor> slope;
  for (const auto& part : parts) {
    activation.push_back(part.activation);
    slope.push_back(part.slope);
  }
  const auto order = ids_tensor(from);
  all.activation = make::cat(activation, 0).index_select(0, order);
  all.slope = make::cat(slope, 0).index_select(0, order);
  return all;
}

}  // namespace circuit::detail

namespace circuit {

inline std::int64_t Crosscoder::d_sae() const {
  std::int64_t sum = 0;
  for (const auto& part : parts) sum += part.dictionary.d_sae();
  return sum;
}

inline std::int64_t Crosscoder::index_of(Layer layer) const {
  const auto found = std::ranges::find(layers, layer);
  if (found != layers.end()) return found - layers.begin();
  throw NameError{{.file = name,
                   .tensor = "stream before layer " + std::to_string(layer.value),
                   .problem = "is not among those that the crosscoder describes"}};
}

inline void Crosscoder::check() const {
  const auto refuse = [&](const char* tensor, std::string problem) {
    throw ConfigError{{.file = name, .tensor = tensor, .problem = std::move(problem)}};
  };
  if (!detail::ascends(layers)) refuse("layers", "must ascend, from 0 on, and be at least one");
  if (parts.empty()) refuse("parts", "there are none");
  check_shape(b_out, {static_cast<std::int64_t>(layers.size()), -1}, "b_out", name);
  for (const auto layer : layers) {
    const auto writes = [&](const CrosscoderPart& part) { return detail::decoder_of(part, layer).defined(); };
    if (std::ranges::none_of(parts, writes)) {
      refuse("parts", "none writes into the stream before layer " + std::to_string(layer.value));
    }
  }
  for (const auto& part : parts) {
    const auto& d = part.dictionary;
    d.check();
    if (!detail::ascends(part.reads) || !detail::ascends(part.writes)) {
      refuse("parts", "what a part reads and writes must ascend and be at least one layer each");
    }
    for (const auto* some : {&part.reads, &part.writes}) {
      for (const auto layer : *some) static_cast<void>(index_of(layer));
    }
    check_shape(d.W_enc, {static_cast<std::int64_t>(part.reads.size()) * d_model(), -1}, "W_enc", name,
                "one block of rows per layer read");
    check_shape(d.W_dec, {-1, d_model()}, "W_dec", name);
    if (d.later_layers() + 1 != static_cast<std::int64_t>(part.writes.size())) {
      throw ShapeError{{.file = name,
                        .tensor = "W_later",
                        .expected = {d.d_sae(), static_cast<std::int64_t>(part.writes.size()) - 1, d_model()},
                        .got = d.W_later.defined() ? shape_of(d.W_later) : std::vector<std::int64_t>{},
                        .hint = "one row per layer written after the first"}};
    }
    if (d.has_skip()) refuse("W_skip", "a crosscoder has no skip path");
    if (d.b_out.defined()) refuse("b_out", "a part has none: the crosscoder's is of all its layers");
    if (d.input_norm.kind != InputNorm::Kind::none) refuse("input_norm", "a crosscoder cannot normalise what it reads");
    if (d.dtype() != b_out.scalar_type()) {
      throw DTypeError{{.file = name,
                        .tensor = "b_enc",
                        .expected = at::toString(b_out.scalar_type()),
                        .got = at::toString(d.dtype())}};
    }
  }
}

inline at::Tensor Crosscoder::encode(const at::Tensor& x) const {
  if (x.dim() < 2 || x.size(-2) != static_cast<std::int64_t>(layers.size())) {
    throw ShapeError{{.file = name,
                      .tensor = "input",
                      .expected = {-1, static_cast<std::int64_t>(layers.size()), d_model()},
                      .got = shape_of(x)}};
  }
  std::vector<at::Tensor> acts;
  for (const auto& part : parts) acts.push_back(part.dictionary.encode(detail::read_by(*this, part, x)));
  return acts.size() == 1 ? acts.front() : make::cat(acts, -1);
}

inline at::Tensor Crosscoder::decode(const at::Tensor& acts, Layer layer) const {
  auto out = b_out.select(0, index_of(layer));
  std::int64_t first = 0;
  for (const auto& part : parts) {
    const auto features = part.dictionary.d_sae();
    const auto W = detail::decoder_of(part, layer);
    if (W.defined()) out = acts.narrow(-1, first, features).matmul(widened(W)).add(out);
    first += features;
  }
  auto shape = shape_of(acts);
  shape.back() = d_model();
  return out.expand(shape);
}

inline at::Tensor Crosscoder::decode(const at::Tensor& acts) const {
  std::vector<at::Tensor> of_layers;
  for (const auto layer : layers) of_layers.push_back(decode(acts, layer));
  return make::stack(of_layers, -2);
}

inline at::Tensor Crosscoder::decoder(Layer layer) const {
  static_cast<void>(index_of(layer));
  std::vector<at::Tensor> of_parts;
  for (const auto& part : parts) {
    const auto W = detail::decoder_of(part, layer);
    const auto& d = part.dictionary;
    of_parts.push_back(W.defined() ? W : make::zeros({d.d_sae(), d_model()}, d.W_dec.options()));
  }
  return of_parts.size() == 1 ? of_parts.front() : make::cat(of_parts, 0);
}

inline std::vector<ActiveFeatures> encode_parts(const Crosscoder& crosscoder, const at::Tensor& x) {
  std::vector<ActiveFeatures> parts;
  for (const auto& part : crosscoder.parts) {
    parts.push_back(encode_active(part.dictionary, detail::read_by(crosscoder, part, x)));
  }
  return parts;
}

inline ActiveFeatures writing_into(const Crosscoder& crosscoder, const std::vector<ActiveFeatures>& parts,
                                   Layer layer) {
  static_cast<void>(crosscoder.index_of(layer));
  std::vector<ActiveFeatures> writing;
  std::vector<std::int64_t> first_feature;
  std::int64_t first = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (detail::decoder_of(crosscoder.parts[i], layer).defined()) {
      writing.push_back(parts[i]);
      first_feature.push_back(first);
    }
    first += crosscoder.parts[i].dictionary.d_sae();
  }
  return writing.size() == 1 && first_feature.front() == 0 ? writing.front()
                                                           : detail::numbered_through(writing, first_feature);
}

inline ActiveFeatures encode_active(const Crosscoder& crosscoder, const at::Tensor& x, Layer layer) {
  std::vector<ActiveFeatures> parts(crosscoder.parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const auto& part = crosscoder.parts[i];
    if (!detail::decoder_of(part, layer).defined()) continue;
    parts[i] = encode_active(part.dictionary, detail::read_by(crosscoder, part, x));
  }
  return writing_into(crosscoder, parts, layer);
}

}  // namespace circuit
