#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/skip_map.hpp"
#include "circuit/linear/sources.hpp"

namespace circuit {

/// What adds to the residual stream, without dictionaries.
enum class ComponentKind : std::uint8_t {
  embedding,  ///< of tokens
  position_embedding,
  head,              ///< one attention head
  attn_bias,         ///< a layer's b_O, and the bias of the norm behind it
  mlp,               ///< a whole MLP
  unembedding_bias,  ///< what the metric reads from no residual stream
};

struct Component {
  ComponentKind kind{};
  Layer layer{};
  Head head{};

  friend auto operator<=>(const Component&, const Component&) = default;
};

/// What one part writes directly into the metric, mean over prompts.
template <class Part>
struct DirectAttribution {
  Part part{};
  double value{};

  friend bool operator==(const DirectAttribution&, const DirectAttribution&) = default;
};

/// The metric taken apart twice, with the final norm's scale frozen: by heads and MLPs, and by the replacement model's
/// features, errors and embeddings, and what passes skip paths. Each way, the parts sum to the metric where the metric is
/// linear in the logits.
struct DirectLogitAttribution {
  double metric{};
  std::vector<DirectAttribution<Component>> components{};  ///< in the order of the forward pass
  std::vector<DirectAttribution<Node>> nodes{};            ///< in the order of the forward pass
  /// Of the second way: by layer, what the skip path of its transcoder makes of the stream, the norm's scale held. No node:
  /// a search's gradients pass through it to those before.
  std::vector<DirectAttribution<Layer>> skip_paths{};
  double constants{};  ///< of the second way: biases of dictionaries and model, and the unembedding's

  [[nodiscard]] double component_sum() const { return sum_of(components); }
  [[nodiscard]] double node_sum() const { return sum_of(nodes) + sum_of(skip_paths) + constants; }

 private:
  template <class Part>
  [[nodiscard]] static double sum_of(const std::vector<DirectAttribution<Part>>& parts) {
    double sum = 0;
    for (const auto& part : parts) sum += part.value;
    return sum;
  }
};

/// Direct logit attribution from a linearization with frozen final norm (`linearize<final_norm::Frozen>`). Positions
/// that the metric does not read have no nodes in it, nor has what lies before the last stream that a dictionary describes,
/// whose features and error stand for it. source  nostalgebraist's and Elhage et al.'s direct path; the
/// node form is LEAP's metric edges over all nodes
template <Architecture A, Dictionaries Set>
[[nodiscard]] DirectLogitAttribution direct_logit_attribution(const HookedTransformer<A>& model,
                                                              const Set& dictionaries,
                                                              const Linearization& linearization);

}  // namespace circuit

namespace circuit::detail {

class DirectAttributor {
 public:
  explicit DirectAttributor(const Linearization& lin)
      : lin_{lin}, gradient_{lin.gradients.last.to(at::kDouble)}, share_{1.0 / static_cast<double>(lin.batch())} {
    const auto read = gradient_.abs().sum(-1).sum(0).to(at::kCPU).contiguous();  // [pos]
    for (std::int64_t p = 0; p < lin.length(); ++p) {
      if (data_of<double>(read)[p] != 0) positions_.push_back(p);
    }
  }

  /// The whole of something written at every position. written [batch, pos, d_model]
  [[nodiscard]] double whole(const at::Tensor& written) const {
    return share_ * gradient_.mul(written).sum().template item<double>();
  }
  /// A vector written at every position of every prompt. constant [d_model], or [batch, pos, d_model], or undefined
  [[nodiscard]] double constant(const at::Tensor& constant) const {
    return constant.defined() ? share_ * gradient_.mul(constant).sum().template item<double>() : 0.0;
  }
  /// The gradient on what attention writes, before a post-norm where there is one.
  template <Architecture A>
  [[nodiscard]] at::Tensor before_post_norm(const BlockWeights& w, Layer layer) const {
    if constexpr (A::Wiring::post_norms) {
      return A::Norm::pull_back(gradient_, lin_.run.get<hook::ln1_post::scale>(layer), w.ln1_post);
    } else {
      return gradient_;
    }
  }
  /// The same along one vector. constant [d_model], or undefined
  [[nodiscard]] double constant(const at::Tensor& constant, const at::Tensor& gradient) const {
    return constant.defined() ? share_ * gradient.mul(constant).sum().template item<double>() : 0.0;
  }
  /// [heads]  z [batch, pos, heads, d_head]   W_O [heads * d_head, d_model]   gradient [batch, pos, d_model]
  [[nodiscard]] at::Tensor heads(const at::Tensor& z, const at::Tensor& W_O, const at::Tensor& gradient) const {
    const auto through = gradient.matmul(W_O.to(at::kDouble).t()).view(z.sizes());
    return through.mul(z).sum(-1).sum(1).sum(0).mul(share_).to(at::kCPU).contiguous();
  }

  void add_rest(NodeKind kind, Layer layer, const at::Tensor& written) {
    if (!written.defined()) return;  // a dictionary that misses nothing
    const auto values = gradient_.mul(written).sum(-1).sum(0).mul(share_).to(at::kCPU).contiguous();  // [pos]
    for (const auto p : positions_) put({kind, layer, position(p), Feature{0}}, data_of<double>(values)[p]);
  }
  /// writes(ids) gives the write vectors [n, d_model] of features ids [n].
  template <class Writes>
  void add_features(NodeKind kind, Layer layer, const ModuleState& module, const Writes& writes) {
    std::map<Node, double> sums;
    for (std::int64_t b = 0; b < lin_.batch(); ++b) {
      for (const auto p : positions_) add_row(kind, layer, module, b, p, writes, sums);
    }
    for (const auto& [node, value] : sums) put(node, value);
  }

  [[nodiscard]] std::vector<DirectAttribution<Node>>& nodes() { return nodes_; }

 private:
  [[nodiscard]] static Position position(std::int64_t p) { return Position{static_cast<std::int32_t>(p)}; }
  void put(const Node& node, double value) { nodes_.push_back({node, value}); }

  template <class Writes>
  void add_row(NodeKind kind, Layer layer, const ModuleState& module, std::int64_t b, std::int64_t p,
               const Writes& writes, std::map<Node, double>& sums) const {
    const auto& active = module.features;
    const auto row = b * lin_.length() + p;
    const auto count = active.end(row) - active.begin(row);
    if (count == 0) return;
    const std::vector<std::int64_t> ids{active.feature.begin() + active.begin(row),
                                        active.feature.begin() + active.end(row)};
    const at::Tensor written = writes(ids_tensor(ids));
    const double unit =
        module.write_scale.defined() ? share_ / module.write_scale[b][p][0].template item<double>() : share_;
    const auto values = written.to(at::kDouble)
                            .matmul(gradient_[b][p])
                            .to(at::kCPU)
                            .mul(active.activation.narrow(0, active.begin(row), count))
                            .mul(unit)
                            .contiguous();
    for (std::size_t i = 0; i < ids.size(); ++i) {
      sums[{kind, layer, position(p), Feature{static_cast<std::int32_t>(ids[i])}}] += data_of<double>(values)[i];
    }
  }

  const Linearization& lin_;
  at::Tensor gradient_;  // [batch, pos, d_model]  of each prompt's metric, at the last residual stream
  double share_;
  std::vector<std::int64_t> positions_;  // that the metric reads
  std::vector<DirectAttribution<Node>> nodes_;
};

/// What features of an MLP write into all layers together: their own, and later ones where they are cross-layer.
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor mlp_writes_together(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                             const at::Tensor& features) {
  auto written = mlp_writes(model, dictionaries, layer, features);
  const auto later = dictionaries.mlp(layer)->later_layers();
  for (std::int64_t ahead = 1; ahead <= later; ++ahead) {
    written = written.add(mlp_writes(model, dictionaries, layer, features, ahead));
  }
  return written;
}

/// Embeddings, heads, MLPs and biases, in the order of the forward pass.
template <Architecture A>
[[nodiscard]] std::vector<DirectAttribution<Component>> direct_components(const HookedTransformer<A>& model,
                                                                          const Linearization& lin,
                                                                          const DirectAttributor& attribute) {
  std::vector<DirectAttribution<Component>> out;
  const auto component = [&](const Component& part, double value) { out.push_back({part, value}); };
  component({ComponentKind::embedding}, attribute.whole(lin.clean.embed));
  if (lin.clean.pos_embed.defined()) {
    component({ComponentKind::position_embedding}, attribute.whole(lin.clean.pos_embed));
  }
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const Layer layer{l};
    const auto& w = model.weights().blocks[static_cast<std::size_t>(l)];
    const auto on_output = attribute.template before_post_norm<A>(w, layer);
    const at::Tensor heads = attribute.heads(lin.run.get<hook::attn::z>(layer), w.attn.W_O, on_output);
    for (std::int32_t h = 0; h < model.config().n_heads; ++h) {
      component({ComponentKind::head, layer, Head{h}}, data_of<double>(heads)[h]);
    }
    if (w.attn.b_O.defined() || w.ln1_post.bias.defined()) {
      component({ComponentKind::attn_bias, layer},
                attribute.constant(w.attn.b_O, on_output) + attribute.constant(w.ln1_post.bias));
    }
    if constexpr (has_mlp<A>) {
      component({ComponentKind::mlp, layer}, attribute.whole(lin.run.get<hook::mlp_out>(layer)));
    }
  }
  return out;
}

/// Adds the nodes, constant and skip path of one layer's attention and MLP.
template <Architecture A, Dictionaries Set>
void add_direct_modules(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& lin,
                        Layer layer, DirectAttributor& attribute, DirectLogitAttribution& out) {
  const auto slot = static_cast<std::size_t>(layer.value);
  const auto& attn = lin.clean.attn[slot];
  attribute.add_features(NodeKind::attn_feature, layer, attn, [&](const at::Tensor& ids) {
    return attn_writes(model, dictionaries, layer, ids.to(model.device()));
  });
  const bool reads_attn = dictionaries.attn(layer) != nullptr;
  attribute.add_rest(reads_attn ? NodeKind::attn_error : NodeKind::attn_output, layer, attn.rest);
  if (!has_transparent_attention(dictionaries, layer))
    out.constants += attribute.constant(attn.constant);  // else in the rest
  if constexpr (!has_mlp<A>) return;
  const auto& mlp = lin.clean.mlp[slot];
  attribute.add_features(NodeKind::mlp_feature, layer, mlp, [&](const at::Tensor& ids) {
    return mlp_writes_together(model, dictionaries, layer, ids.to(model.device()));
  });
  const auto* transcoder = dictionaries.mlp(layer);
  attribute.add_rest(transcoder != nullptr ? NodeKind::mlp_error : NodeKind::mlp_output, layer, mlp.rest);
  out.constants += attribute.constant(mlp.constant);
  if (transcoder == nullptr || !transcoder->has_skip()) return;
  out.skip_paths.push_back(
      {layer, attribute.whole(skip_map(model, *transcoder, lin.run, mlp_site(dictionaries, layer), layer))});
}

/// Adds what the nodes begin with: the embeddings, or what describes the last stream that a dictionary does.
/// return  the first layer whose modules are not behind it
template <Dictionaries Set>
[[nodiscard]] Layer add_direct_start(const Set& dictionaries, const Linearization& lin, std::int32_t layers,
                                     DirectAttributor& attribute, DirectLogitAttribution& out) {
  if constexpr (DescribesStream<Set>) {
    if (const auto from = upstream_of(dictionaries, end_depth(layers)).from; from >= 0) {
      const Layer layer{static_cast<std::int32_t>(from / 3)};
      const auto& state = lin.clean.stream[static_cast<std::size_t>(layer.value)];
      const auto& dictionary = require(dictionaries.stream(layer));
      attribute.add_features(NodeKind::resid_feature, layer, state, [&](const at::Tensor& ids) {
        return dictionary.decoder_rows(ids.to(dictionary.options().device()));
      });
      attribute.add_rest(NodeKind::resid_error, layer, state.rest);
      out.constants += attribute.constant(state.constant);
      return layer;
    }
  }
  attribute.add_rest(NodeKind::embedding, Layer{0}, lin.clean.embed);
  if (lin.clean.pos_embed.defined()) {
    attribute.add_rest(NodeKind::position_embedding, Layer{0}, lin.clean.pos_embed);
  }
  return Layer{0};
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set>
DirectLogitAttribution direct_logit_attribution(const HookedTransformer<A>& model, const Set& dictionaries,
                                                const Linearization& lin) {
  const c10::AutoGradMode no_gradient{false};
  detail::DirectAttributor attribute{lin};
  const auto mean = [](const at::Tensor& per_prompt) {
    return per_prompt.to(at::kDouble).mean().template item<double>();
  };
  const double unembedding = mean(lin.metric_constant);
  DirectLogitAttribution out{.metric = mean(lin.metric),
                             .components = detail::direct_components(model, lin, attribute),
                             .constants = unembedding};
  out.components.push_back({{ComponentKind::unembedding_bias}, unembedding});

  const auto layers = static_cast<std::int32_t>(model.config().n_layers);
  for (Layer layer = detail::add_direct_start(dictionaries, lin, layers, attribute, out); layer.value < layers;
       ++layer.value) {
    detail::add_direct_modules(model, dictionaries, lin, layer, attribute, out);
  }
  out.nodes = std::move(attribute.nodes());
  return out;
}

}  // namespace circuit
