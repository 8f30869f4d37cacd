#pragma once

#include <cmath>
#include <cstdint>

#include "circuit/dictionary/activation/gated.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/model/architecture/gemma2.hpp"
#include "circuit/model/architecture/gpt2.hpp"
#include "circuit/model/architecture/gpt_neox.hpp"
#include "circuit/model/architecture/llama.hpp"
#include "circuit/model/architecture/plain.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "tensors.hpp"

/// Small random models and dictionaries with nothing zero: biases, gains, thresholds.
namespace random_model {

/// Parts that no family puts together: LayerNorm behind the modules too, and head norms without a rotary map.
struct MixedParts {
  static constexpr std::string_view name = "mixed";
  using Norm = circuit::norm::LayerNorm;
  using Positions = circuit::positions::Learned;
  using Attention = circuit::attention::HeadNormed;
  using Mlp = circuit::mlp::Gated<circuit::activation::Gelu>;
  using Wiring = circuit::wiring::PostNormed;
};

/// A seeded source of tensors.
class Source {
 public:
  explicit Source(std::uint64_t seed, at::ScalarType dtype = at::kDouble) : generator_{make(seed)}, dtype_{dtype} {}

  at::Tensor operator()(at::IntArrayRef shape, double scale = 1.0, double mean = 0.0) {
    return at::randn(shape, generator_, at::TensorOptions{}.dtype(at::kDouble)).mul(scale).add(mean).to(dtype_);
  }
  at::Tensor tokens(std::int64_t batch, std::int64_t length, std::int64_t vocabulary) {
    return at::randint(vocabulary, {batch, length}, generator_, at::TensorOptions{}.dtype(at::kLong));
  }

 private:
  static at::Generator make(std::uint64_t seed);

  at::Generator generator_;
  at::ScalarType dtype_;
};

inline circuit::ModelConfig small_config() {
  circuit::ModelConfig c;
  c.n_layers = 2;
  c.d_model = 16;
  c.n_heads = c.n_key_value_heads = 4;
  c.d_head = 4;
  c.d_mlp = 24;
  c.d_vocab = 23;
  c.n_ctx = 12;
  c.norm_eps = 1e-5;
  c.score_scale = 2.0;
  return c;
}

/// Every part the architecture has, in use: grouped queries, soft caps, a window, a partial or scaled rotary map, biases.
template <circuit::Architecture A>
circuit::HookedTransformer<A> make(std::uint64_t seed, at::ScalarType dtype = at::kDouble, std::int64_t layers = 2) {
  using namespace circuit;
  Source random{seed, dtype};
  auto c = small_config();
  c.n_layers = layers;
  constexpr bool rms = std::same_as<typename A::Norm, norm::RmsNorm>;
  if constexpr (!has_mlp<A>) c.d_mlp = 0;
  if constexpr (A::Positions::rotates) c.rotary_dims = rms ? 4 : 2;
  if constexpr (rms) {
    c.n_key_value_heads = 2;
    c.score_soft_cap = 1.5;
    for (std::int64_t l = 0; l < layers; ++l) c.windows.push_back(l % 2 == 0 ? 0 : 3);
    c.rotary_speeds = {0.7, 0.2};
    c.rotary_gain = 1.1;
  }
  if constexpr (A::Wiring::post_norms) {
    c.n_key_value_heads = 2;
    c.windows.clear();
    for (std::int64_t l = 0; l < layers; ++l) c.windows.push_back(l % 2 == 0 ? 3 : 0);
    c.logit_soft_cap = 4.0;
    c.embed_scale = 1.5;
  }
  const auto q = c.n_heads * c.d_head;
  const auto kv = c.n_key_value_heads * c.d_head;
  const auto d = c.d_model;
  const auto norm = [&] {
    if constexpr (std::same_as<typename A::Norm, norm::None>) return NormWeights{};
    return NormWeights{random({d}, 0.3, 1.0), A::Norm::centers ? random({d}, 0.3) : at::Tensor{}};
  };
  ModelWeights w;
  w.W_E = random({c.d_vocab, d});
  if constexpr (A::Positions::adds_embedding) w.W_pos = random({c.n_ctx, d}, 0.5);
  for (std::int64_t l = 0; l < c.n_layers; ++l) {
    BlockWeights b;
    b.ln1 = norm();
    b.attn = {.W_Q = random({d, q}, 0.4),
              .W_K = random({d, kv}, 0.4),
              .W_V = random({d, kv}, 0.4),
              .W_O = random({q, d}, 0.4),
              .b_Q = random({q}, 0.3),
              .b_K = random({kv}, 0.3),
              .b_V = random({kv}, 0.3),
              .b_O = random({d}, 0.3)};
    if constexpr (A::Attention::head_norms) {
      b.attn.q_gain = random({c.d_head}, 0.3, 1.0);
      b.attn.k_gain = random({c.d_head}, 0.3, 1.0);
    }
    if constexpr (A::Wiring::post_norms) b.ln1_post = norm();
    if constexpr (A::Wiring::post_norms) b.ln2_post = norm();
    w.blocks.push_back(b);
    if constexpr (!has_mlp<A>) continue;
    b.ln2 = norm();
    b.mlp = {.W_gate = A::Mlp::gated ? random({d, c.d_mlp}, 0.4) : at::Tensor{},
             .W_in = random({d, c.d_mlp}, 0.4),
             .W_out = random({c.d_mlp, d}, 0.4),
             .b_gate = A::Mlp::gated ? random({c.d_mlp}, 0.3) : at::Tensor{},
             .b_in = random({c.d_mlp}, 0.3),
             .b_out = random({d}, 0.3)};
    w.blocks.back() = b;
  }
  w.ln_final = norm();
  w.W_U = random({d, c.d_vocab}, 0.4);
  w.b_U = random({c.d_vocab}, 0.3);
  return {c, w};
}

/// A float32 model whose matrices are all of this type.
template <circuit::Architecture A>
circuit::HookedTransformer<A> with_matrices_of(const circuit::HookedTransformer<A>& model, at::ScalarType dtype) {
  auto w = model.weights();
  const auto change = [&](at::Tensor& t) {
    if (t.defined() && t.dim() == 2) t = t.to(dtype);
  };
  for (auto* t : {&w.W_E, &w.W_pos, &w.W_U}) change(*t);
  for (auto& b : w.blocks) {
    for (auto* t : {&b.attn.W_Q, &b.attn.W_K, &b.attn.W_V, &b.attn.W_O, &b.mlp.W_gate, &b.mlp.W_in, &b.mlp.W_out}) {
      change(*t);
    }
  }
  return {model.config(), w};
}

/// The same with queries and keys as views of rows that lie in neighbouring pairs, as llama.cpp keeps them.
template <circuit::Architecture A>
circuit::HookedTransformer<A> with_neighbouring_pairs(const circuit::HookedTransformer<A>& model) {
  auto w = model.weights();
  const auto& c = model.config();
  const auto regroup = [&](at::Tensor& W, std::int64_t heads) {
    const auto stored = W.t().view({heads, 2, c.d_head / 2, c.d_model}).transpose(1, 2).contiguous();
    W = stored.transpose(1, 2).movedim(-1, 0);
  };
  for (auto& b : w.blocks) {
    regroup(b.attn.W_Q, c.n_heads);
    regroup(b.attn.W_K, c.n_key_value_heads);
  }
  return {c, w};
}

/// The same model with its matrices as float16, with rotary positions queries and keys as views, and as the float32 that
/// those widen to.
template <circuit::Architecture A>
struct HalfAndWidened {
  circuit::HookedTransformer<A> half;
  circuit::HookedTransformer<A> widened = with_matrices_of(half, at::kFloat);

  explicit HalfAndWidened(std::uint64_t seed) : half{with_matrices_of(make<A>(seed, at::kFloat), at::kHalf)} {
    if constexpr (A::Positions::rotates) half = with_neighbouring_pairs(half);
  }
};

/// SAEs on hook_z in even layers and on hook_attn_out in odd ones, transcoders everywhere, about a third active.
inline circuit::DictionarySet dictionaries(const circuit::ModelConfig& c, std::uint64_t seed,
                                           at::ScalarType dtype = at::kDouble, std::int64_t d_sae = 20) {
  using namespace circuit;
  Source random{seed, dtype};
  const auto dictionary = [&](std::int64_t d_in, std::int64_t d_out, bool transcoder) {
    SparseDictionary<> d;
    d.W_enc = random({d_in, d_sae}, 0.5);
    d.b_enc = random({d_sae}, 0.3, -0.6);
    d.W_dec = random({d_sae, d_out}, 0.4);
    d.b_in = random({d_in}, 0.3);
    d.b_out = transcoder ? random({d_out}, 0.3) : d.b_in;
    d.name = "random";
    return d;
  };
  DictionarySet set;
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    const bool z = l % 2 == 0;
    const auto width = z ? c.n_heads * c.d_head : c.d_model;
    set.set_attn(Layer{l}, dictionary(width, width, false), z ? AttentionSite::z : AttentionSite::attn_out);
    if (c.d_mlp > 0) set.set_mlp(Layer{l}, dictionary(c.d_model, c.d_model, true));
  }
  return set;
}

/// The same, each layer's and module's with another nonlinearity, and transcoders with a skip path.
inline circuit::DictionarySet mixed_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  using namespace circuit;
  Source random{seed + 1};
  const auto plain = dictionaries(c, seed);
  DictionarySet set;
  const auto with = [](const DictionaryWeights* weights, activation::Any activation) {
    return SparseDictionary<>{*weights, std::move(activation)};
  };
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    const Layer layer{l};
    const auto features = plain.attn(layer)->d_sae();
    const auto site = plain.attn_site(layer);
    if (l % 2 == 0) {
      set.set_attn(layer, with(plain.attn(layer), {activation::JumpRelu{random({features}, 0.3, 0.4)}}), site);
    } else {
      set.set_attn(layer, with(plain.attn(layer), {activation::TopK{.k = 5, .inner = activation::Inner::none}}), site);
    }
    if (c.d_mlp == 0) continue;
    auto mlp = *plain.mlp(layer);
    mlp.W_skip = random({c.d_model, c.d_model}, 0.3);
    if (l % 2 == 0) {
      set.set_mlp(layer, from_gated(mlp, {random({features}), random({features}, 0.5), random({features}, 0.3)}));
    } else {
      set.set_mlp(layer, with(&mlp, {activation::GroupMax{5}}));
    }
  }
  return set;
}

/// Cross-layer transcoders: features of every layer write into all later ones too, each by another row.
inline circuit::DictionarySet cross_layer_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed,
                                                       circuit::MlpSite site = circuit::MlpSite::normalized) {
  using namespace circuit;
  Source random{seed + 2};
  auto set = dictionaries(c, seed);
  for (std::int32_t l = 0; l + 1 < c.n_layers; ++l) {
    SparseDictionary<> d{*set.mlp(Layer{l}), {}};
    d.W_later = random({d.d_sae(), c.n_layers - l - 1, d.d_out()}, 0.4);
    if (l == 0) d.W_skip = random({c.d_model, c.d_model}, 0.3);
    set.set_mlp(Layer{l}, std::move(d), site);
  }
  return set;
}

/// SAEs on hook_mlp_out in place of transcoders, but for the last layer.
inline circuit::DictionarySet mlp_out_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  using namespace circuit;
  auto set = dictionaries(c, seed);
  for (std::int32_t l = 0; l + 1 < c.n_layers; ++l) {
    auto sae = *set.mlp(Layer{l});
    sae.b_out = sae.b_in;
    set.set_mlp(Layer{l}, SparseDictionary<>{sae, {}}, MlpSite::mlp_out);
  }
  return set;
}

/// The same dictionary, normalising what it reads.
inline circuit::SparseDictionary<> normalizing(const circuit::DictionaryWeights& weights, circuit::InputNorm norm) {
  circuit::SparseDictionary<> d{weights, {}};
  d.input_norm = norm;
  return d;
}

/// Dictionaries that normalise what they read: layer norms and constant norms, undone and not, some with a skip path.
inline circuit::DictionarySet normalizing_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed,
                                                       bool skips = true) {
  using namespace circuit;
  using Kind = InputNorm::Kind;
  Source random{seed + 4};
  auto set = dictionaries(c, seed);
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    const Layer layer{l};
    const auto kind = l % 2 == 0 ? Kind::layer_norm : Kind::constant_norm;
    set.set_attn(layer, normalizing(*set.attn(layer), {kind}), set.attn_site(layer));
    if (c.d_mlp == 0) continue;
    auto mlp = *set.mlp(layer);
    if (skips && l % 2 == 0) mlp.W_skip = random({c.d_model, c.d_model}, 0.3);
    set.set_mlp(layer, normalizing(mlp, {kind, l % 2 == 1}));
  }
  return set;
}

/// SAEs of the residual stream before a layer of one's choice beside those of every module.
inline circuit::DictionarySet with_stream(circuit::DictionarySet set, const circuit::ModelConfig& c, std::uint64_t seed,
                                          std::initializer_list<std::int32_t> layers) {
  using namespace circuit;
  Source random{seed + 3};
  for (const auto l : layers) {
    SparseDictionary<> d;
    d.W_enc = random({c.d_model, 20}, 0.5);
    d.b_enc = random({20}, 0.3, -0.6);
    d.W_dec = random({20, c.d_model}, 0.4);
    d.b_in = random({c.d_model}, 0.3);
    d.b_out = random({c.d_model}, 0.3);
    d.name = "random stream";
    set.set_stream(Layer{l}, std::move(d));
  }
  return set;
}

/// SAEs on hook_resid_pre of layer 1 and on hook_resid_post of the last.
inline circuit::DictionarySet residual_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  return with_stream(dictionaries(c, seed), c, seed, {1, static_cast<std::int32_t>(c.n_layers)});
}

/// The same, and SAEs on hook_mlp_out, normalising what they read.
inline circuit::DictionarySet normalizing_residual_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  using namespace circuit;
  using Kind = InputNorm::Kind;
  auto set = residual_dictionaries(c, seed);
  const Layer last{static_cast<std::int32_t>(c.n_layers)};
  set.set_stream(Layer{1}, normalizing(*set.stream(Layer{1}), {Kind::layer_norm}));
  set.set_stream(last, normalizing(*set.stream(last), {Kind::constant_norm}));
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    set.set_mlp(Layer{l}, normalizing(*set.mlp(Layer{l}), {Kind::layer_norm}), MlpSite::mlp_out);
  }
  return set;
}

/// A crosscoder of the streams before some layers: a part that reads and writes all, one that reads the first and
/// writes the others, and one that reads all and writes the last.
inline circuit::Crosscoder crosscoder(const circuit::ModelConfig& c, std::uint64_t seed,
                                      std::vector<circuit::Layer> layers) {
  using namespace circuit;
  Source random{seed + 5};
  const auto part = [&](std::vector<Layer> reads, std::vector<Layer> writes, std::int64_t features) {
    CrosscoderPart out;
    out.dictionary.W_enc = random({static_cast<std::int64_t>(reads.size()) * c.d_model, features}, 0.4);
    out.dictionary.b_enc = random({features}, 0.3, -0.6);
    out.dictionary.W_dec = random({features, c.d_model}, 0.4);
    if (writes.size() > 1) {
      out.dictionary.W_later = random({features, static_cast<std::int64_t>(writes.size()) - 1, c.d_model}, 0.4);
    }
    out.reads = std::move(reads);
    out.writes = std::move(writes);
    return out;
  };
  Crosscoder out{.layers = layers, .name = "random crosscoder"};
  out.parts.push_back(part(layers, layers, 14));
  out.parts.push_back(part({layers.front()}, {layers.begin() + 1, layers.end()}, 9));
  out.parts.push_back(part(layers, {layers.back()}, 8));
  out.b_out = random({static_cast<std::int64_t>(layers.size()), c.d_model}, 0.3);
  return out;
}

/// A crosscoder of the streams before the second layer and behind the last beside the dictionaries of every module.
inline circuit::DictionarySet crosscoder_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  using namespace circuit;
  auto set = dictionaries(c, seed);
  set.set_crosscoder(crosscoder(c, seed, {Layer{1}, Layer{static_cast<std::int32_t>(c.n_layers)}}));
  return set;
}

/// Transcoders that read hook_resid_mid, SAEs on hook_mlp_out in the last layer and of the stream between.
inline circuit::DictionarySet other_sites(const circuit::ModelConfig& c, std::uint64_t seed) {
  using namespace circuit;
  auto set = dictionaries(c, seed);
  for (std::int32_t l = 0; l + 1 < c.n_layers; ++l) {
    set.set_mlp(Layer{l}, SparseDictionary<>{*set.mlp(Layer{l}), {}}, MlpSite::resid_mid);
  }
  const Layer last{static_cast<std::int32_t>(c.n_layers) - 1};
  auto sae = *set.mlp(last);
  sae.b_out = sae.b_in;
  set.set_mlp(last, SparseDictionary<>{sae, {}}, MlpSite::mlp_out);
  return with_stream(set, c, seed, {last.value});
}

/// Cross-layer transcoders that read hook_resid_mid but for the last layer.
inline circuit::DictionarySet stream_dictionaries(const circuit::ModelConfig& c, std::uint64_t seed) {
  return cross_layer_dictionaries(c, seed, circuit::MlpSite::resid_mid);
}

}  // namespace random_model

#include <ATen/CPUGeneratorImpl.h>

inline at::Generator random_model::Source::make(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }
