#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/intervene/feature.hpp"

namespace circuit {

/// The points at which dictionaries read or describe.
template <class P>
concept ModulePoint =
    std::same_as<P, hook::attn::z> || std::same_as<P, hook::attn_out> || std::same_as<P, hook::ln2::normalized> ||
    std::same_as<P, hook::resid_mid> || std::same_as<P, hook::mlp_out> || std::same_as<P, hook::resid_pre> ||
    std::same_as<P, hook::resid_post>;

/// The layer of the module that is complete at a point: for the stream the one behind it.
template <ModulePoint P>
[[nodiscard]] constexpr Layer module_layer(P /*point*/, Layer layer) {
  return std::same_as<P, hook::resid_post> ? Layer{layer.value + 1} : layer;
}

/// An attachment that acts on modules with dictionaries, at the points where AtModules shows them.
template <class A>
concept ActsAtModules = requires { requires A::acts_at_modules; };

/// What cross-layer features have written so far, in one forward pass, into MLP outputs of layers still to come.
class LaterWrites {
 public:
  /// Adds what features of `layer` write so many layers ahead. written [batch, pos, d_out]
  void add(Layer layer, std::int64_t ahead, const at::Tensor& written) {
    const auto slot = static_cast<std::size_t>(layer.value + ahead);
    if (slot >= by_layer_.size()) by_layer_.resize(slot + 1);
    auto& sum = by_layer_[slot];
    sum = sum.defined() ? sum.add(written) : written;
  }
  /// What was written into a layer, at which the pass now is; undefined for nothing. A pass that is not further than it
  /// was before is another one, to which nothing has been written.
  [[nodiscard]] at::Tensor take(Layer layer) {
    if (layer <= last_) by_layer_.clear();
    last_ = layer;
    const auto slot = static_cast<std::size_t>(layer.value);
    return slot < by_layer_.size() ? by_layer_[slot] : at::Tensor{};
  }

 private:
  std::vector<at::Tensor> by_layer_;
  Layer last_{-1};
};

/// Follows a forward pass to every module with a dictionary, and shows what the dictionary reads together with what it
/// describes: the part that all interventions on features share. A transcoder's input is kept from ln2.hook_normalized
/// (or hook_resid_mid) until hook_mlp_out, so an attachment that edits that input is named before this one. A dictionary
/// that reads what it describes sees one tensor as both. The stream before a layer is shown where it is first complete:
/// at the layer before's hook_resid_post, as of the layer behind.
template <class Set>
class AtModules {
 public:
  /// throws  ConfigError  for a cross-layer transcoder that writes into a layer without a dictionary, or a crosscoder
  explicit AtModules(Set dictionaries) : dictionaries_{std::move(dictionaries)} {
    if constexpr (requires { dictionaries_.crosscoders(); }) refuse_crosscoders();
    if constexpr (requires { dictionaries_.mlp_layers(); }) check_later_layers();
  }

  [[nodiscard]] const Set& dictionaries() const noexcept { return dictionaries_; }

  /// Calls `replace(module, layer, input, output)` where a module with a dictionary is complete. What it returns takes
  /// the output's place; an undefined tensor leaves it.
  /// input   [batch, pos, d_in]   output  [batch, pos, d_out]; for an SAE they are one tensor, hook_z with heads
  /// concatenated
  template <ModulePoint P, class Replace>
  void visit(P /*point*/, Layer layer, at::Tensor& value, Replace&& replace) {
    if constexpr (std::same_as<P, hook::attn::z>) {
      if (!has_attn(layer, AttentionSite::z)) return;
      const auto z = value.flatten(2);
      put(value, replace(Module::attn, layer, z, z));
    } else if constexpr (std::same_as<P, hook::attn_out>) {
      if (!has_attn(layer, AttentionSite::attn_out)) return;
      const auto out = value;
      put(value, replace(Module::attn, layer, out, out));
    } else if constexpr (std::same_as<P, hook::ln2::normalized>) {
      if (reads_mlp(layer, MlpSite::normalized)) mlp_input_ = value;
    } else if constexpr (std::same_as<P, hook::resid_mid>) {
      if (reads_mlp(layer, MlpSite::resid_mid)) mlp_input_ = value;
    } else if constexpr (std::same_as<P, hook::resid_pre>) {
      if (layer == Layer{0}) show_stream(layer, value, replace);
    } else if constexpr (std::same_as<P, hook::resid_post>) {
      show_stream(Layer{layer.value + 1}, value, replace);
    } else {
      if (dictionaries_.mlp(layer) == nullptr) return;
      const auto input = reads_mlp(layer, MlpSite::mlp_out) ? value : std::exchange(mlp_input_, {});
      if (!input.defined()) {
        throw ConfigError{{.file = dictionaries_.mlp(layer)->name,
                           .tensor = hook_name(hook::resid_mid{}, layer),
                           .problem = "this architecture has no such point"}};
      }
      const auto out = value;
      put(value, replace(Module::mlp, layer, input, out));
    }
  }

 private:
  template <class Replace>
  void show_stream(Layer behind, at::Tensor& value, Replace& replace) {
    if (stream_dictionary(dictionaries_, behind) == nullptr) return;
    const auto stream = value;
    put(value, replace(Module::stream, behind, stream, stream));
  }
  void refuse_crosscoders() const {
    if (dictionaries_.crosscoders().empty()) return;
    throw ConfigError{{.file = dictionaries_.crosscoders().front().name,
                       .tensor = "crosscoder",
                       .problem = "reads layers that a run has not reached where it writes",
                       .hint = "encode a recorded run and use splice_crosscoder"}};
  }
  void check_later_layers() const {
    for (const Layer layer : dictionaries_.mlp_layers()) {
      const auto& dictionary = *dictionaries_.mlp(layer);
      for (std::int32_t ahead = 1; ahead <= dictionary.later_layers(); ++ahead) {
        const Layer later{layer.value + ahead};
        if (dictionaries_.mlp(later) != nullptr) continue;
        throw ConfigError{
            {.file = dictionary.name,
             .tensor = "W_later",
             .problem = "writes into layer " + std::to_string(later.value) + ", which has no dictionary"}};
      }
    }
  }
  [[nodiscard]] bool has_attn(Layer layer, AttentionSite site) const {
    return dictionaries_.attn(layer) != nullptr && dictionaries_.attn_site(layer) == site;
  }
  [[nodiscard]] bool reads_mlp(Layer layer, MlpSite site) const {
    return dictionaries_.mlp(layer) != nullptr && mlp_site(dictionaries_, layer) == site;
  }
  static void put(at::Tensor& value, const at::Tensor& replaced) {
    if (replaced.defined()) value = replaced.reshape(value.sizes());
  }

  Set dictionaries_;
  at::Tensor mlp_input_;
};

/// The activations [batch, pos, d_sae] of a module's dictionary.
template <EncodesDensely Set>
[[nodiscard]] at::Tensor encode(const Set& dictionaries, Module module, Layer layer, const at::Tensor& input) {
  if constexpr (requires { dictionaries.encode_stream(layer, input); }) {
    if (module == Module::stream) return dictionaries.encode_stream(layer, input);
  }
  return module == Module::attn ? dictionaries.encode_attn(layer, input) : dictionaries.encode_mlp(layer, input);
}

/// The activations [batch, pos, n] of some features of a module's dictionary. features [n] int64
template <EncodesDensely Set>
[[nodiscard]] at::Tensor encode(const Set& dictionaries, Module module, Layer layer, const at::Tensor& input,
                                const at::Tensor& features) {
  if constexpr (requires { dictionaries.encode_stream(layer, input, features); }) {
    if (module == Module::stream) return dictionaries.encode_stream(layer, input, features);
  }
  return module == Module::attn ? dictionaries.encode_attn(layer, input, features)
                                : dictionaries.encode_mlp(layer, input, features);
}

/// The features of a module's dictionary that are active. input [batch, pos, d_in]
template <class Set>
[[nodiscard]] ActiveFeatures encode_active(const Set& dictionaries, Module module, Layer layer,
                                           const at::Tensor& input) {
  if constexpr (requires { dictionaries.active_stream(layer, input); }) {
    if (module == Module::stream) return dictionaries.active_stream(layer, input);
  }
  return module == Module::attn ? dictionaries.active_attn(layer, input) : dictionaries.active_mlp(layer, input);
}

/// Which dictionaries somebody has a place for, besides SAEs of attention and transcoders that read behind the norm.
struct PlaceFor {
  bool mlp_out = false;     ///< SAEs on hook_mlp_out
  bool stream = false;      ///< SAEs of the residual stream
  bool resid_mid = false;   ///< transcoders of hook_resid_mid
  bool input_norm = false;  ///< dictionaries that normalise what they read
};

/// throws  ConfigError  for a set with a cross-layer transcoder, or a dictionary that reads where somebody has no place
/// for
template <class Set>
void refuse_unless_within_layers(const Set& dictionaries, std::int32_t n_layers, std::string_view who,
                                 PlaceFor place = {}) {
  const auto refuse = [&](const DictionaryWeights& dictionary, std::string tensor, std::string_view what) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = std::move(tensor),
                       .problem = std::string{who} + " has no place for " + std::string{what}}};
  };
  if (const auto* dictionary = place.input_norm ? nullptr : normalizing_dictionary(dictionaries, n_layers)) {
    refuse(*dictionary, "input_norm", "dictionaries that normalise what they read");
  }
  for (std::int32_t l = 0; l < n_layers; ++l) {
    const Layer layer{l};
    const auto* dictionary = dictionaries.mlp(layer);
    if (dictionary == nullptr) continue;
    if (dictionary->later_layers() > 0) refuse(*dictionary, "W_later", "cross-layer transcoders");
    const auto site = mlp_site(dictionaries, layer);
    if (site == MlpSite::resid_mid && !place.resid_mid) {
      refuse(*dictionary, hook_name(hook::resid_mid{}, layer), "transcoders of the stream itself");
    }
    if (site == MlpSite::mlp_out && !place.mlp_out) {
      refuse(*dictionary, hook_name(hook::mlp_out{}, layer), "SAEs of what an MLP writes");
    }
  }
  for (std::int32_t l = 0; l <= n_layers; ++l) {
    const auto* across = crosscoder_of(dictionaries, Layer{l});
    if (across != nullptr) refuse(*stream_dictionary(dictionaries, Layer{l}), "crosscoder", "crosscoders");
  }
  for (std::int32_t l = 0; l <= n_layers && !place.stream; ++l) {
    const auto* dictionary = stream_dictionary(dictionaries, Layer{l});
    if (dictionary != nullptr) refuse(*dictionary, hook_name(hook::resid_pre{}, Layer{l}), "SAEs of the stream");
  }
}

/// What a module's dictionary makes of its input, with what cross-layer features of earlier layers write there. Without
/// a gradient only active decoder rows are touched.
/// input   [batch, pos, d_in]   return  [batch, pos, d_out]
/// later   of the pass at hand, which comes here at every module with a dictionary
template <EncodesDensely Set>
[[nodiscard]] at::Tensor reconstruct(const Set& dictionaries, Module module, Layer layer, const at::Tensor& input,
                                     LaterWrites& later) {
  const auto& dictionary = *dictionary_of(dictionaries, module, layer);
  const auto shaped = [&](const at::Tensor& rows) {
    return rows.view({input.size(0), input.size(1), dictionary.d_out()});
  };
  const auto earlier = module == Module::mlp ? later.take(layer) : at::Tensor{};
  at::Tensor out;
  if (describes_exactly<Set> || (c10::GradMode::is_enabled() && input.requires_grad())) {
    const auto acts = encode(dictionaries, module, layer, input);
    out = dictionary.output(dictionary.decode(acts), input);
    for (std::int64_t ahead = 1; ahead <= dictionary.later_layers(); ++ahead) {
      later.add(layer, ahead, acts.matmul(widened(dictionary.W_later.select(1, ahead - 1))));
    }
  } else {
    const auto active = encode_active(dictionaries, module, layer, input);
    auto written = decode_active(dictionary, active);
    if (dictionary.b_out.defined()) written = written.add(dictionary.b_out);
    out = dictionary.output(shaped(written), input);
    for (std::int64_t ahead = 1; ahead <= dictionary.later_layers(); ++ahead) {
      later.add(layer, ahead, shaped(decode_active(dictionary, active, ahead)));
    }
  }
  return earlier.defined() ? out.add(earlier) : out;
}

/// What one module's own dictionary makes of its input alone.
template <EncodesDensely Set>
[[nodiscard]] at::Tensor reconstruct(const Set& dictionaries, Module module, Layer layer, const at::Tensor& input) {
  LaterWrites none;
  return reconstruct(dictionaries, module, layer, input, none);
}

}  // namespace circuit
