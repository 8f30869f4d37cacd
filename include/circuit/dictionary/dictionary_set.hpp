#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/id.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// The part of a block that a dictionary describes, or the residual stream before it.
enum class Module : std::uint8_t { attn, mlp, stream };

/// The activation that an attention dictionary reads and describes.
enum class AttentionSite {
  z,         ///< attn.hook_z over concatenated heads; its writes pass W_O
  attn_out,  ///< hook_attn_out; it writes into the residual stream itself
};

/// What a dictionary of an MLP reads. All describe hook_mlp_out.
enum class MlpSite {
  normalized,  ///< ln2.hook_normalized, as most transcoders
  resid_mid,   ///< hook_resid_mid, the stream itself; only where the MLP follows the attention
  mlp_out,     ///< hook_mlp_out, as an SAE; what its features read of the stream is the MLP's derivative at a run
};

namespace detail {

/// One of several kinds; a single kind is itself.
template <class... Kinds>
struct OneOf {
  using type = std::variant<Kinds...>;
};
template <class Kind>
struct OneOf<Kind> {
  using type = Kind;
};

/// Calls use(dictionary) with the kind that it is.
template <class Use, class Kind>
decltype(auto) with_kind(const Kind& dictionary, const Use& use) {
  return use(dictionary);
}
template <class Use, class... Kinds>
decltype(auto) with_kind(const std::variant<Kinds...>& dictionary, const Use& use) {
  return std::visit(use, dictionary);
}

}  // namespace detail

/// Which dictionary sits at which module of a model. An attention dictionary is an SAE on hook_z or hook_attn_out, an
/// MLP dictionary a transcoder from ln2.hook_normalized or hook_resid_mid to hook_mlp_out, or an SAE on hook_mlp_out.
/// Layers may have none, and may mix kinds: each entry is one of Kinds, and that choice ends at `encode`.
template <class... Kinds>
class BasicDictionarySet {
 public:
  using Dictionary = typename detail::OneOf<Kinds...>::type;

  /// throws  IndexError for a layer that no model has, and what the dictionary's own `check` throws
  void set_attn(Layer layer, Dictionary dictionary, AttentionSite site) {
    put(attn_, layer, std::move(dictionary));
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= sites_.size()) sites_.resize(slot + 1, AttentionSite::z);
    sites_[slot] = site;
  }
  void set_mlp(Layer layer, Dictionary dictionary, MlpSite site = MlpSite::normalized) {
    put(mlp_, layer, std::move(dictionary));
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= mlp_sites_.size()) mlp_sites_.resize(slot + 1, MlpSite::normalized);
    mlp_sites_[slot] = site;
  }

  /// An SAE of the residual stream before a layer: hook_resid_pre of that layer, hook_resid_post of the one before;
  /// layer n_layers is the stream behind the last. Its features and error stand for the stream: what lies before it
  /// reaches what lies behind it through them alone.
  /// throws  ConfigError  where a crosscoder describes it already
  void set_stream(Layer layer, Dictionary dictionary) {
    if (crosscoder(layer) != nullptr) {
      throw ConfigError{{.tensor = "stream before layer " + std::to_string(layer.value),
                         .problem = "is described by a crosscoder already"}};
    }
    put(stream_, layer, std::move(dictionary));
  }

  /// A dictionary of the stream at several layers: before each of them its features and an error stand for the stream,
  /// as an SAE's do. A feature is a node of every layer that it writes into, and what it does is the sum. It is a source
  /// only, unless every layer that it reads lies upstream of what it writes (`CrosscoderPart::causal`).
  /// throws  ConfigError  for a layer that a dictionary describes already, and what the crosscoder's `check` throws
  void set_crosscoder(Crosscoder crosscoder);

  /// The weight processing that the dictionaries were trained under, where they say so; `check` holds a model to it.
  void expect(weights::Processing processing) { expected_ = processing; }

  /// The dictionary's weights, or nullptr where the layer has none.
  [[nodiscard]] const DictionaryWeights* attn(Layer layer) const { return weights_of(find(attn_, layer)); }
  [[nodiscard]] const DictionaryWeights* mlp(Layer layer) const { return weights_of(find(mlp_, layer)); }
  /// Of a crosscoder, what it writes there; what it reads is not in it.
  [[nodiscard]] const DictionaryWeights* stream(Layer layer) const {
    const auto* part = across(layer);
    return part != nullptr ? &part->written : weights_of(find(stream_, layer));
  }
  /// The crosscoder that describes the stream before a layer, or nullptr.
  [[nodiscard]] const Crosscoder* crosscoder(Layer layer) const {
    const auto* part = across(layer);
    return part != nullptr ? &crosscoders_[part->crosscoder] : nullptr;
  }
  /// The layers whose MLP has a dictionary.
  [[nodiscard]] std::vector<Layer> mlp_layers() const {
    std::vector<Layer> layers;
    for (std::size_t l = 0; l < mlp_.size(); ++l) {
      if (mlp_[l]) layers.emplace_back(static_cast<std::int32_t>(l));
    }
    return layers;
  }
  [[nodiscard]] MlpSite mlp_site(Layer layer) const {
    const auto slot = static_cast<std::size_t>(layer.value);
    return slot < mlp_sites_.size() ? mlp_sites_[slot] : MlpSite::normalized;
  }
  [[nodiscard]] AttentionSite attn_site(Layer layer) const {
    const auto slot = static_cast<std::size_t>(layer.value);
    return slot < sites_.size() ? sites_[slot] : AttentionSite::z;
  }

  [[nodiscard]] const std::vector<Crosscoder>& crosscoders() const noexcept { return crosscoders_; }

  /// The activations [..., d_sae] of the layer's dictionary, which must be there.
  [[nodiscard]] at::Tensor encode_attn(Layer layer, const at::Tensor& x) const { return encode(attn_, layer, x); }
  [[nodiscard]] at::Tensor encode_mlp(Layer layer, const at::Tensor& x) const { return encode(mlp_, layer, x); }
  /// Of a crosscoder, x is [..., layers, d_model] of all that it reads.
  [[nodiscard]] at::Tensor encode_stream(Layer layer, const at::Tensor& x) const {
    if (const auto* of_layers = crosscoder(layer)) return of_layers->encode(x);
    return encode(stream_, layer, x);
  }
  /// The activations [..., n] of some features alone. features [n] int64
  [[nodiscard]] at::Tensor encode_attn(Layer layer, const at::Tensor& x, const at::Tensor& features) const {
    return encode(attn_, layer, x, features);
  }
  [[nodiscard]] at::Tensor encode_mlp(Layer layer, const at::Tensor& x, const at::Tensor& features) const {
    return encode(mlp_, layer, x, features);
  }
  [[nodiscard]] at::Tensor encode_stream(Layer layer, const at::Tensor& x, const at::Tensor& features) const {
    if (const auto* of_layers = crosscoder(layer)) return of_layers->encode(x).index_select(-1, features);
    return encode(stream_, layer, x, features);
  }
  /// The same, keeping only what is active. x [batch, pos, d_in]
  [[nodiscard]] ActiveFeatures active_attn(Layer layer, const at::Tensor& x) const { return active(attn_, layer, x); }
  [[nodiscard]] ActiveFeatures active_mlp(Layer layer, const at::Tensor& x) const { return active(mlp_, layer, x); }
  [[nodiscard]] ActiveFeatures active_stream(Layer layer, const at::Tensor& x) const {
    if (const auto* of_layers = crosscoder(layer)) return encode_active(*of_layers, x, layer);
    return active(stream_, layer, x);
  }

  /// throws  ShapeError   naming the dictionary that does not fit the model's sizes
  /// throws  ConfigError  for a layer or MLP the model lacks, or a weight processing other than the expected one
  /// throws  DTypeError   when a dictionary's dtype is not the model's
  void check(const ModelConfig& config, const weights::Processing& processing, at::ScalarType dtype) const;

 private:
  using Slots = std::vector<std::optional<Dictionary>>;
  /// What a crosscoder writes into one layer.
  struct Across {
    std::size_t crosscoder;
    DictionaryWeights written;
  };

  [[nodiscard]] const Across* across(Layer layer) const {
    const auto slot = static_cast<std::size_t>(layer.value);
    return layer.value >= 0 && slot < across_.size() && across_[slot] ? &*across_[slot] : nullptr;
  }

  /// Every layer up to the last one named costs memory, and a file may name any.
  static void check_layer(Layer layer, const std::string& name) {
    constexpr std::int32_t most = ModelConfig::most_layers;  // behind the last layer there is a stream yet
    if (layer.value >= 0 && layer.value <= most) return;
    throw IndexError{{.file = name,
                      .tensor = "layer",
                      .problem = "is a dictionary's, and no model has it",
                      .expected = "0 to " + std::to_string(most),
                      .got = std::to_string(layer.value)}};
  }

  static void put(Slots& slots, Layer layer, Dictionary dictionary) {
    detail::with_kind(dictionary, [](const auto& d) { d.check(); });
    check_layer(layer, weights_of(&dictionary)->name);
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= slots.size()) slots.resize(slot + 1);
    slots[slot] = std::move(dictionary);
  }
  [[nodiscard]] static const Dictionary* find(const Slots& slots, Layer layer) {
    const auto slot = static_cast<std::size_t>(layer.value);
    return layer.value >= 0 && slot < slots.size() && slots[slot] ? &*slots[slot] : nullptr;
  }
  [[nodiscard]] static const DictionaryWeights* weights_of(const Dictionary* dictionary) {
    if (dictionary == nullptr) return nullptr;
    return detail::with_kind(*dictionary, [](const auto& d) -> const DictionaryWeights* { return &d; });
  }
  [[nodiscard]] static const Dictionary& require(const Slots& slots, Layer layer) {
    if (const auto* found = find(slots, layer)) return *found;
    throw NameError{{.tensor = "dictionary of layer " + std::to_string(layer.value), .problem = "there is none"}};
  }
  template <class... Features>
  [[nodiscard]] static at::Tensor encode(const Slots& slots, Layer layer, const at::Tensor& x,
                                         const Features&... features) {
    return detail::with_kind(require(slots, layer), [&](const auto& d) { return d.encode(x, features...); });
  }
  [[nodiscard]] static ActiveFeatures active(const Slots& slots, Layer layer, const at::Tensor& x) {
    return detail::with_kind(require(slots, layer), [&](const auto& d) { return encode_active(d, x); });
  }

  Slots attn_;
  Slots mlp_;
  Slots stream_;  // by the layer behind
  std::vector<std::optional<Across>> across_;
  std::vector<Crosscoder> crosscoders_;
  std::vector<AttentionSite> sites_;
  std::vector<MlpSite> mlp_sites_;
  std::optional<weights::Processing> expected_;
};

/// What the dictionary of a layer's MLP reads; behind the norm, if a set does not say.
template <class Set>
[[nodiscard]] MlpSite mlp_site(const Set& set, Layer layer) {
  if constexpr (requires {
                  { set.mlp_site(layer) } -> std::same_as<MlpSite>;
                }) {
    return set.mlp_site(layer);
  } else {
    return MlpSite::normalized;
  }
}

/// The dictionary of the residual stream before a layer, or nullptr; sets need not know any.
template <class Set>
[[nodiscard]] const DictionaryWeights* stream_dictionary(const Set& set, Layer layer) {
  if constexpr (requires { set.stream(layer); }) {
    return set.stream(layer);
  } else {
    return nullptr;
  }
}

/// The crosscoder that describes the residual stream before a layer, or nullptr; sets need not know any.
template <class Set>
[[nodiscard]] const Crosscoder* crosscoder_of(const Set& set, Layer layer) {
  if constexpr (requires { set.crosscoder(layer); }) {
    return set.crosscoder(layer);
  } else {
    return nullptr;
  }
}

/// A dictionary that normalises what it reads, or nullptr where none does.
template <class Set>
[[nodiscard]] const DictionaryWeights* normalizing_dictionary(const Set& set, std::int32_t n_layers) {
  const auto normalizes = [](const DictionaryWeights* dictionary) {
    return dictionary != nullptr && dictionary->input_norm.kind != InputNorm::Kind::none;
  };
  for (std::int32_t l = 0; l <= n_layers; ++l) {
    const auto* stream = stream_dictionary(set, Layer{l});
    if (normalizes(stream)) return stream;
    if (l == n_layers) break;
    for (const auto* dictionary : {set.attn(Layer{l}), set.mlp(Layer{l})}) {
      if (normalizes(dictionary)) return dictionary;
    }
  }
  return nullptr;
}

/// Whether a set describes its modules without error, so that no error is a node.
template <class S>
inline constexpr bool describes_exactly = requires { requires S::exact; };

/// A set that can be asked for the activations of all its features, and of some.
template <class S>
concept EncodesDensely = requires(const S& s, Layer layer, const at::Tensor& x) {
  { s.encode_attn(layer, x) } -> std::same_as<at::Tensor>;
  { s.encode_mlp(layer, x) } -> std::same_as<at::Tensor>;
  { s.encode_attn(layer, x, x) } -> std::same_as<at::Tensor>;
  { s.encode_mlp(layer, x, x) } -> std::same_as<at::Tensor>;
};

/// The kinds this library brings: each dictionary's nonlinearity was chosen when it was read.
using DictionarySet = BasicDictionarySet<SparseDictionary<>>;

template <class... Kinds>
void BasicDictionarySet<Kinds...>::set_crosscoder(Crosscoder crosscoder) {
  crosscoder.check();
  for (const auto layer : crosscoder.layers) {
    if (stream(layer) == nullptr) continue;
    throw ConfigError{{.file = crosscoder.name,
                       .problem = "describes a stream that another dictionary describes",
                       .got = "the stream before layer " + std::to_string(layer.value)}};
  }
  check_layer(crosscoder.layers.back(), crosscoder.name);
  const auto last = static_cast<std::size_t>(crosscoder.layers.back().value);
  if (last >= across_.size()) across_.resize(last + 1);
  const auto features = crosscoder.d_sae();
  const auto nothing = make::zeros({1, 1}, crosscoder.b_out.options()).expand({crosscoder.d_model(), features});
  for (const auto layer : crosscoder.layers) {
    DictionaryWeights written{.W_enc = nothing,
                              .b_enc = nothing.select(0, 0),
                              .W_dec = crosscoder.decoder(layer),
                              .b_in = {},
                              .b_out = crosscoder.b_out.select(0, crosscoder.index_of(layer)),
                              .name = crosscoder.name};
    across_[static_cast<std::size_t>(layer.value)] = Across{crosscoders_.size(), std::move(written)};
  }
  crosscoders_.push_back(std::move(crosscoder));
}

template <class... Kinds>
void BasicDictionarySet<Kinds...>::check(const ModelConfig& config, const weights::Processing& processing,
                                         at::ScalarType dtype) const {
  if (expected_ && *expected_ != processing) {
    throw ConfigError{{.tensor = "weights::Processing",
                       .problem = "the dictionaries were trained on otherwise processed weights",
                       .hint = "load the model with the processing they expect"}};
  }
  const auto layers = static_cast<std::int32_t>(std::max(attn_.size(), mlp_.size()));
  const auto streams =
      static_cast<std::int32_t>(std::max(stream_.size(), across_.size()));  // one more: behind the last layer
  if (layers > config.n_layers || streams > config.n_layers + 1) {
    throw ConfigError{{.tensor = "dictionaries",
                       .expected = "at most " + std::to_string(config.n_layers) + " layers",
                       .got = std::to_string(std::max(layers, streams - 1))}};
  }
  const auto fits = [&](const DictionaryWeights* d, std::int64_t d_in, std::int64_t d_out) {
    if (d == nullptr) return;
    check_shape(d->W_enc, {d_in, -1}, "W_enc", d->name, "this dictionary does not fit the model");
    check_shape(d->W_dec, {-1, d_out}, "W_dec", d->name, "this dictionary does not fit the model");
    if (d->dtype() != dtype) {
      throw DTypeError{{.file = d->name,
                        .tensor = "W_enc",
                        .expected = at::toString(dtype),
                        .got = at::toString(d->dtype()),
                        .hint = "load dictionaries and model with one dtype"}};
    }
  };
  const auto refuse_paths = [](const DictionaryWeights& d) {
    const auto refuse = [&](const char* tensor, const char* whose) {
      throw ConfigError{{.file = d.name,
                         .tensor = tensor,
                         .problem = std::string{"is "} + whose + ", and this dictionary describes what it reads"}};
    };
    if (d.has_skip()) refuse("W_skip", "a transcoder's");
    if (d.later_layers() > 0) refuse("W_later", "a cross-layer transcoder's");
  };
  for (std::int32_t l = 0; l < layers; ++l) {
    const Layer layer{l};
    const auto read = attn(layer) != nullptr && attn_site(layer) == AttentionSite::z ? config.n_heads * config.d_head
                                                                                     : config.d_model;
    if (mlp(layer) != nullptr && config.d_mlp == 0) {
      throw ConfigError{{.file = mlp(layer)->name, .problem = "reads an MLP, and the model has none"}};
    }
    fits(attn(layer), read, read);
    if (attn(layer) != nullptr) refuse_paths(*attn(layer));
    fits(mlp(layer), config.d_model, config.d_model);
    if (mlp(layer) == nullptr) continue;
    if (mlp_site(layer) == MlpSite::mlp_out) refuse_paths(*mlp(layer));
    if (l + mlp(layer)->later_layers() >= config.n_layers) {
      throw ConfigError{{.file = mlp(layer)->name,
                         .tensor = "W_later",
                         .problem = "writes into layers that the model does not have",
                         .expected = "at most " + std::to_string(config.n_layers - l - 1) + " later layers",
                         .got = std::to_string(mlp(layer)->later_layers())}};
    }
  }
  for (std::int32_t l = 0; l < streams; ++l) {
    const auto* dictionary = stream(Layer{l});
    if (dictionary == nullptr) continue;
    fits(dictionary, config.d_model, config.d_model);
    refuse_paths(*dictionary);
    for (std::int32_t before = 0; before < l; ++before) {
      const auto* across = mlp(Layer{before});
      if (across == nullptr || before + across->later_layers() < l) continue;
      throw ConfigError{{.file = across->name,
                         .tensor = "W_later",
                         .problem = "writes past a dictionary of the residual stream, which stands for all before it",
                         .got = "a dictionary before layer " + std::to_string(l)}};
    }
  }
}

}  // namespace circuit
