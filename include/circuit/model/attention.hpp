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

/// What queries, keys and values are made of, normalised: [batch, pos, d_model] each, or one for every query head,
/// [batch, pos, head, d_model].
struct Inputs {
  at::Tensor q;
  at::Tensor k;
  at::Tensor v;
};

/// What attention adds to the residual stream, before any norm behind it.
/// angles  by how much queries and keys turn where they stand
/// visit  called as visit(point, value&) at attn.hook_q ... attn.hook_z; where it puts keys and values of earlier
///        positions before those at hand, queries see them too
/// return [batch, pos, d_model]
template <AttentionKind Kind, Positions Place, class Visit>
[[nodiscard]] at::Tensor forward(const Inputs& in, const AttentionWeights& w, const ModelConfig& config, Layer layer,
                                 const positions::Angles& angles, Visit&& visit);

}  // namespace attention
}  // namespace circuit

namespace circuit::detail {

/// [batch, pos, heads * d_head] -> [batch, pos, heads, d_head]
[[nodiscard]] inline at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads});
}

/// Queries, keys or values of every head: `own_heads` of them, or one for every query head where x has an axis for them.
/// x [batch, pos, (head,) d_model]   return [batch, pos, head, d_head]
[[nodiscard]] inline at::Tensor project_heads(const at::Tensor& x, const at::Tensor& W, const at::Tensor& b,
                                              std::int64_t own_heads) {
  if (x.dim() == 3) return split_heads(affine(x, W, b), own_heads);
  const auto group = x.size(2) / own_heads;
  const auto by_head = widened(W).reshape({W.size(0), own_heads, -1}).transpose(0, 1).repeat_interleave(group, 0);
  const auto out = x.transpose(1, 2).matmul(by_head).transpose(1, 2);
  return b.defined() ? out.add(b.view({own_heads, -1}).repeat_interleave(group, 0)) : out;
}

/// [batch, pos, own_heads, d_head] -> [batch, heads, pos, d_head], shared heads repeated as views where possible
[[nodiscard]] inline at::Tensor per_query_head(const at::Tensor& x, std::int64_t heads) {
  const auto group = heads / x.size(2);
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

/// True where a query must not see a key: after it, or left behind by a sliding window (0: none). The queries are the
/// last of the keys' positions.  [queries, keys] bool
[[nodiscard]] inline at::Tensor hidden_keys(std::int64_t queries, std::int64_t keys, std::int64_t window,
                                            const at::TensorOptions& like) {
  const auto all = make::ones({queries, keys}, like.dtype(at::kBool));
  const auto earlier = keys - queries;
  const auto later = all.triu(1 + earlier);
  return window > 0 && window < keys ? later.logical_or(all.tril(earlier - window)) : later;
}

}  // namespace circuit::detail

template <circuit::AttentionKind Kind, circuit::Positions Place, class Visit>
at::Tensor circuit::attention::forward(const Inputs& in, const AttentionWeights& w, const ModelConfig& config,
                                       Layer layer, const positions::Angles& angles, Visit&& visit) {
  auto q = detail::project_heads(in.q, w.W_Q, w.b_Q, config.n_heads);
  visit(hook::attn::q{}, q);
  auto k = detail::project_heads(in.k, w.W_K, w.b_K, config.n_key_value_heads);
  visit(hook::attn::k{}, k);
  auto v = detail::project_heads(in.v, w.W_V, w.b_V, config.n_key_value_heads);
  visit(hook::attn::v{}, v);
  if constexpr (Kind::head_norms) {
    using namespace hook::attn;
    q = detail::normalize_heads<q_norm::scale, q_norm::normalized>(q, w.q_gain, config.norm_eps, visit);
    k = detail::normalize_heads<k_norm::scale, k_norm::normalized>(k, w.k_gain, config.norm_eps, visit);
  }
  auto rot_q = Place::rotate(q, angles);
  visit(hook::attn::rot_q{}, rot_q);
  auto rot_k = Place::rotate(k, angles);
  visit(hook::attn::rot_k{}, rot_k);

  const auto keys = detail::per_query_head(rot_k, config.n_heads);
  auto scores = rot_q.transpose(1, 2).matmul(keys.transpose(2, 3)).div(config.score_scale);
  scores = soft_cap(scores, config.score_soft_cap);
  const auto hidden = detail::hidden_keys(q.size(1), rot_k.size(1), config.window(layer), q.options());
  scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  visit(hook::attn::attn_scores{}, scores);
  auto pattern = scores.softmax(-1);
  visit(hook::attn::pattern{}, pattern);

  auto z = pattern.matmul(detail::per_query_head(v, config.n_heads)).transpose(1, 2).contiguous();
  visit(hook::attn::z{}, z);
  return affine(z.flatten(2), w.W_O, w.b_O);
}
