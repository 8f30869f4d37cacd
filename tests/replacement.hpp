#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <string>
#include <vector>

#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/graph/edge.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "tensors.hpp"

/// The replacement model of one prompt, written from its definition with autograd and nothing of linear/: every feature
/// activation, error and embedding is a leaf, and a target's pre-activation is a function of them with scales and
/// patterns frozen (or, for q and k, with one side of the scores live).
template <circuit::Architecture A>
class Replacement {
 public:
  /// transparent  attention is no node: its frozen pattern moves the live stream
  /// own_units    what the set's MLP features write passes the post-norm, where there is one
  Replacement(const circuit::HookedTransformer<A>& model, const circuit::DictionarySet& set, const at::Tensor& tokens,
              bool transparent = false, bool own_units = false)
      : model_{model}, set_{set}, config_{model.config()}, transparent_{transparent}, own_units_{own_units} {
    using namespace circuit;
    auto [all_logits, cache] = model.run(
        tokens, record<hook::embed, hook::pos_embed, hook::ln1::scale, hook::ln2::scale, hook::attn::q, hook::attn::k,
                       hook::attn::v, hook::attn::q_norm::scale, hook::attn::k_norm::scale, hook::attn::pattern,
                       hook::attn::z, hook::ln1_post::scale, hook::attn_out, hook::ln2_post::scale, hook::mlp_out,
                       hook::ln2::normalized, hook::resid_mid, hook::resid_post, hook::ln_final::scale>());
    logits = all_logits[0];
    auto embedding = cache.template get<hook::embed>()[0];
    if constexpr (A::Positions::adds_embedding) embedding = embedding.add(cache.template get<hook::pos_embed>()[0]);
    embed = leaf(embedding);
    final_scale_ = cache.template get<hook::ln_final::scale>()[0];
    const auto embeds = embedding;
    for (std::int32_t i = 0; i <= config_.n_layers; ++i) {
      const Layer l{i};
      const auto none = at::zeros({embed.size(0), 1}, at::kDouble);
      const auto* d = set.stream(l);
      const auto before = [&](Layer at) {
        return at.value == 0 ? embeds : cache.template get<hook::resid_post>(Layer{at.value - 1})[0];
      };
      const auto x = before(l);
      auto read = x;
      if (const auto* across = set.crosscoder(l)) {
        std::vector<at::Tensor> streams;
        for (const auto at : across->layers) streams.push_back(before(at));
        read = at::stack(streams, 1);
      }
      stream_acts.push_back(leaf(d != nullptr ? set.encode_stream(l, read) : none));
      stream_held_.push_back(d != nullptr ? hold(*d, x) : Held{});
      stream_rest.push_back(leaf(d != nullptr ? x.sub(decoded(*d, stream_held_.back(), stream_acts.back())) : x));
    }
    for (std::int32_t i = 0; i < config_.n_layers; ++i) {
      const Layer l{i};
      Frozen f;
      f.scale1 = cache.template get<hook::ln1::scale>(l)[0];
      if constexpr (has_mlp<A>) f.scale2 = cache.template get<hook::ln2::scale>(l)[0];
      if constexpr (A::Wiring::post_norms) f.post_scale = cache.template get<hook::ln1_post::scale>(l)[0];
      if constexpr (A::Wiring::post_norms) f.mlp_post_scale = cache.template get<hook::ln2_post::scale>(l)[0];
      if constexpr (A::Attention::head_norms) {
        f.q_scale = cache.template get<hook::attn::q_norm::scale>(l)[0];
        f.k_scale = cache.template get<hook::attn::k_norm::scale>(l)[0];
      }
      f.q = cache.template get<hook::attn::q>(l)[0];
      f.k = cache.template get<hook::attn::k>(l)[0];
      f.v = cache.template get<hook::attn::v>(l)[0];
      f.pattern = cache.template get<hook::attn::pattern>(l)[0];
      frozen_.push_back(f);
      const auto z = cache.template get<hook::attn::z>(l)[0].flatten(1);
      const auto attn_out = cache.template get<hook::attn_out>(l)[0];
      const auto none = at::zeros({embed.size(0), 1}, at::kDouble);
      const auto* attn = set.attn(l);
      const auto* mlp = set.mlp(l);
      attn_acts.push_back(leaf(attn != nullptr ? set.encode_attn(l, reads_z(l) ? z : attn_out) : none));
      attn_held_.push_back(attn != nullptr ? hold(*attn, reads_z(l) ? z : attn_out) : Held{});
      attn_rest.push_back(leaf(attn != nullptr ? attn_out.sub(attn_written(l, attn_acts.back())) : attn_out));
      if constexpr (!has_mlp<A>) {
        mlp_acts.push_back(leaf(none));
        mlp_held_.push_back({});
        mlp_rest.push_back(leaf(at::zeros_like(embed)));
        continue;
      }
      const auto mlp_out = cache.template get<hook::mlp_out>(l)[0];
      const auto normalized = cache.template get<hook::ln2::normalized>(l)[0];
      const bool of_output = mlp != nullptr && set.mlp_site(l) == MlpSite::mlp_out;
      if (of_output) {
        frozen_.back().mlp_out = mlp_out;
        frozen_.back().mlp_read = normalized;
        frozen_.back().mlp_jacobian = mlp_jacobian(l, normalized);
      }
      const auto read = of_output                           ? mlp_out
                        : mlp != nullptr && reads_stream(l) ? cache.template get<hook::resid_mid>(l)[0]
                                                            : normalized;
      mlp_acts.push_back(leaf(mlp != nullptr ? set.encode_mlp(l, read) : none));
      mlp_held_.push_back(mlp != nullptr ? hold(*mlp, read) : Held{});
      const auto own = mlp_out.sub(cross_written(l, mlp_acts));
      mlp_rest.push_back(leaf(mlp != nullptr ? own.sub(mlp_written(l, mlp_acts.back(), read)) : own));
    }
  }

  /// The residual stream [pos, d_model] before the attention (or the MLP) of a layer, from the leaves; before it is
  /// replaced by what a dictionary of it gives, or behind that.
  at::Tensor resid(circuit::Layer before, bool mlp, bool replaced = true) const {
    const c10::AutoGradMode with_gradient{true};
    auto x = embed;
    for (std::int32_t l = 0; l <= before.value; ++l) {
      const auto slot = static_cast<std::size_t>(l);
      if (const auto* d = set_.stream(circuit::Layer{l}); d != nullptr && (l < before.value || replaced)) {
        x = decoded(*d, stream_held_[slot], stream_acts[slot]).add(stream_rest[slot]);
      }
      if (l == config_.n_layers) break;
      if (l == before.value && (!mlp || A::Wiring::parallel)) break;
      const auto block_input = x;
      if (transparent_) {
        x = x.add(attn_through(circuit::Layer{l}, x));
      } else {
        x = x.add(set_.attn(circuit::Layer{l}) ? attn_written(circuit::Layer{l}, attn_acts[slot]) : at::zeros_like(x))
                .add(attn_rest[slot]);
      }
      if (l == before.value) break;
      const auto read = A::Wiring::parallel ? block_input : x;
      if (set_.mlp(circuit::Layer{l}))
        x = x.add(mlp_written(circuit::Layer{l}, mlp_acts[slot], mlp_input(circuit::Layer{l}, read)));
      x = x.add(cross_written(circuit::Layer{l}, mlp_acts)).add(mlp_rest[slot]);
    }
    return x;
  }
  at::Tensor resid_final() const { return resid(circuit::Layer{static_cast<std::int32_t>(config_.n_layers)}, false); }

  /// What a feature of the stream reads: the stream, or [pos, layers, d_model] of a crosscoder's feature.
  at::Tensor stream_read(const circuit::Node& target) const {
    const auto* across = set_.crosscoder(target.layer);
    if (across == nullptr) return resid(target.layer, false, false);
    std::vector<at::Tensor> streams;
    for (const auto l : part_of(*across, target.feature.value).first->reads) streams.push_back(resid(l, false, false));
    const c10::AutoGradMode with_gradient{true};
    return at::stack(streams, 1);
  }
  /// Pre-activations [pos, d_sae or less] of a dictionary of the stream, given what its feature reads.
  at::Tensor stream_pre(const circuit::Node& target, const at::Tensor& x) const {
    const c10::AutoGradMode with_gradient{true};
    if (const auto* across = set_.crosscoder(target.layer)) {
      const auto [part, first] = part_of(*across, target.feature.value);
      const auto& d = part->dictionary;
      return at::cat({at::zeros({x.size(0), first}, at::kDouble), x.flatten(1).matmul(d.W_enc).add(d.b_enc)}, 1);
    }
    return pre(*set_.stream(target.layer), stream_held_[slot(target.layer)], x);
  }
  /// The part of a crosscoder that a feature belongs to, and its first feature.
  static std::pair<const circuit::CrosscoderPart*, std::int64_t> part_of(const circuit::Crosscoder& across,
                                                                         std::int64_t feature) {
    std::int64_t first = 0;
    for (const auto& part : across.parts) {
      if (feature < first + part.dictionary.d_sae()) return {&part, first};
      first += part.dictionary.d_sae();
    }
    return {};
  }
  /// Pre-activations [pos, d_sae] of a layer's transcoder, given the stream before its MLP.
  at::Tensor mlp_pre(circuit::Layer l, const at::Tensor& x) const {
    return pre(*set_.mlp(l), mlp_held_[slot(l)], mlp_input(l, x));
  }
  /// hook_normalized: behind gain and bias for LayerNorm, before the gain for RMSNorm; or the stream itself; or the
  /// MLP's output, linear around the run
  at::Tensor mlp_input(circuit::Layer l, const at::Tensor& x) const {
    if (reads_stream(l)) return x;
    const c10::AutoGradMode with_gradient{true};
    const auto& f = frozen_[slot(l)];
    const auto read = normalize(x, f.scale2, A::Norm::centers ? block(l).ln2 : circuit::NormWeights{});
    if (!f.mlp_jacobian.defined()) return read;
    return f.mlp_out.add(f.mlp_jacobian.matmul(read.sub(f.mlp_read).unsqueeze(-1)).squeeze(-1));
  }
  /// Pre-activations [pos, d_sae] of a layer's attention dictionary; `type` says which side of attention is live.
  at::Tensor attn_pre(circuit::Layer l, const at::Tensor& x, circuit::EdgeType type) const {
    return pre(*set_.attn(l), attn_held_[slot(l)], attn_input(l, x, type));
  }
  at::Tensor attn_input(circuit::Layer l, const at::Tensor& x, circuit::EdgeType type) const {
    const c10::AutoGradMode with_gradient{true};
    using circuit::EdgeType;
    const auto& f = frozen_[slot(l)];
    const auto& w = block(l).attn;
    const auto n = normalize(x, f.scale1, block(l).ln1);
    const auto heads = [&](const at::Tensor& W, const at::Tensor& b, std::int64_t count) {
      return n.matmul(W).add(b).view({n.size(0), count, config_.d_head});
    };
    const auto q = type == EdgeType::q ? heads(w.W_Q, w.b_Q, config_.n_heads) : f.q;
    const auto k = type == EdgeType::k ? heads(w.W_K, w.b_K, config_.n_key_value_heads) : f.k;
    const auto v = type == EdgeType::ov ? heads(w.W_V, w.b_V, config_.n_key_value_heads) : f.v;
    const auto group = config_.n_heads / config_.n_key_value_heads;
    const auto length = n.size(0);
    const auto query = normalize_head(q, f.q_scale, w.q_gain);
    const auto key = normalize_head(k, f.k_scale, w.k_gain);
    std::vector<at::Tensor> z;
    for (std::int64_t h = 0; h < config_.n_heads; ++h) {
      auto pattern = f.pattern[h];
      if (type != EdgeType::ov) {
        auto scores = turn(query.select(1, h)).matmul(turn(key.select(1, h / group)).t()).div(config_.score_scale);
        if (config_.score_soft_cap > 0) scores = scores.div(config_.score_soft_cap).tanh().mul(config_.score_soft_cap);
        pattern = scores.masked_fill(unseen(l, length), -1e300).softmax(-1);
      }
      z.push_back(pattern.matmul(v.select(1, h / group)));
    }
    const auto joined = at::cat(z, -1);
    return reads_z(l) ? joined : attn_output(l, joined);
  }
  /// What a layer's attention makes of x [pos, d_model] with this run's pattern and scale, biases included.
  at::Tensor attn_through(circuit::Layer l, const at::Tensor& x) const {
    const c10::AutoGradMode with_gradient{true};
    const auto& f = frozen_[slot(l)];
    const auto& w = block(l).attn;
    const auto v = normalize(x, f.scale1, block(l).ln1).matmul(w.W_V).add(w.b_V);
    const auto group = config_.n_heads / config_.n_key_value_heads;
    std::vector<at::Tensor> z;
    for (std::int64_t h = 0; h < config_.n_heads; ++h) {
      z.push_back(f.pattern[h].matmul(v.narrow(1, h / group * config_.d_head, config_.d_head)));
    }
    return attn_output(l, at::cat(z, -1));
  }
  /// What attention adds [pos, d_model], given z [pos, n_heads * d_head], a post-norm's scale frozen.
  at::Tensor attn_output(circuit::Layer l, const at::Tensor& z) const {
    const auto out = z.matmul(block(l).attn.W_O).add(block(l).attn.b_O);
    return A::Wiring::post_norms ? normalize(out, frozen_[slot(l)].post_scale, block(l).ln1_post) : out;
  }
  /// Logits [pos, d_vocab] with the final scale frozen, before any soft cap.
  at::Tensor unembed(const at::Tensor& x) const {
    const c10::AutoGradMode with_gradient{true};
    const auto& w = model_.weights();
    return normalize(x, final_scale_, w.ln_final).matmul(w.W_U).add(w.b_U);
  }

  /// The whole replacement forward from the embeddings: every feature recomputed from its own stream (patterns and scales
  /// frozen), only errors and embeddings given. `live` keeps the activation of chosen features at their leaves' values.
  at::Tensor forward(bool frozen_active_set = true) const {
    const c10::AutoGradMode with_gradient{true};
    return forward_as(frozen_active_set,
                      [](const at::Tensor& acts, circuit::Layer, circuit::NodeKind) { return acts; });
  }

  /// As forward, with one feature's activation moved by delta; returns the last residual stream.
  at::Tensor forward_with(const circuit::Node& node, double delta) const {
    return forward_as(true, [&](at::Tensor acts, circuit::Layer l, circuit::NodeKind kind) {
      if (node.layer != l || node.kind != kind) return acts;
      acts = acts.clone();
      acts[node.position.value][node.feature.value] += delta;
      return acts;
    });
  }

  at::Tensor attn_written(circuit::Layer l, const at::Tensor& acts) const {
    const auto out = decoded(*set_.attn(l), attn_held_[slot(l)], acts);
    return reads_z(l) ? attn_output(l, out) : out;
  }
  /// read  [pos, d_model]  what the transcoder reads, for its skip path
  at::Tensor mlp_written(circuit::Layer l, const at::Tensor& acts, const at::Tensor& read) const {
    const c10::AutoGradMode with_gradient{true};
    const auto* d = set_.mlp(l);
    const auto out = decoded(*d, mlp_held_[slot(l)], acts);
    if (A::Wiring::post_norms && own_units_) return normalize(out, frozen_[slot(l)].mlp_post_scale, block(l).ln2_post);
    return d->W_skip.defined() ? out.add(read.matmul(d->W_skip)) : out;
  }
  /// What features of earlier layers' cross-layer transcoders write into a layer's MLP output.
  at::Tensor cross_written(circuit::Layer l, const std::vector<at::Tensor>& acts) const {
    const c10::AutoGradMode with_gradient{true};
    auto sum = at::zeros_like(embed);
    for (std::int32_t from = 0; from < l.value; ++from) {
      const auto* d = set_.mlp(circuit::Layer{from});
      if (d == nullptr || !d->W_later.defined() || d->W_later.size(1) < l.value - from) continue;
      sum = sum.add(acts[static_cast<std::size_t>(from)].matmul(d->W_later.select(1, l.value - from - 1)));
    }
    return sum;
  }
  /// What one unit of a feature's activation is at its position, in decoder rows.
  double unit(const circuit::Node& node) const {
    const auto& held = node.kind == circuit::NodeKind::attn_feature  ? attn_held_[slot(node.layer)]
                       : node.kind == circuit::NodeKind::mlp_feature ? mlp_held_[slot(node.layer)]
                                                                     : stream_held_[slot(node.layer)];
    return held.factor.defined() ? held.factor[node.position.value][0].template item<double>() : 1.0;
  }
  /// What an attention feature reads of hook_z or hook_attn_out where it stands.
  at::Tensor attn_reader(const circuit::Node& node) const {
    const c10::AutoGradMode with_gradient{true};
    const auto& d = *set_.attn(node.layer);
    const auto x = at::zeros({embed.size(0), d.d_in()}, at::kDouble).requires_grad_(true);
    const auto value = pre(d, attn_held_[slot(node.layer)], x)[node.position.value][node.feature.value];
    return circuit::gradient_of(value, {x})[0][node.position.value];
  }
  bool reads_stream(circuit::Layer l) const { return set_.mlp_site(l) == circuit::MlpSite::resid_mid; }
  bool reads_z(circuit::Layer l) const { return set_.attn_site(l) == circuit::AttentionSite::z; }

  at::Tensor logits;  // [pos, d_vocab] of the original model, behind its soft cap
  at::Tensor embed;   // leaves: [pos, d_model] and, by layer, [pos, d_sae] or [pos, d_model]
  std::vector<at::Tensor> attn_acts, attn_rest, mlp_acts, mlp_rest;
  std::vector<at::Tensor> stream_acts, stream_rest;  // before each layer and behind the last

  std::vector<at::Tensor> leaves() const {
    std::vector<at::Tensor> all{embed};
    for (std::size_t l = 0; l < attn_acts.size(); ++l) {
      for (const auto& t : {attn_acts[l], attn_rest[l], mlp_acts[l], mlp_rest[l]}) all.push_back(t);
    }
    for (std::size_t l = 0; l < stream_acts.size(); ++l) {
      for (const auto& t : {stream_acts[l], stream_rest[l]}) all.push_back(t);
    }
    return all;
  }
  /// Derivative along a node of the function whose gradients at `leaves()` are given: by its activation.
  double along(const circuit::Node& node, const std::vector<at::Tensor>& grads) const {
    using circuit::NodeKind;
    const auto p = node.position.value;
    const auto base = 1 + 4 * slot(node.layer);
    const auto dot = [&](std::size_t i, const at::Tensor& value) {
      return grads[i][p].dot(value[p]).template item<double>();
    };
    switch (node.kind) {
      case NodeKind::embedding: return dot(0, embed);
      case NodeKind::attn_feature: return grads[base][p][node.feature.value].template item<double>();
      case NodeKind::attn_error:
      case NodeKind::attn_output: return dot(base + 1, attn_rest[slot(node.layer)]);
      case NodeKind::resid_feature:
        return grads[1 + 4 * attn_acts.size() + 2 * slot(node.layer)][p][node.feature.value].template item<double>();
      case NodeKind::resid_error:
        return dot(2 + 4 * attn_acts.size() + 2 * slot(node.layer), stream_rest[slot(node.layer)]);
      case NodeKind::mlp_feature: return grads[base + 2][p][node.feature.value].template item<double>();
      default: return dot(base + 3, mlp_rest[slot(node.layer)]);
    }
  }

 private:
  struct Frozen {
    at::Tensor scale1, scale2, post_scale, mlp_post_scale, q, k, q_scale, k_scale, v, pattern;
    at::Tensor mlp_out, mlp_read, mlp_jacobian;  // only of MLPs whose output a dictionary reads
  };
  /// d hook_mlp_out / d ln2.hook_normalized at every position, a post-norm's scale held. [pos, d_model, d_model]
  at::Tensor mlp_jacobian(circuit::Layer l, const at::Tensor& read) const {
    if constexpr (circuit::has_mlp<A>) {
      const c10::AutoGradMode with_gradient{true};
      const auto x = leaf(read);
      auto out = A::Mlp::forward(A::Norm::output(x, block(l).ln2), block(l).mlp, [](auto, at::Tensor&) {});
      if constexpr (A::Wiring::post_norms) {
        const auto scale = A::Norm::scale(out, config_.norm_eps).detach();
        out = normalize(out, scale, block(l).ln2_post);
      }
      std::vector<at::Tensor> rows;
      for (std::int64_t i = 0; i < out.size(1); ++i) {
        rows.push_back(circuit::gradient_of(out.select(1, i).sum(), {x}, /*keep_graph=*/true)[0]);
      }
      return at::stack(rows, 1);
    } else {
      return {};
    }
  }
  /// change(activations, layer, attention or not)  what every feature's activations become before they are written
  template <class Change>
  at::Tensor forward_as(bool frozen_active_set, Change&& change) const {
    auto x = embed;
    std::vector<at::Tensor> changed;     // the MLP features' activations, by layer
    std::vector<at::Tensor> unreplaced;  // the stream by layer, before it is replaced
    const auto pass_stream = [&](circuit::Layer l) {
      unreplaced.push_back(x);
      const auto* d = set_.stream(l);
      if (d == nullptr) return;
      at::Tensor acts;
      if (const auto* across = set_.crosscoder(l)) {
        std::vector<at::Tensor> parts;
        std::int64_t first = 0;
        for (const auto& part : across->parts) {
          const auto features = part.dictionary.d_sae();
          const auto at_run = stream_acts[slot(l)].narrow(1, first, features);
          first += features;
          if (!part.causal() || part.reads.back() > l) {  // which no stream moves
            parts.push_back(at_run);
            continue;
          }
          std::vector<at::Tensor> read;
          for (const auto r : part.reads) read.push_back(unreplaced[slot(r)]);
          parts.push_back(held(at::cat(read, 1).matmul(part.dictionary.W_enc).add(part.dictionary.b_enc), at_run));
        }
        acts = at::cat(parts, 1);
      } else {
        acts = frozen_active_set ? held(pre(*d, stream_held_[slot(l)], x), stream_acts[slot(l)])
                                 : set_.encode_stream(l, x);
      }
      const auto written = decoded(*d, stream_held_[slot(l)], change(acts, l, circuit::NodeKind::resid_feature));
      x = written.add(stream_rest[slot(l)]);
    };
    for (std::int32_t i = 0; i < config_.n_layers; ++i) {
      const circuit::Layer l{i};
      pass_stream(l);
      const auto before = x;
      if (set_.attn(l)) {
        const auto acts = frozen_active_set ? held(attn_pre(l, x, circuit::EdgeType::ov), attn_acts[slot(l)])
                                            : set_.encode_attn(l, attn_input(l, x, circuit::EdgeType::ov));
        x = x.add(attn_written(l, change(acts, l, circuit::NodeKind::attn_feature)));
      }
      x = x.add(attn_rest[slot(l)]);
      if (set_.mlp(l)) {
        const auto read = mlp_input(l, A::Wiring::parallel ? before : x);
        const auto acts = frozen_active_set ? held(pre(*set_.mlp(l), mlp_held_[slot(l)], read), mlp_acts[slot(l)])
                                            : set_.encode_mlp(l, read);
        changed.push_back(change(acts, l, circuit::NodeKind::mlp_feature));
        x = x.add(mlp_written(l, changed.back(), read));
      } else {
        changed.push_back(mlp_acts[slot(l)]);
      }
      x = x.add(cross_written(l, changed)).add(mlp_rest[slot(l)]);
    }
    pass_stream(circuit::Layer{static_cast<std::int32_t>(config_.n_layers)});
    return x;
  }
  /// Heads [pos, heads, d_head] through their norm, its scale frozen.
  static at::Tensor normalize_head(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& gain) {
    return gain.defined() ? x.div(scale).mul(gain) : x;
  }
  /// True where query q must not see key k: k > q, or k <= q - window.
  at::Tensor unseen(circuit::Layer l, std::int64_t length) const {
    auto mask = at::zeros({length, length}, at::kBool);
    const auto window = config_.windows.empty() ? 0 : config_.windows[slot(l)];
    for (std::int64_t q = 0; q < length; ++q) {
      for (std::int64_t k = 0; k < length; ++k) mask[q][k] = k > q || (window > 0 && k <= q - window);
    }
    return mask;
  }
  static at::Tensor leaf(const at::Tensor& value) { return value.detach().clone().requires_grad_(true); }
  static std::size_t slot(circuit::Layer l) { return static_cast<std::size_t>(l.value); }
  /// A dictionary's own normalisation at what it read, [pos, 1] each; undefined where it does nothing.
  struct Held {
    at::Tensor mean, divisor, factor;
  };
  static Held hold(const circuit::DictionaryWeights& d, const at::Tensor& x) {
    using Kind = circuit::InputNorm::Kind;
    const auto& norm = d.input_norm;
    if (norm.kind == Kind::none) return {};
    const auto n = static_cast<double>(x.size(1));
    const bool layer = norm.kind == Kind::layer_norm;
    const auto mean = x.sum(1, true).div(n);
    const auto scale = (layer ? x.sub(mean).square().sum(1, true).div(n - 1) : x.square().sum(1, true).div(n)).sqrt();
    return {layer && norm.undone ? mean : at::Tensor{}, layer ? scale.add(1e-5) : scale,
            norm.undone ? scale : at::Tensor{}};
  }
  static at::Tensor pre(const circuit::DictionaryWeights& d, const Held& held, const at::Tensor& x) {
    auto read = x;
    if (d.input_norm.kind == circuit::InputNorm::Kind::layer_norm) read = read.sub(read.mean(-1, true));
    if (held.divisor.defined()) read = read.div(held.divisor);
    return read.sub(d.b_in).matmul(d.W_enc).add(d.b_enc);
  }
  static at::Tensor decoded(const circuit::DictionaryWeights& d, const Held& held, const at::Tensor& acts) {
    auto out = acts.matmul(d.W_dec).add(d.b_out);
    if (held.factor.defined()) out = out.mul(held.factor);
    return held.mean.defined() ? out.add(held.mean) : out;
  }
  /// The active set held: what was active at the run is its pre-activation.
  static at::Tensor held(const at::Tensor& pre, const at::Tensor& at_run) { return pre.mul(at_run.detach().ne(0)); }
  const circuit::BlockWeights& block(circuit::Layer l) const { return model_.weights().blocks[slot(l)]; }
  at::Tensor normalize(const at::Tensor& x, const at::Tensor& scale, const circuit::NormWeights& norm) const {
    auto y = (A::Norm::centers ? x.sub(x.mean(-1, true)) : x).div(scale);
    if (norm.gain.defined()) y = y.mul(norm.gain);
    if (norm.bias.defined()) y = y.add(norm.bias);
    return y;
  }
  /// Rotary turn of one head [pos, d_head], pair by pair.
  at::Tensor turn(const at::Tensor& x) const {
    if constexpr (!A::Positions::rotates) return x;
    const auto half = config_.rotary_dims / 2;
    std::vector<at::Tensor> columns(static_cast<std::size_t>(x.size(1)));
    for (std::int64_t i = 0; i < x.size(1); ++i) columns[static_cast<std::size_t>(i)] = x.select(1, i);
    const auto position = at::arange(x.size(0), at::kDouble);
    for (std::int64_t i = 0; i < half; ++i) {
      const auto speed =
          config_.rotary_speeds.empty()
              ? std::pow(config_.rotary_base, -2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary_dims))
              : config_.rotary_speeds[static_cast<std::size_t>(i)];
      const auto angle = position.mul(speed);
      const auto a = x.select(1, i);
      const auto b = x.select(1, i + half);
      columns[static_cast<std::size_t>(i)] = a.mul(angle.cos()).sub(b.mul(angle.sin())).mul(config_.rotary_gain);
      columns[static_cast<std::size_t>(i + half)] = a.mul(angle.sin()).add(b.mul(angle.cos())).mul(config_.rotary_gain);
    }
    return at::stack(columns, 1);
  }

  const circuit::HookedTransformer<A>& model_;
  const circuit::DictionarySet& set_;
  circuit::ModelConfig config_;
  std::vector<Frozen> frozen_;
  std::vector<Held> attn_held_, mlp_held_, stream_held_;
  at::Tensor final_scale_;
  bool transparent_;
  bool own_units_;
};
