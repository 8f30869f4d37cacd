#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "circuit/intervene/freeze_norms.hpp"
#include "circuit/intervene/module_values.hpp"
#include "circuit/search/module_nodes.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// Who reads whom, and by what.
struct ReadEdge {
  Node up{};
  Node down{};
  EdgeType type{};

  friend constexpr auto operator<=>(const ReadEdge&, const ReadEdge&) = default;
};

/// A circuit's edges, without their numbers.
[[nodiscard]] inline std::vector<ReadEdge> read_edges(const Circuit& circuit) {
  std::vector<ReadEdge> edges;
  for (const auto& [up, down, edge] : circuit.edges()) edges.push_back({up, down, edge.type});
  return edges;
}

/// Whether attention patterns and norm scales follow what each target reads, or are held at the clean run's.
enum class Paths : std::uint8_t { live, clean };

struct EdgeRunOptions {
  Paths patterns = Paths::live;  ///< where they are held, q and k edges carry nothing
  Paths norms = Paths::live;
};

/// Runs circuits of features, errors and embeddings edge by edge: every target reads a stream of its own, the corrupt
/// run's with the change of those nodes alone that a kept edge brings it. A feature's change is what it computes on
/// that stream less its corrupt activation; errors, embeddings, and whole outputs of modules without a dictionary (the
/// nodes attn_out and mlp_out) change from the corrupt run's value to the clean one's. A feature that nothing kept
/// reaches stays corrupt. With live paths no edge is the corrupt run, and all edges between all nodes are the clean
/// one. One attention layer, or one row of an encoder, per target and prompt.
template <Architecture A, class Set>
class EdgeRun {
 public:
  /// throws  ShapeError, and as a run does;  ConfigError for a dictionary with a skip path or a scale of its input,
  /// whose
  ///         share no edge carries
  EdgeRun(const HookedTransformer<A>& model, const Set& dictionaries, const PromptPair& prompts,
          EdgeRunOptions options = {});

  /// Logits of the circuit, whose last stream holds what the edges into outputs (the metric, or logits) bring. An edge
  /// given twice counts once, and so does a node with edges into several outputs.
  /// return  [batch, pos, d_vocab]
  /// throws  NameError   for a node that is none of these, or an edge its target does not read
  /// by throws  IndexError  for a position or feature that is not there
  [[nodiscard]] at::Tensor logits(std::span<const ReadEdge> edges) const;

 private:
  using Cache =
      ActivationCache<hook::attn::z, hook::attn_out, hook::ln2::normalized, hook::mlp_out, hook::embed, hook::resid_pre,
                      hook::resid_mid, hook::resid_post, hook::attn::pattern, hook::ln1::scale, hook::ln2::scale,
                      hook::ln1_post::scale, hook::ln2_post::scale, hook::ln_final::scale>;
  using Changes = std::map<Node, at::Tensor>;  ///< what a feature writes more than in the corrupt run, [batch, d_model]
  using Reads = std::map<Node, std::vector<ReadEdge>>;
  /// Edges by what reads.
  struct Grouped {
    Reads attn;
    Reads mlp;
    Reads stream;
    std::vector<ReadEdge> last;
  };

  [[nodiscard]] Grouped grouped(std::span<const ReadEdge> edges) const;
  [[nodiscard]] Cache record_run(const at::Tensor& tokens) const;
  [[nodiscard]] at::Tensor change_of(const Node& node, const Changes& changes) const;
  [[nodiscard]] at::Tensor stream(at::Tensor corrupt, std::span<const ReadEdge> edges, EdgeType type,
                                  const Changes& changes) const;
  [[nodiscard]] at::Tensor attention_input(Layer layer, const at::Tensor& q, const at::Tensor& k,
                                           const at::Tensor& v) const;
  [[nodiscard]] at::Tensor mlp_input(Layer layer, const at::Tensor& stream) const;
  /// A norm's scale: of what it reads here, or the clean run's where norms are held.
  template <HookPoint Scale>
  [[nodiscard]] at::Tensor scale_of(Layer layer, const at::Tensor& x) const {
    return options_.norms == Paths::clean ? clean_.template get<Scale>(layer)
                                          : A::Norm::scale(x, model_->config().norm_eps);
  }
  /// What targets of the stream before a layer write, each on a stream of its own.
  void add_stream_changes(Layer layer, const Reads& targets, Changes& changes) const;
  [[nodiscard]] at::Tensor stream_before(Layer layer) const { return detail::recorded_stream(corrupt_, layer); }
  [[nodiscard]] at::Tensor written(const Node& target, const at::Tensor& input) const;
  [[nodiscard]] at::Tensor mlp_stream(Layer layer) const {
    if constexpr (A::Wiring::parallel) return corrupt_.template get<hook::resid_pre>(layer);
    return corrupt_.template get<hook::resid_mid>(layer);
  }

  const HookedTransformer<A>* model_;
  const Set* dictionaries_;
  EdgeRunOptions options_;
  Cache clean_;
  Cache corrupt_;
  ErrorTerms clean_errors_;
  ErrorTerms corrupt_errors_;
};

}  // namespace circuit

namespace circuit::detail {

/// throws  ConfigError  for a dictionary that writes more than its features do: by a skip path, or a scale of its input
inline void check_writes_features(const DictionaryWeights* dictionary) {
  if (dictionary == nullptr) return;
  const bool scaled = dictionary->input_norm.kind != InputNorm::Kind::none && dictionary->input_norm.undone;
  if (!dictionary->has_skip() && !scaled) return;
  throw ConfigError{{.file = dictionary->name,
                     .tensor = scaled ? "input norm" : "W_skip",
                     .problem = "writes what no edge of a feature carries"}};
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, class Set>
EdgeRun<A, Set>::EdgeRun(const HookedTransformer<A>& model, const Set& dictionaries, const PromptPair& prompts,
                         EdgeRunOptions options)
    : model_{&model}, dictionaries_{&dictionaries}, options_{options} {
  prompts.check();
  refuse_unless_within_layers(
      dictionaries, static_cast<std::int32_t>(model.config().n_layers), "an edge run",
      {.mlp_out = true, .stream = true, .resid_mid = !A::Wiring::parallel, .input_norm = options.norms == Paths::live});
  for (std::int32_t l = 0; l <= model.config().n_layers; ++l) {
    detail::check_writes_features(stream_dictionary(dictionaries, Layer{l}));
    if (l == model.config().n_layers) break;
    detail::check_writes_features(dictionaries.attn(Layer{l}));
    detail::check_writes_features(dictionaries.mlp(Layer{l}));
  }
  clean_ = record_run(prompts.clean);
  corrupt_ = record_run(prompts.corrupt);
  clean_errors_ = error_terms(dictionaries, clean_);
  corrupt_errors_ = error_terms(dictionaries, corrupt_);
}

template <Architecture A, class Set>
auto EdgeRun<A, Set>::record_run(const at::Tensor& tokens) const -> Cache {
  return model_
      ->run(tokens, record<hook::attn::z, hook::attn_out, hook::ln2::normalized, hook::mlp_out, hook::embed,
                           hook::resid_pre, hook::resid_mid, hook::resid_post, hook::attn::pattern, hook::ln1::scale,
                           hook::ln2::scale, hook::ln1_post::scale, hook::ln2_post::scale, hook::ln_final::scale>())
      .cache;
}

/// What a node writes more than in the corrupt run; undefined where that is nothing.
template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::change_of(const Node& node, const Changes& changes) const {
  check_index(node.position, corrupt_.template get<hook::embed>().size(1));
  const auto at_position = [&](const at::Tensor& x) { return x.select(1, node.position.value); };
  if (is_feature(node.kind)) {
    const auto found = changes.find(node);
    return found == changes.end() ? at::Tensor{} : found->second;
  }
  const auto between_runs = [&]<HookPoint P>(P /*point*/) {
    return at_position(clean_.template get<P>(node.layer)).sub(at_position(corrupt_.template get<P>(node.layer)));
  };
  if (node.kind == NodeKind::position_embedding) return {};  // the same in both runs
  if (node.kind == NodeKind::embedding) return between_runs(hook::embed{});
  if (node.kind == NodeKind::attn_output) return between_runs(hook::attn_out{});
  if (node.kind == NodeKind::mlp_output) return between_runs(hook::mlp_out{});
  if (!is_error(node.kind)) {
    throw NameError{{.tensor = to_string(node),
                     .problem = "does not write in an edge run",
                     .expected = "a feature, an error, a module's output or an embedding"}};
  }
  const auto module = detail::module_of(node);
  const auto change =
      at_position(clean_errors_.get(module, node.layer)).sub(at_position(corrupt_errors_.get(module, node.layer)));
  if (module != Module::attn || dictionaries_->attn_site(node.layer) == AttentionSite::attn_out) return change;
  static_cast<void>(write_vectors(*model_, *dictionaries_, module, node.layer, {Feature{0}}));  // refuses post-norms
  return product(change, model_->weights().blocks[static_cast<std::size_t>(node.layer.value)].attn.W_O);
}

/// The corrupt stream with the changes that edges of one type bring.  [batch, pos, d_model]
template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::stream(at::Tensor corrupt, std::span<const ReadEdge> edges, EdgeType type,
                                   const Changes& changes) const {
  bool own = false;
  for (const auto& edge : edges) {
    if (edge.type != type) continue;
    const auto change = change_of(edge.up, changes);
    if (!change.defined()) continue;
    if (!std::exchange(own, true)) corrupt = corrupt.clone();
    corrupt.select(1, edge.up.position.value).add_(change);
  }
  return corrupt;
}

/// What an attention dictionary reads where queries, keys and values come from streams of their own.
/// return  [batch, pos, d_in]
template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::attention_input(Layer layer, const at::Tensor& q, const at::Tensor& k,
                                            const at::Tensor& v) const {
  using Norm = typename A::Norm;
  const auto& config = model_->config();
  const auto& w = model_->weights().blocks[static_cast<std::size_t>(layer.value)];
  const auto normed = [&]<class Scale>(Scale /*point*/, const at::Tensor& x, const NormWeights& weights) {
    return Norm::output(Norm::normalized(x, scale_of<Scale>(layer, x), weights), weights);
  };
  const auto read = [&](const at::Tensor& x) { return normed(hook::ln1::scale{}, x, w.ln1); };
  at::Tensor z;
  const auto visit = [&]<class P>(P /*point*/, at::Tensor& value) {
    if constexpr (std::same_as<P, hook::attn::pattern>) {
      if (options_.patterns == Paths::clean) value = clean_.template get<hook::attn::pattern>(layer);
    }
    if constexpr (std::same_as<P, hook::attn::z>) z = value;
  };
  auto out = attention::forward<typename A::Attention, typename A::Positions>(
      {read(q), read(k), read(v)}, w.attn, config, layer,
      detail::angles_from<typename A::Positions>(Position{0}, q, config), visit);
  if (dictionaries_->attn_site(layer) == AttentionSite::z) return z.flatten(2);
  if constexpr (A::Wiring::post_norms) out = normed(hook::ln1_post::scale{}, out, w.ln1_post);
  return out;
}

/// What an MLP's dictionary reads of a stream.  [batch, pos, d_model]
template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::mlp_input(Layer layer, const at::Tensor& stream) const {
  using Norm = typename A::Norm;
  const auto site = mlp_site(*dictionaries_, layer);
  if (site == MlpSite::resid_mid) return stream;
  const auto& w = model_->weights().blocks[static_cast<std::size_t>(layer.value)];
  const auto read = Norm::normalized(stream, scale_of<hook::ln2::scale>(layer, stream), w.ln2);
  if (site == MlpSite::normalized) return read;
  if constexpr (has_mlp<A>) {
    const auto out = A::Mlp::forward(Norm::output(read, w.ln2), w.mlp, [](auto, at::Tensor&) {});
    if constexpr (A::Wiring::post_norms) {
      const auto scale = scale_of<hook::ln2_post::scale>(layer, out);
      return Norm::output(Norm::normalized(out, scale, w.ln2_post), w.ln2_post);
    }
    return out;
  }
  return read;
}

template <Architecture A, class Set>
void EdgeRun<A, Set>::add_stream_changes(Layer layer, const Reads& targets, Changes& changes) const {
  Changes found;
  for (const auto& [target, reads] : targets) {
    if (target.layer != layer) continue;
    found[target] = written(target, stream(stream_before(layer), reads, EdgeType::resid, changes));
  }
  changes.merge(found);
}

/// What a target writes on an input of its dictionary, less what it wrote in the corrupt run.  [batch, d_model]
template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::written(const Node& target, const at::Tensor& input) const {
  const auto module = detail::module_of(target);
  const auto& dictionary = require_feature(*dictionaries_, {module, target.layer, target.feature});
  const auto index = detail::feature_index({target.feature}, dictionary);
  const auto activation = [&](const at::Tensor& x) {
    const auto row = x.narrow(1, target.position.value, 1);
    return encode(*dictionaries_, module, target.layer, row, index).squeeze(1);
  };
  const auto change = activation(input).sub(activation(input_of(*dictionaries_, corrupt_, module, target.layer)));
  return change.matmul(write_vectors(*model_, *dictionaries_, module, target.layer, {target.feature}));
}

template <Architecture A, class Set>
auto EdgeRun<A, Set>::grouped(std::span<const ReadEdge> edges) const -> Grouped {
  Grouped out;
  const auto reads_of = [&](const Node& feature) -> std::vector<ReadEdge>& {
    check_index(feature.layer, model_->config().n_layers + (is_stream(feature.kind) ? 1 : 0));
    check_index(feature.position, corrupt_.template get<hook::embed>().size(1));
    if (is_stream(feature.kind)) return out.stream[feature];
    return (is_attention(feature.kind) ? out.attn : out.mlp)[feature];
  };
  std::set<ReadEdge> seen;  // the last stream is one, whatever the output, and no node adds to a stream twice
  for (const auto& edge : edges) {
    const bool into_output = is_output(edge.down.kind);
    if (!reads_by(edge.down.kind, edge.type) || !(into_output || is_feature(edge.down.kind))) {
      throw NameError{{.tensor = to_string(edge.down),
                       .problem = "is no target of such an edge in an edge run",
                       .got = std::string{name(edge.type)} + " from " + to_string(edge.up)}};
    }
    if (is_feature(edge.up.kind)) static_cast<void>(reads_of(edge.up));  // it computes, whoever reaches it
    const ReadEdge read{edge.up, into_output ? Node::metric() : edge.down, edge.type};
    if (seen.insert(read).second) (into_output ? out.last : reads_of(edge.down)).push_back(read);
  }
  return out;
}

template <Architecture A, class Set>
at::Tensor EdgeRun<A, Set>::logits(std::span<const ReadEdge> edges) const {
  const c10::AutoGradMode no_gradient{false};
  const auto [attn, mlp, of_stream, last] = grouped(edges);
  Changes changes;
  for (std::int32_t l = 0; l < model_->config().n_layers; ++l) {
    const Layer layer{l};
    add_stream_changes(layer, of_stream, changes);
    Changes found;  // targets of one module do not read each other
    const auto& pre = corrupt_.template get<hook::resid_pre>(layer);
    for (const auto& [target, reads] : attn) {
      if (target.layer != layer) continue;
      const auto by = [&, &from = reads](EdgeType type) { return stream(pre, from, type, changes); };
      found[target] = written(target, attention_input(layer, by(EdgeType::q), by(EdgeType::k), by(EdgeType::ov)));
    }
    if constexpr (!A::Wiring::parallel) changes.merge(std::exchange(found, {}));
    for (const auto& [target, reads] : mlp) {
      if (target.layer != layer) continue;
      found[target] = written(target, mlp_input(layer, stream(mlp_stream(layer), reads, EdgeType::mlp, changes)));
    }
    changes.merge(found);
  }
  add_stream_changes(Layer{static_cast<std::int32_t>(model_->config().n_layers)}, of_stream, changes);
  const Layer top{static_cast<std::int32_t>(model_->config().n_layers) - 1};
  const auto resid = stream(corrupt_.template get<hook::resid_post>(top), last, EdgeType::metric, changes);
  const auto cap = model_->config().logit_soft_cap;
  if (options_.norms == Paths::live) return soft_cap(model_->unembed(resid), cap);
  const auto held = freeze_at<hook::ln_final::scale>(clean_);
  return soft_cap(model_->unembed(resid, held), cap);
}

}  // namespace circuit
