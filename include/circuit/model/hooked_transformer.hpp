#pragma once

#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/architecture.hpp"
#include "circuit/model/attach.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/record.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

class Tokenizer;

/// What `HookedTransformer::run` returns: `auto [logits, cache] = model.run(...)`.
template <class Cache>
struct RunResult {
  at::Tensor logits;  ///< [batch, pos, d_vocab]
  Cache cache;
};

/// A decoder-only transformer whose forward pass can be read and edited at every named point. A plain value: copies
/// share their (never changed) weights, and const calls are safe from several threads.
template <Architecture A>
class HookedTransformer {
 public:
  using ArchitectureType = A;

  /// throws  ShapeError, ConfigError, DTypeError  for weights that disagree with `config` or cannot take part in a
  ///         gradient (made under c10::InferenceMode)
  HookedTransformer(ModelConfig config, ModelWeights weights, weights::Processing processing = {},
                    std::shared_ptr<const Tokenizer> tokenizer = {});

  [[nodiscard]] const ModelConfig& config() const noexcept { return config_; }
  [[nodiscard]] const ModelWeights& weights() const noexcept { return weights_; }
  [[nodiscard]] const weights::Processing& processing() const noexcept { return processing_; }
  [[nodiscard]] at::ScalarType dtype() const { return weights_.W_E.scalar_type(); }
  [[nodiscard]] at::Device device() const { return weights_.W_E.device(); }

  /// throws  ConfigError  when the model came without a tokenizer
  [[nodiscard]] const Tokenizer& tokenizer() const;

  /// Logits without a gradient, and whatever a recorder among the attachments kept.
  /// tokens  [batch, pos]  int64
  /// throws  IndexError for a token id outside the vocabulary, ValueError for an empty batch or too long a prompt
  template <class... Attached>
  [[nodiscard]] auto run(const at::Tensor& tokens, Attached&&... attached) const;

  /// Logits [batch, pos, d_vocab]; differentiable under the caller's gradient mode.
  template <class... Attached>
  [[nodiscard]] at::Tensor forward(const at::Tensor& tokens, Attached&... attached) const;

  /// The three parts of `forward`: the residual stream [batch, pos, d_model] before block 0, ...
  template <class... Attached>
  [[nodiscard]] at::Tensor embed(const at::Tensor& tokens, Attached&... attached) const;
  /// ... after block `layer`, given it before, ...
  template <class... Attached>
  [[nodiscard]] at::Tensor block(at::Tensor resid, Layer layer, Attached&... attached) const;
  /// ... and the logits [batch, pos, d_vocab], given it after the last block.
  template <class... Attached>
  [[nodiscard]] at::Tensor unembed(const at::Tensor& resid, Attached&... attached) const;

 private:
  template <class... Attached>
  [[nodiscard]] at::Tensor attention(const at::Tensor& x, Layer layer, Attached&... attached) const;
  void check_tokens(const at::Tensor& tokens) const;

  ModelConfig config_;
  ModelWeights weights_;
  weights::Processing processing_;
  std::shared_ptr<const Tokenizer> tokenizer_;
};

}  // namespace circuit

namespace circuit::detail {

template <class T>
inline constexpr bool is_recorder = false;
template <HookPoint... Points>
inline constexpr bool is_recorder<Recorder<Points...>> = true;

/// The cache of the recorder among the attachments; an empty one if there is none.
inline ActivationCache<> take_cache() { return {}; }
template <class First, class... Rest>
auto take_cache(First& first, Rest&... rest) {
  if constexpr (is_recorder<First>) {
    static_assert(!(is_recorder<Rest> || ...), "one recorder per run: name all points in it");
    return std::move(first).cache();
  } else {
    return take_cache(rest...);
  }
}

/// [batch, pos, heads * d_head] -> [batch, pos, heads, d_head]
[[nodiscard]] inline at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

/// [batch, pos, key_value_heads, d_head] -> [batch, heads, pos, d_head], shared heads repeated as views where possible
[[nodiscard]] inline at::Tensor per_query_head(const at::Tensor& x, std::int64_t group) {
  const auto by_head = x.transpose(1, 2);
  return group == 1 ? by_head : by_head.repeat_interleave(group, 1);
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A>
HookedTransformer<A>::HookedTransformer(ModelConfig config, ModelWeights weights, weights::Processing processing,
                                        std::shared_ptr<const Tokenizer> tokenizer)
    : config_{config}, weights_{std::move(weights)}, processing_{processing}, tokenizer_{std::move(tokenizer)} {
  config_.check();
  weights_.check(config_);
  check_compute_dtype(dtype(), "W_E");
  if (weights_.W_E.is_inference()) {
    throw ConfigError{{.tensor = "W_E",
                       .problem = "was made under c10::InferenceMode and cannot take part in a gradient",
                       .hint = "load the model outside of InferenceMode"}};
  }
}

template <Architecture A>
const Tokenizer& HookedTransformer<A>::tokenizer() const {
  if (!tokenizer_) throw ConfigError{{.tensor = "tokenizer", .problem = "the model came without one"}};
  return *tokenizer_;
}

template <Architecture A>
template <class... Attached>
auto HookedTransformer<A>::run(const at::Tensor& tokens, Attached&&... attached) const {
  const c10::AutoGradMode no_gradient{false};
  auto logits = forward(tokens, attached...);
  auto cache = detail::take_cache(attached...);
  return RunResult<decltype(cache)>{std::move(logits), std::move(cache)};
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::forward(const at::Tensor& tokens, Attached&... attached) const {
  auto resid = embed(tokens, attached...);
  for (std::int32_t l = 0; l < config_.n_layers; ++l) resid = block(std::move(resid), Layer{l}, attached...);
  return unembed(resid, attached...);
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::embed(const at::Tensor& tokens, Attached&... attached) const {
  check_tokens(tokens);
  auto embedded = make::embedding(weights_.W_E, tokens);
  visit_point(hook::embed{}, Layer{0}, embedded, attached...);
  if constexpr (A::Positions::adds_embedding) {
    auto positions = weights_.W_pos.narrow(0, 0, tokens.size(1)).expand_as(embedded);
    visit_point(hook::pos_embed{}, Layer{0}, positions, attached...);
    return embedded.add(positions);
  } else {
    return embedded;
  }
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::block(at::Tensor resid, Layer layer, Attached&... attached) const {
  using Norm = typename A::Norm;
  const auto& w = weights_.blocks[static_cast<std::size_t>(layer.value)];
  const auto visit = [&](auto point, at::Tensor& value) { visit_point(point, layer, value, attached...); };

  visit(hook::resid_pre{}, resid);
  auto scale1 = Norm::scale(resid, config_.norm_eps);
  visit(hook::ln1::scale{}, scale1);
  auto normalized1 = Norm::normalized(resid, scale1, w.ln1);
  visit(hook::ln1::normalized{}, normalized1);
  auto attn_out = attention(Norm::output(normalized1, w.ln1), layer, attached...);
  visit(hook::attn_out{}, attn_out);

  auto mid = resid.add(attn_out);
  visit(hook::resid_mid{}, mid);
  auto scale2 = Norm::scale(mid, config_.norm_eps);
  visit(hook::ln2::scale{}, scale2);
  auto normalized2 = Norm::normalized(mid, scale2, w.ln2);
  visit(hook::ln2::normalized{}, normalized2);
  auto mlp_out = A::Mlp::forward(Norm::output(normalized2, w.ln2), w.mlp, visit);
  visit(hook::mlp_out{}, mlp_out);

  auto post = mid.add(mlp_out);
  visit(hook::resid_post{}, post);
  return post;
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::attention(const at::Tensor& x, Layer layer, Attached&... attached) const {
  const auto& w = weights_.blocks[static_cast<std::size_t>(layer.value)].attn;
  const auto visit = [&](auto point, at::Tensor& value) { visit_point(point, layer, value, attached...); };
  using Positions = typename A::Positions;

  auto q = detail::split_heads(affine(x, w.W_Q, w.b_Q), config_.n_heads);
  visit(hook::attn::q{}, q);
  auto k = detail::split_heads(affine(x, w.W_K, w.b_K), config_.n_key_value_heads);
  visit(hook::attn::k{}, k);
  auto v = detail::split_heads(affine(x, w.W_V, w.b_V), config_.n_key_value_heads);
  visit(hook::attn::v{}, v);
  const auto places = make::arange(x.size(1), x.options().dtype(at::kLong));
  auto rot_q = Positions::rotate(q, places, config_);
  visit(hook::attn::rot_q{}, rot_q);
  auto rot_k = Positions::rotate(k, places, config_);
  visit(hook::attn::rot_k{}, rot_k);

  const auto keys = detail::per_query_head(rot_k, config_.group_size());
  auto scores = rot_q.transpose(1, 2).matmul(keys.transpose(2, 3)).div(config_.score_scale);
  if (config_.score_soft_cap > 0) scores = scores.div(config_.score_soft_cap).tanh().mul(config_.score_soft_cap);
  const auto length = x.size(1);
  const auto future = make::ones({length, length}, x.options().dtype(at::kBool)).triu(1);
  scores = scores.masked_fill(future, -std::numeric_limits<double>::infinity());
  visit(hook::attn::attn_scores{}, scores);
  auto pattern = scores.softmax(-1);
  visit(hook::attn::pattern{}, pattern);

  auto z = pattern.matmul(detail::per_query_head(v, config_.group_size())).transpose(1, 2).contiguous();
  visit(hook::attn::z{}, z);
  return affine(z.flatten(2), w.W_O, w.b_O);
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::unembed(const at::Tensor& resid, Attached&... attached) const {
  using Norm = typename A::Norm;
  auto scale = Norm::scale(resid, config_.norm_eps);
  visit_point(hook::ln_final::scale{}, Layer{0}, scale, attached...);
  auto normalized = Norm::normalized(resid, scale, weights_.ln_final);
  visit_point(hook::ln_final::normalized{}, Layer{0}, normalized, attached...);
  return affine(Norm::output(normalized, weights_.ln_final), weights_.W_U, weights_.b_U);
}

template <Architecture A>
void HookedTransformer<A>::check_tokens(const at::Tensor& tokens) const {
  if (tokens.scalar_type() != at::kLong) {
    throw DTypeError{{.tensor = "tokens", .expected = "int64", .got = at::toString(tokens.scalar_type())}};
  }
  check_shape(tokens, {-1, -1}, "tokens");
  if (tokens.numel() == 0) throw ValueError{{.tensor = "tokens", .problem = "the batch is empty"}};
  if (tokens.size(1) > config_.n_ctx) {
    throw ValueError{{.tensor = "tokens",
                      .problem = "the prompt is too long",
                      .expected = "at most " + std::to_string(config_.n_ctx) + " tokens",
                      .got = std::to_string(tokens.size(1))}};
  }
  const auto low = tokens.min().template item<std::int64_t>();
  const auto high = tokens.max().template item<std::int64_t>();
  if (low < 0 || high >= config_.d_vocab) {
    throw IndexError{{.tensor = "tokens",
                      .expected = "ids from 0 to " + std::to_string(config_.d_vocab - 1),
                      .got = std::to_string(low < 0 ? low : high)}};
  }
}

}  // namespace circuit
