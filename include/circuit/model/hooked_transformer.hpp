#pragma once

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
  /// What is computed with: float32 where matrices are of half precision.
  [[nodiscard]] at::ScalarType dtype() const { return is_half(weights_.W_E) ? at::kFloat : weights_.W_E.scalar_type(); }
  [[nodiscard]] at::Device device() const { return weights_.W_E.device(); }
  [[nodiscard]] at::TensorOptions options() const { return weights_.W_E.options().dtype(dtype()); }

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
  /// The same before their soft cap, which most models do not have.
  template <class... Attached>
  [[nodiscard]] at::Tensor uncapped_logits(const at::Tensor& tokens, Attached&... attached) const;

  /// The three parts of `uncapped_logits`: the residual stream [batch, pos, d_model] before block 0, ...
  template <class... Attached>
  [[nodiscard]] at::Tensor embed(const at::Tensor& tokens, Attached&... attached) const;
  /// ... after block `layer`, given it before, ...
  template <class... Attached>
  [[nodiscard]] at::Tensor block(at::Tensor resid, Layer layer, Attached&... attached) const {
    return blocks(std::move(resid), layer, Layer{layer.value + 1}, attached...);
  }
  /// ... or after several of them, from `first` to before `end`, which make what they share but once, ...
  template <class... Attached>
  [[nodiscard]] at::Tensor blocks(at::Tensor resid, Layer first, Layer end, Attached&... attached) const;
  /// ... and the logits [batch, pos, d_vocab] before any soft cap, given it after the last block.
  template <class... Attached>
  [[nodiscard]] at::Tensor unembed(const at::Tensor& resid, Attached&... attached) const;

 private:
  template <class... Attached>
  [[nodiscard]] at::Tensor block_at(const positions::Angles& angles, at::Tensor resid, Layer layer,
                                    Attached&... attached) const;
  void check_tokens(const at::Tensor& tokens, Position first) const;

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

template <class P, class... Attached>
inline constexpr bool attached_at = (AttachedTo<std::remove_const_t<Attached>, P> || ...);
/// Whether a run tells apart what each head's queries, keys and values read.
template <class... Attached>
inline constexpr bool splits_head_inputs =
    attached_at<hook::q_input, Attached...> || attached_at<hook::k_input, Attached...> ||
    attached_at<hook::v_input, Attached...>;

/// Whether an attachment waits for a point of ln1 that a run which splits head inputs does not pass.
template <class A>
inline constexpr bool needs_whole_ln1 =
    AttachedTo<A, hook::ln1::normalized> || (AttachedTo<A, hook::ln1::scale> && !AttachedTo<A, hook::ln1::head_scale>);

/// What each head's queries, keys and values read of the stream, shown one by one and normalised.
template <Norm N, class Visit>
[[nodiscard]] attention::Inputs split_inputs(const at::Tensor& resid, const NormWeights& w, const ModelConfig& config,
                                             Visit&& visit) {
  const auto one = [&](auto point) {
    auto x = resid.unsqueeze(2).expand({-1, -1, config.n_heads, -1});
    visit(point, x);
    auto scale = N::scale(x, config.norm_eps);
    visit(hook::ln1::head_scale{}, scale);
    return N::output(N::normalized(x, scale, w), w);
  };
  auto q = one(hook::q_input{});
  auto k = one(hook::k_input{});
  return {std::move(q), std::move(k), one(hook::v_input{})};
}

/// A norm in its two steps, shown at Scale and Normalized, and what its reader gets.
template <Norm N, HookPoint Scale, HookPoint Normalized, class Visit>
[[nodiscard]] at::Tensor normalize(const at::Tensor& x, const NormWeights& w, double eps, Visit&& visit) {
  auto scale = N::scale(x, eps);
  visit(Scale{}, scale);
  auto normalized = N::normalized(x, scale, w);
  visit(Normalized{}, normalized);
  return N::output(normalized, w);
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A>
HookedTransformer<A>::HookedTransformer(ModelConfig config, ModelWeights weights, weights::Processing processing,
                                        std::shared_ptr<const Tokenizer> tokenizer)
    : config_{std::move(config)},
      weights_{std::move(weights)},
      processing_{processing},
      tokenizer_{std::move(tokenizer)} {
  config_.check();
  weights_.check(config_);
  if (has_mlp<A> != (config_.d_mlp > 0)) {
    throw ConfigError{{.tensor = "d_mlp",
                       .expected = has_mlp<A> ? "> 0" : "0: the architecture has no MLP",
                       .got = std::to_string(config_.d_mlp)}};
  }
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
  return soft_cap(uncapped_logits(tokens, attached...), config_.logit_soft_cap);
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::uncapped_logits(const at::Tensor& tokens, Attached&... attached) const {
  const Layer end{static_cast<std::int32_t>(config_.n_layers)};
  return unembed(blocks(embed(tokens, attached...), Layer{0}, end, attached...), attached...);
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::embed(const at::Tensor& tokens, Attached&... attached) const {
  const auto first = first_position(attached...);
  check_tokens(tokens, first);
  auto embedded = widened(make::embedding(weights_.W_E, tokens));
  if (config_.embed_scale != 1.0) embedded = embedded.mul(config_.embed_scale);
  visit_point(hook::embed{}, Layer{0}, embedded, attached...);
  if constexpr (A::Positions::adds_embedding) {
    auto positions = widened(weights_.W_pos.narrow(0, first.value, tokens.size(1))).expand_as(embedded);
    visit_point(hook::pos_embed{}, Layer{0}, positions, attached...);
    return embedded.add(positions);
  } else {
    return embedded;
  }
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::blocks(at::Tensor resid, Layer first, Layer end, Attached&... attached) const {
  const auto angles = detail::angles_from<typename A::Positions>(first_position(attached...), resid, config_);
  for (auto l = first.value; l < end.value; ++l) resid = block_at(angles, std::move(resid), Layer{l}, attached...);
  return resid;
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::block_at(const positions::Angles& angles, at::Tensor resid, Layer layer,
                                          Attached&... attached) const {
  using Norm = typename A::Norm;
  using Wiring = typename A::Wiring;
  check_index(layer, config_.n_layers);
  const auto& w = weights_.blocks[static_cast<std::size_t>(layer.value)];
  const auto eps = config_.norm_eps;
  const auto visit = [&](auto point, at::Tensor& value) { visit_point(point, layer, value, attached...); };

  visit(hook::resid_pre{}, resid);
  attention::Inputs attn_in;
  if constexpr (detail::splits_head_inputs<Attached...>) {
    static_assert(!(detail::needs_whole_ln1<std::remove_const_t<Attached>> || ...),
                  "a run that splits head inputs does not pass ln1's points");
    attn_in = detail::split_inputs<Norm>(resid, w.ln1, config_, visit);
  } else {
    const auto x = detail::normalize<Norm, hook::ln1::scale, hook::ln1::normalized>(resid, w.ln1, eps, visit);
    attn_in = {x, x, x};
  }
  auto attn_out =
      attention::forward<typename A::Attention, typename A::Positions>(attn_in, w.attn, config_, layer, angles, visit);
  if constexpr (Wiring::post_norms) {
    attn_out =
        detail::normalize<Norm, hook::ln1_post::scale, hook::ln1_post::normalized>(attn_out, w.ln1_post, eps, visit);
  }
  visit(hook::attn_out{}, attn_out);

  auto mid = resid.add(attn_out);
  if constexpr (has_mlp<A>) {
    if constexpr (!Wiring::parallel) visit(hook::resid_mid{}, mid);
    auto read = Wiring::parallel ? resid : mid;
    if constexpr (detail::attached_at<hook::mlp_in, Attached...>) {
      read = read.view(read.sizes());  // a tensor of its own, whose gradient is this reader's alone
      visit(hook::mlp_in{}, read);
    }
    const auto mlp_in = detail::normalize<Norm, hook::ln2::scale, hook::ln2::normalized>(read, w.ln2, eps, visit);
    auto mlp_out = A::Mlp::forward(mlp_in, w.mlp, visit);
    if constexpr (Wiring::post_norms) {
      mlp_out =
          detail::normalize<Norm, hook::ln2_post::scale, hook::ln2_post::normalized>(mlp_out, w.ln2_post, eps, visit);
    }
    visit(hook::mlp_out{}, mlp_out);
    mid = mid.add(mlp_out);
  }
  visit(hook::resid_post{}, mid);
  return mid;
}

template <Architecture A>
template <class... Attached>
at::Tensor HookedTransformer<A>::unembed(const at::Tensor& resid, Attached&... attached) const {
  const auto visit = [&](auto point, at::Tensor& value) { visit_point(point, Layer{0}, value, attached...); };
  const auto x = detail::normalize<typename A::Norm, hook::ln_final::scale, hook::ln_final::normalized>(
      resid, weights_.ln_final, config_.norm_eps, visit);
  return affine(x, weights_.W_U, weights_.b_U);
}

template <Architecture A>
void HookedTransformer<A>::check_tokens(const at::Tensor& tokens, Position first) const {
  if (tokens.scalar_type() != at::kLong) {
    throw DTypeError{{.tensor = "tokens", .expected = "int64", .got = at::toString(tokens.scalar_type())}};
  }
  check_shape(tokens, {-1, -1}, "tokens");
  if (tokens.numel() == 0) throw ValueError{{.tensor = "tokens", .problem = "the batch is empty"}};
  if (first.value + tokens.size(1) > config_.n_ctx) {
    throw ValueError{{.tensor = "tokens",
                      .problem = "the prompt is too long",
                      .expected = "at most " + std::to_string(config_.n_ctx) + " tokens",
                      .got = std::to_string(first.value + tokens.size(1))}};
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
