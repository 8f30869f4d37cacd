#pragma once

#include <concepts>
#include <limits>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/norm.hpp"
#include "circuit/model/positions.hpp"
#include "circuit/model/weights.hpp"

namespace circuit {

/// Causal softmax attention. How queries are grouped, the score's scale, its soft cap and sliding windows are numbers in
/// ModelConfig; what a kind adds is whether queries and keys are normalised head by head.
template <class K>
concept AttentionKind = requires {
  { K::head_norms } -> std::convertible_to<bool>;
};

namespace attention {

struct Causal {
  static constexpr bool head_norms = false;
};

/// Every query and key passes an RMSNorm over its head before it is turned (Qwen3), where the weights hold its gain.
struct HeadNormed {
  static constexpr bool head_norms = true;
};

/// What attention adds to the residual stream, before any norm behind it.
/// x      [batch, pos, d_model]  the normalised input
/// visit  called as visit(point, value&) at attn.hook_q ... attn.hook_z
/// return [batch, pos, d_model]
template <AttentionKind Kind, Positions Place, class Visit>
[[nodiscard]] at::Tensor forward(const at::Tensor& x, const AttentionWeights& w, const ModelConfig& config, Layer layer,
                                 Visit&& visit);

}  // namespace attention
}  // namespace circuit

namespace circuit::detail {

/// [batch, pos, heads * d_head] -> [batch, pos, heads, d_head]
[[nodiscard]] inline at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

/// [batch, pos, key_value_heads, d_head] -> [batch, heads, pos, d_head], shared heads repeated as views where possible
[[nodiscard]] inline at::Tensor per_query_head(const at::Tensor& x, std::int64_t group) {
  const auto by_head = x.transpose(1, 2);
  return group == 1 ? by_head : by_head.repeat_interleave(group, 1);
}

/// Queries or keys through the RMSNorm over each head; as they are where there is no gain.
template <HookPoint Scale, HookPoint Normalized, class Visit>
[[nodiscard]] at::Tensor normalize_heads(const at::Tensor& x, const at::Tensor& gain, double eps, Visit&& visit) {
  if (!gain.defined()) return x;
  auto scale = norm::RmsNorm::scale(x, eps);
  visit(Scale{}, scale);
  auto normalized = x.div(scale);
  visit(Normalized{}, normalized);
  return normalized.mul(gain);
}

/// True where a query [length] must not see a key [length]: after it, or left behind by a sliding window (0: none).
[[nodiscard]] inline at::Tensor hidden_keys(std::int64_t length, std::int64_t window, const at::TensorOptions& like) {
  const auto all = make::ones({length, length}, like.dtype(at::kBool));
  const auto later = all.triu(1);
  return window > 0 && window < length ? later.logical_or(all.tril(-window)) : later;
}

}  // namespace circuit::detail

template <circuit::AttentionKind Kind, circuit::Positions Place, class Visit>
at::Tensor circuit::attention::forward(const at::Tensor& x, const AttentionWeights& w, const ModelConfig& config,
                                       Layer layer, Visit&& visit) {
  auto q = detail::split_heads(affine(x, w.W_Q, w.b_Q), config.n_heads);
  visit(hook::attn::q{}, q);
  auto k = detail::split_heads(affine(x, w.W_K, w.b_K), config.n_key_value_heads);
  visit(hook::attn::k{}, k);
  auto v = detail::split_heads(affine(x, w.W_V, w.b_V), config.n_key_value_heads);
  visit(hook::attn::v{}, v);
  if constexpr (Kind::head_norms) {
    using namespace hook::attn;
    q = detail::normalize_heads<q_norm::scale, q_norm::normalized>(q, w.q_gain, config.norm_eps, visit);
    k = detail::normalize_heads<k_norm::scale, k_norm::normalized>(k, w.k_gain, config.norm_eps, visit);
  }
  const auto places = make::arange(x.size(1), x.options().dtype(at::kLong));
  auto rot_q = Place::rotate(q, places, config);
  visit(hook::attn::rot_q{}, rot_q);
  auto rot_k = Place::rotate(k, places, config);
  visit(hook::attn::rot_k{}, rot_k);

  const auto keys = detail::per_query_head(rot_k, config.group_size());
  auto scores = rot_q.transpose(1, 2).matmul(keys.transpose(2, 3)).div(config.score_scale);
  scores = soft_cap(scores, config.score_soft_cap);
  const auto hidden = detail::hidden_keys(x.size(1), config.window(layer), x.options());
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  visit(hook::attn::attn_scores{}, scores);
  auto pattern = scores.softmax(-1);
  visit(hook::attn::pattern{}, pattern);

  auto z = pattern.matmul(detail::per_query_head(v, config.group_size())).transpose(1, 2).contiguous();
  visit(hook::attn::z{}, z);
  return affine(z.flatten(2), w.W_O, w.b_O);
}
