#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/evaluate/edge_run.hpp"
#include "circuit/intervene/freeze_norms.hpp"
#include "circuit/intervene/module_values.hpp"

namespace circuit {

/// What an attribution graph computes when its kept edges alone carry anything.
struct GraphRunResult {
  std::map<Node, double> activations;  ///< of every feature that an edge names
  std::map<Node, at::Tensor> logits;   ///< by output (the metric, each logit): [pos, d_vocab], of what its edges bring,
                                       ///< before any soft cap
};

/// Runs attribution graphs of one prompt, in which attention is no node: transcoder features are computed from what
/// their kept edges bring, through attention patterns and norm scales held at the prompt's own run. Nothing else is
/// there: a source without an edge to a target counts 0 for it, while biases stay. Errors, embeddings and whole MLPs
/// hold the run's values. All edges between all nodes give the run's own activations and logits (before a soft cap).
template <Architecture A, class Set>
class GraphRun {
 public:
  /// tokens  [1, pos]
  /// throws  ShapeError, and as a run does;  as EdgeRun for dictionaries
  GraphRun(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& tokens);

  /// throws  NameError   for a node that is no transcoder feature, MLP error, whole MLP, embedding or output, or an
  /// edge
  ///                     that its target does not read by;  IndexError for a layer, position or feature that is not
  ///                     there
  [[nodiscard]] GraphRunResult run(std::span<const ReadEdge> edges) const;

 private:
  using Cache = ActivationCache<hook::embed, hook::pos_embed, hook::attn::z, hook::attn_out, hook::ln2::normalized,
                                hook::mlp_out, hook::resid_mid, hook::attn::pattern, hook::ln1::scale, hook::ln2::scale,
                                hook::ln1_post::scale, hook::ln2_post::scale, hook::ln_final::scale>;
  using Reads = std::map<Node, std::vector<ReadEdge>>;
  struct Prescribed;

  void check(const Node& node) const;
  [[nodiscard]] Reads grouped(std::span<const ReadEdge> edges) const;
  [[nodiscard]] Prescribed prescribe(std::span<const ReadEdge> edges, const GraphRunResult& result) const;
  [[nodiscard]] double activation(const Node& target, const Prescribed& read) const;
  [[nodiscard]] at::Tensor dictionary_input(Layer layer, const Prescribed& read) const;

  const HookedTransformer<A>* model_;
  const Set* dictionaries_;
  at::Tensor tokens_;
  Cache clean_;
  ErrorTerms errors_;
};

}  // namespace circuit

/// An attachment that holds attention and norms, says what embeddings and MLPs write, and keeps what one MLP reads.
template <circuit::Architecture A, class Set>
struct circuit::GraphRun<A, Set>::Prescribed {
  const Cache* clean;
  at::Tensor embeddings;            // [pos, 1]  1 where the embedding is kept
  std::vector<at::Tensor> mlp_out;  // by layer: [pos, d_model]
  at::Tensor resid_mid{};           // of the layer run last, and behind its norm
  at::Tensor normalized{};

  template <HookPoint P>
    requires(std::same_as<P, hook::attn::pattern> || std::same_as<P, hook::ln1::scale> ||
             std::same_as<P, hook::ln2::scale> || std::same_as<P, hook::ln1_post::scale> ||
             std::same_as<P, hook::ln2_post::scale> || std::same_as<P, hook::ln_final::scale>)
  void visit(P /*point*/, Layer layer, at::Tensor& value) const {
    value = clean->template get<P>(layer);
  }
  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.mul(embeddings); }
  void visit(hook::pos_embed /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.mul(embeddings); }
  void visit(hook::resid_mid /*point*/, Layer /*layer*/, at::Tensor& value) { resid_mid = value; }
  void visit(hook::ln2::normalized /*point*/, Layer /*layer*/, at::Tensor& value) { normalized = value; }
  void visit(hook::mlp_out /*point*/, Layer layer, at::Tensor& value) const {
    value = mlp_out[static_cast<std::size_t>(layer.value)].unsqueeze(0);
  }
};

namespace circuit {

template <Architecture A, class Set>
GraphRun<A, Set>::GraphRun(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& tokens)
    : model_{&model}, dictionaries_{&dictionaries}, tokens_{tokens} {
  check_shape(tokens, {1, -1}, "tokens", {}, "an attribution graph is of one prompt");
  refuse_unless_within_layers(dictionaries, static_cast<std::int32_t>(model.config().n_layers), "a graph run",
                              {.mlp_out = true, .resid_mid = !A::Wiring::parallel});
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    detail::check_writes_features(dictionaries.mlp(Layer{l}));
  }
  clean_ =
      model
          .run(tokens, record<hook::embed, hook::pos_embed, hook::attn::z, hook::attn_out, hook::ln2::normalized,
                              hook::mlp_out, hook::resid_mid, hook::attn::pattern, hook::ln1::scale, hook::ln2::scale,
                              hook::ln1_post::scale, hook::ln2_post::scale, hook::ln_final::scale>())
          .cache;
  errors_ = error_terms(dictionaries, clean_);
}

template <Architecture A, class Set>
void GraphRun<A, Set>::check(const Node& node) const {
  const bool of_mlp = is_mlp(node.kind) && !is_component(node.kind);
  if (!of_mlp && node.kind != NodeKind::embedding) {
    throw NameError{{.tensor = to_string(node),
                     .problem = "has no part in a graph run",
                     .expected = "a transcoder feature, an MLP's error, a whole MLP or an embedding"}};
  }
  check_index(node.layer, model_->config().n_layers);
  check_index(node.position, tokens_.size(1));
  if (is_feature(node.kind)) require_feature(*dictionaries_, {Module::mlp, node.layer, node.feature});
}

/// Edges by what reads, features that read nothing included.
template <Architecture A, class Set>
auto GraphRun<A, Set>::grouped(std::span<const ReadEdge> edges) const -> Reads {
  Reads out;
  for (const auto& edge : edges) {
    check(edge.up);
    const bool into_output = is_output(edge.down.kind);
    if (!reads_by(edge.down.kind, edge.type) || !(into_output || edge.down.kind == NodeKind::mlp_feature)) {
      throw NameError{{.tensor = to_string(edge.down),
                       .problem = "is no target of such an edge in a graph run",
                       .got = std::string{name(edge.type)} + " from " + to_string(edge.up)}};
    }
    if (!into_output) check(edge.down);
    if (is_feature(edge.up.kind)) out[edge.up];
    out[edge.down].push_back(edge);
  }
  return out;
}

template <Architecture A, class Set>
auto GraphRun<A, Set>::prescribe(std::span<const ReadEdge> edges, const GraphRunResult& result) const -> Prescribed {
  const auto& embed = clean_.template get<hook::embed>();
  const auto options = embed.options();
  Prescribed out{&clean_, make::zeros({tokens_.size(1), 1}, options), {}};
  for (std::int32_t l = 0; l < model_->config().n_layers; ++l) {
    const auto* dictionary = dictionaries_->mlp(Layer{l});
    auto writes = make::zeros({tokens_.size(1), embed.size(2)}, options);
    if (dictionary != nullptr && dictionary->b_out.defined()) writes.add_(dictionary->b_out);
    out.mlp_out.push_back(writes);
  }
  for (const auto& [up, down, type] : edges) {
    if (up.kind == NodeKind::embedding) {
      out.embeddings.select(0, up.position.value).fill_(1);
      continue;
    }
    auto row = out.mlp_out[static_cast<std::size_t>(up.layer.value)].select(0, up.position.value);
    if (is_feature(up.kind)) {
      const auto& dictionary = *dictionaries_->mlp(up.layer);
      const auto decoder = dictionary.decoder_rows(detail::feature_index({up.feature}, dictionary)).squeeze(0);
      const auto found = result.activations.find(up);
      if (found != result.activations.end()) row.add_(decoder, found->second);
    } else {
      const auto& whole =
          is_error(up.kind) ? errors_.get(Module::mlp, up.layer) : clean_.template get<hook::mlp_out>(up.layer);
      row.add_(whole[0][up.position.value]);
    }
  }
  return out;
}

/// What an MLP's dictionary reads of the stream that was run.
template <Architecture A, class Set>
at::Tensor GraphRun<A, Set>::dictionary_input(Layer layer, const Prescribed& read) const {
  const auto site = mlp_site(*dictionaries_, layer);
  if (site == MlpSite::resid_mid) return read.resid_mid;
  if (site == MlpSite::normalized) return read.normalized;
  if constexpr (has_mlp<A>) {
    const auto& w = model_->weights().blocks[static_cast<std::size_t>(layer.value)];
    const auto out = A::Mlp::forward(A::Norm::output(read.normalized, w.ln2), w.mlp, [](auto, at::Tensor&) {});
    if constexpr (A::Wiring::post_norms) {
      const auto& scale = clean_.template get<hook::ln2_post::scale>(layer);
      return A::Norm::output(A::Norm::normalized(out, scale, w.ln2_post), w.ln2_post);
    }
    return out;
  }
  return read.normalized;
}

template <Architecture A, class Set>
double GraphRun<A, Set>::activation(const Node& target, const Prescribed& read) const {
  const auto& dictionary = *dictionaries_->mlp(target.layer);
  const auto row = dictionary_input(target.layer, read).narrow(1, target.position.value, 1);
  return dictionaries_->encode_mlp(target.layer, row, detail::feature_index({target.feature}, dictionary))
      .template item<double>();
}

template <Architecture A, class Set>
GraphRunResult GraphRun<A, Set>::run(std::span<const ReadEdge> edges) const {
  const c10::AutoGradMode no_gradient{false};
  const auto reads = grouped(edges);
  GraphRunResult result;
  const auto resid_up_to = [&](Prescribed& prescribed, std::int32_t layers) {
    auto resid = model_->embed(tokens_, prescribed);
    for (std::int32_t l = 0; l < layers; ++l) resid = model_->block(std::move(resid), Layer{l}, prescribed);
    return resid;
  };
  for (std::int32_t l = 0; l < model_->config().n_layers; ++l) {
    std::map<Node, double> found;  // features of one layer do not read each other
    for (const auto& [target, own] : reads) {
      if (is_output(target.kind) || target.layer != Layer{l}) continue;
      auto prescribed = prescribe(own, result);
      static_cast<void>(resid_up_to(prescribed, l + 1));
      found.emplace(target, activation(target, prescribed));
    }
    result.activations.merge(found);
  }
  for (const auto& [output, own] : reads) {
    if (!is_output(output.kind)) continue;
    auto prescribed = prescribe(own, result);
    const auto resid = resid_up_to(prescribed, static_cast<std::int32_t>(model_->config().n_layers));
    result.logits.emplace(output, model_->unembed(resid, prescribed).squeeze(0));
  }
  return result;
}

}  // namespace circuit
