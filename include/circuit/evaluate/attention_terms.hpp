#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/pull_back.hpp"
#include "circuit/linear/sources.hpp"
#include "circuit/linear/stream_constants.hpp"
#include "circuit/search/contrast.hpp"

namespace circuit {

/// An attention score taken apart: which node at the query with which node at the key.
struct ScorePairs {
  std::vector<Node> query;  ///< rows, without the last
  std::vector<Node> key;    ///< columns, without the last
  at::Tensor terms;         ///< [query + 1, key + 1] float64; last row and column: biases and other constants

  /// The score before any soft cap.
  [[nodiscard]] double score() const { return terms.sum().item<double>(); }
};

/// Attention on one prompt taken apart exactly, its scales held at the run: by heads, what an ov edge carries; by pairs
/// of nodes, where a head's score comes from.
template <Architecture A, Dictionaries Set>
class AttentionTerms {
 public:
  /// Model and dictionaries are referred to.
  /// tokens  [1, pos] int64
  /// throws  ShapeError for another batch, ConfigError for dictionaries across layers or with a skip path, whose
  ///         share no node holds, and what `dictionaries.check` throws
  AttentionTerms(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& tokens,
                 const SourceOptions& options = {});

  /// What each head gives an attention feature of an upstream node, through values: an ov edge's nn attribution is the
  /// sum. return  [n_heads] float64 throws  ValueError  unless the target is an attention feature and the other lies
  /// before it
  [[nodiscard]] at::Tensor by_head(const Node& up, const Node& target) const;

  /// The raw scaled score of a query and a key in one head.
  /// throws  IndexError
  [[nodiscard]] ScorePairs pairs(Layer layer, Head head, Position query, Position key) const;

 private:
  /// The nodes before a layer at one position and what each writes, [nodes + 1, d_model]; the last row is constants.
  struct Stream {
    std::vector<Node> nodes;
    at::Tensor writes;
  };
  [[nodiscard]] Stream stream_before(Layer layer, Position position) const;
  /// What those add to one head's query or key, turned: [nodes + 1, d_head].
  template <HookPoint HeadScale>
  [[nodiscard]] at::Tensor through(const Stream& stream, Layer layer, Position position, std::int64_t head,
                                   const at::Tensor& W, const at::Tensor& b, const at::Tensor& gain) const;

  const HookedTransformer<A>* model_;
  const Set* dictionaries_;
  Linearization lin_;
  Sources sources_;
  detail::StreamConstants constants_;
};

}  // namespace circuit

namespace circuit {

template <Architecture A, Dictionaries Set>
AttentionTerms<A, Set>::AttentionTerms(const HookedTransformer<A>& model, const Set& dictionaries,
                                       const at::Tensor& tokens, const SourceOptions& options)
    : model_{&model}, dictionaries_{&dictionaries} {
  const c10::AutoGradMode no_gradient{false};
  check_shape(tokens, {1, -1}, "tokens", {}, "one prompt is taken apart at a time");
  dictionaries.check(model.config(), model.processing(), model.dtype());
  refuse_unless_within_layers(dictionaries, static_cast<std::int32_t>(model.config().n_layers), "attention taken apart",
                              {.mlp_out = true, .stream = true, .resid_mid = true, .input_norm = true});
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    if (!has_skip(dictionaries, Layer{l})) continue;
    throw ConfigError{{.file = dictionaries.mlp(Layer{l})->name,
                       .tensor = "W_skip",
                       .problem = "attention taken apart has no place for skip paths"}};
  }
  lin_.run = record_frozen_run(model, tokens);
  lin_.clean = std::move(detail::describe(model, dictionaries, {&lin_.run}).front());
  sources_ = Sources::pack(model, dictionaries, lin_, contrast::None{}, options);
  constants_ = detail::StreamConstants{lin_, /*contrasts=*/false};
}

template <Architecture A, Dictionaries Set>
auto AttentionTerms<A, Set>::stream_before(Layer layer, Position position) const -> Stream {
  const auto depth = attn_depth(layer);
  const auto& here = sources_.at(position);
  const auto before = upstream_of(*dictionaries_, depth);
  const auto first = before.first(here.features_before);
  const auto features = before.count(here.features_before);
  const auto rest = before.count(here.rest_before);
  Stream out;
  for (std::int64_t i = 0; i < features + rest; ++i) out.nodes.push_back(here.node(i, before));
  const auto from = here.activation.begin() + first;
  std::vector<double> activation(from, from + features);
  auto scale = make::empty({features, 1}, at::kDouble);
  std::copy(activation.begin(), activation.end(), scale.template data_ptr<double>());
  auto constant = constants_.between(before.from, depth);
  if (constant.dim() > 1) constant = constant.select(0, 0).select(0, position.value);
  const auto& like = here.rest_effect;
  out.writes = make::cat({here.blocks.front().writes.narrow(0, first, features).mul(scale.to(like.options())),
                          like.select(0, 0).narrow(0, before.first(here.rest_before), rest), constant.unsqueeze(0)});
  return out;
}

template <Architecture A, Dictionaries Set>
at::Tensor AttentionTerms<A, Set>::by_head(const Node& up, const Node& target) const {
  const c10::AutoGradMode no_gradient{false};
  if (target.kind != NodeKind::attn_feature || depth(up) >= depth(target) || !has_position(up.kind)) {
    throw ValueError{{.tensor = to_string(up) + " -> " + to_string(target),
                      .problem = "is no ov edge",
                      .expected = "an attention feature and a node before it"}};
  }
  const auto& config = model_->config();
  check_index(target.layer, config.n_layers);
  for (const auto position : {up.position, target.position}) check_index(position, sources_.length());
  const auto& dictionary = require(dictionaries_->attn(target.layer));
  check_index(target.feature, dictionary.d_sae());
  const auto stream = stream_before(target.layer, up.position);
  const auto found = std::find(stream.nodes.begin(), stream.nodes.end(), up);
  auto shares = make::zeros({config.n_heads}, at::kDouble);
  if (found == stream.nodes.end()) return shares;  // not active
  const auto write = stream.writes.select(0, found - stream.nodes.begin());

  const PullBack<A> pull_back{*model_, lin_.run};
  const auto device = model_->device();
  const auto position = detail::ids_tensor({target.position.value}).to(device);
  auto reader = dictionary.input_readers(detail::ids_tensor({target.feature.value}).to(device));
  const auto& divisor = lin_.clean.attn[static_cast<std::size_t>(target.layer.value)].input_norm.divisor;
  if (divisor.defined()) reader = reader.div(divisor[0][target.position.value]);
  if (dictionaries_->attn_site(target.layer) == AttentionSite::attn_out) {
    reader = pull_back.output(target.layer, Prompt{0}, reader, position).grad;
  }
  for (std::int64_t h = 0; h < config.n_heads; ++h) {
    auto alone = make::zeros_like(reader);
    const auto first = h * config.d_head;
    alone.narrow(1, first, config.d_head).copy_(reader.narrow(1, first, config.d_head));
    const auto grad = pull_back.values(target.layer, Prompt{0}, alone, position).grad;
    shares[h].fill_(grad.select(0, 0).select(0, up.position.value).dot(write).template item<double>());
  }
  return shares;
}

template <Architecture A, Dictionaries Set>
template <HookPoint HeadScale>
at::Tensor AttentionTerms<A, Set>::through(const Stream& stream, Layer layer, Position position, std::int64_t head,
                                           const at::Tensor& W, const at::Tensor& b, const at::Tensor& gain) const {
  using Norm = typename A::Norm;
  const auto& config = model_->config();
  const auto& norm = model_->weights().blocks[static_cast<std::size_t>(layer.value)].ln1;
  const auto at_position = [&](const at::Tensor& of_run) { return of_run.select(0, 0).select(0, position.value); };
  const auto of_head = [&](const at::Tensor& x) { return x.narrow(-1, head * config.d_head, config.d_head); };
  auto parts = Norm::unscaled(stream.writes, norm).div(at_position(lin_.run.template get<hook::ln1::scale>(layer)));
  auto constant = parts.narrow(0, parts.size(0) - 1, 1);
  if (norm.bias.defined()) constant.add_(norm.bias);
  parts = product(parts, detail::columns_of_head(W, head, config.d_head));
  if (b.defined()) parts.narrow(0, parts.size(0) - 1, 1).add_(of_head(b));
  if constexpr (A::Attention::head_norms) {
    if (gain.defined())
      parts = parts.mul(gain).div(at_position(lin_.run.template get<HeadScale>(layer)).select(0, head));
  }
  const auto places =
      detail::ids_tensor(std::vector<std::int64_t>(static_cast<std::size_t>(parts.size(0)), position.value));
  const auto angles = A::Positions::angles(places.to(parts.device()), config, parts.options());
  return A::Positions::rotate(parts.unsqueeze(1), angles).squeeze(1);
}

template <Architecture A, Dictionaries Set>
ScorePairs AttentionTerms<A, Set>::pairs(Layer layer, Head head, Position query, Position key) const {
  const c10::AutoGradMode no_gradient{false};
  const auto& config = model_->config();
  check_index(layer, config.n_layers);
  check_index(head, config.n_heads);
  for (const auto position : {query, key}) check_index(position, sources_.length());
  const auto& w = model_->weights().blocks[static_cast<std::size_t>(layer.value)].attn;
  auto at_query = stream_before(layer, query);
  auto at_key = stream_before(layer, key);
  const auto q = through<hook::attn::q_norm::scale>(at_query, layer, query, head.value, w.W_Q, w.b_Q, w.q_gain);
  const auto k =
      through<hook::attn::k_norm::scale>(at_key, layer, key, head.value / config.group_size(), w.W_K, w.b_K, w.k_gain);
  return {std::move(at_query.nodes), std::move(at_key.nodes),
          q.matmul(k.t()).div(config.score_scale).to(at::kCPU, at::kDouble)};
}

}  // namespace circuit
