#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/linear/carry.hpp"
#include "circuit/linear/direct_effects.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/pull_back.hpp"
#include "circuit/linear/sources.hpp"
#include "circuit/linear/stream_constants.hpp"
#include "circuit/search/chain.hpp"
#include "circuit/search/leap/constant_sums.hpp"
#include "circuit/search/leap/error_readers.hpp"
#include "circuit/search/leap/found_edges.hpp"
#include "circuit/search/leap/kept_pairs.hpp"
#include "circuit/search/leap/node_values.hpp"
#include "circuit/search/leap/readers.hpp"
#include "circuit/search/targets.hpp"

namespace circuit::detail {

/// One run of a search: what it has learned so far.
template <class Policies, Architecture A, Dictionaries Set>
class LeapRun {
 public:
  LeapRun(const Policies& policies, const HookedTransformer<A>& model, const Set& dictionaries, Linearization lin)
      : policies_{policies},
        model_{model},
        dictionaries_{dictionaries},
        lin_{std::move(lin)},
        pull_back_{model, lin_.run, policies.softmax, policies.scales},
        sources_{Sources::pack(model, dictionaries, lin_, policies.contrast, policies.sources)},
        constants_{lin_, contrasts},
        found_{sources_.batch()} {
    if (const auto* moves =
            policies.scales == Scales::live
                ? normalizing_dictionary(dictionaries, static_cast<std::int32_t>(model.config().n_layers))
                : nullptr) {
      throw ConfigError{{.file = moves->name,
                         .tensor = "Scales::live",
                         .problem = "is not there for dictionaries that normalise what they read",
                         .hint = "use Scales::frozen"}};
    }
    if constexpr (!chains_by_edges) {
      outputs_ = policies.chain.gradients(model, dictionaries, lin_, pull_back_, policies.attention);
    }
  }

  void metric_step();
  /// What is explained, its state set on every prompt, and d target / d last residual stream, at its own position or at
  /// all. constants [batch][targets]  what it reads that depends on no stream
  void output_step(StepTargets targets, std::vector<PromptGradients> gradients,
                   const std::vector<std::vector<double>>& constants);
  void mlp_step(Layer layer);
  void attention_steps(Layer layer);
  void stream_step(Layer layer);
  /// The same where a crosscoder describes the stream: of its features that read upstream, each where it reads.
  void crosscoder_step(const Crosscoder& crosscoder, Layer layer);

  /// The edges into some features of any modules, none of which was a target before.
  void expand(const std::vector<Node>& features);

  /// The edges into the errors of one module at some positions, the last first: the metric's gradient on the error
  /// times how the module, less its dictionary, moves.
  void error_step(NodeKind kind, Layer layer, const std::vector<Position>& positions);

  /// Every upstream node whose own attribution, a mean over prompts, is larger than a threshold.
  [[nodiscard]] std::vector<Node> nodes_above(double threshold) const;

  [[nodiscard]] const FoundEdges& found() const { return found_; }
  [[nodiscard]] FoundEdges& found() { return found_; }
  [[nodiscard]] const Linearization& linearization() const { return lin_; }
  /// also  nodes that are there although no edge is kept at them
  [[nodiscard]] Circuit circuit(const std::vector<Node>& also = {}) const {
    return found_.circuit([this](const Node& node) { return bundle_of(node); }, also);
  }

 private:
  static constexpr bool chains_by_edges = std::remove_cvref_t<decltype(Policies::chain)>::from_edges;
  static constexpr bool contrasts = std::remove_cvref_t<decltype(Policies::contrast)>::needs_corrupt;

  using Pull = Pulled (PullBack<A, decltype(Policies::softmax)>::*)(Layer, Prompt, const at::Tensor&,
                                                                    const at::Tensor&) const;

  [[nodiscard]] std::int32_t batch() const { return sources_.batch(); }
  [[nodiscard]] NodeValues values_of(const Node& node) const;
  [[nodiscard]] const NodeValues* find_path(const Node& node) const {
    const auto found = paths_.find(node);
    return found == paths_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] StepTargets targets_of(NodeKind kind, Layer layer, const ActiveFeatures& features,
                                       const auto& on_targets);
  /// The gradient along what some targets write. on_output [batch, pos, d_model]  writes [targets, d_model]
  /// return  [batch, targets]
  [[nodiscard]] at::Tensor along(const at::Tensor& on_output, const at::Tensor& writes,
                                 const StepTargets& targets) const {
    return on_output.index_select(1, targets.position_tensor().to(model_.device())).mul(writes).sum(-1);
  }
  void steps(StepTargets targets, const auto& read, Layer layer, std::int64_t depth,
             std::initializer_list<std::pair<EdgeType, Pull>> pulls);
  void keep(EdgeType type, const StepTargets& targets, const DirectEffects& effects);
  void add_edge(EdgeType type, const StepTargets& targets, std::int64_t target, const Node& up,
                const std::vector<DirectEffects::Effect>& effects);
  [[nodiscard]] NodeBundle bundle_of(const Node& node) const;

  const Policies& policies_;
  const HookedTransformer<A>& model_;
  const Set& dictionaries_;
  Linearization lin_;
  PullBack<A, decltype(Policies::softmax)> pull_back_;
  Sources sources_;
  StreamConstants constants_;
  OutputGradients outputs_;  // of the chain rule, unless it works from edges
  TargetSet frontier_;
  std::unordered_map<Node, NodeValues> paths_;  // sums over outgoing kept edges; chains from edges only
  FoundEdges found_;
};

/// Effect of the metric's own gradient at every position of the last residual stream.
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::metric_step() {
  auto targets = StepTargets::metric(batch(), lin_.length() - 1);
  std::vector<PromptGradients> gradients;
  std::vector<std::vector<double>> constants;
  for (std::int32_t b = 0; b < batch(); ++b) {
    gradients.push_back({Prompt{b}, {0}, lin_.gradients.last.narrow(0, b, 1)});
    targets.at(Prompt{b}, 0).activation = lin_.metric[b].template item<double>();
    constants.push_back({lin_.metric_constant[b].template item<double>()});
  }
  output_step(std::move(targets), std::move(gradients), constants);
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::output_step(StepTargets targets, std::vector<PromptGradients> gradients,
                                            const std::vector<std::vector<double>>& constants) {
  const auto range = upstream_of(dictionaries_, end_depth(model_.config().n_layers));
  const auto positions = targets.position_tensor();
  const bool spans = gradients.front().grad.dim() == 3 || transparent_below(dictionaries_, range);
  DirectEffects effects{sources_, targets.positions(), spans, range};
  ConstantSums sums{targets.size()};
  for (auto& g : gradients) {
    if (spans && g.grad.dim() == 2) g.grad = at_positions(g.grad, positions.to(g.grad.device()), lin_.length());
    for (std::int64_t t = 0; t < targets.size(); ++t) {
      const auto& own = constants[static_cast<std::size_t>(g.prompt.value)];
      if constexpr (!contrasts)
        sums.bias[static_cast<std::size_t>(t)].add(own[static_cast<std::size_t>(t)], targets.at(g.prompt, t));
    }
  }
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    TargetState mean{1, 0, 0};
    for (std::int32_t b = 0; b < batch(); ++b) {
      mean.nodegrad += targets.at(Prompt{b}, t).nodegrad / batch();
      mean.activation += targets.at(Prompt{b}, t).activation / batch();
    }
    found_.explain(targets.node(t), mean);
  }
  const auto carried = carry(pull_back_, dictionaries_, std::move(gradients), range, positions);
  add_constants(carried, range, targets, lin_, constants_, contrasts, sums);
  effects.multiply(carried);
  keep(EdgeType::metric, targets, effects);
  found_.add_biases(EdgeType::metric, targets, sums);
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::expand(const std::vector<Node>& features) {
  for (const auto& node : features) frontier_.insert(node);
  const auto layers = static_cast<std::int32_t>(model_.config().n_layers);
  stream_step(Layer{layers});
  for (auto l = layers - 1; l >= 0; --l) {
    mlp_step(Layer{l});
    attention_steps(Layer{l});
    stream_step(Layer{l});
  }
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::mlp_step(Layer layer) {
  const auto* dictionary = dictionaries_.mlp(layer);
  if (dictionary == nullptr) return;
  const auto slot = static_cast<std::size_t>(layer.value);
  auto targets = targets_of(
      NodeKind::mlp_feature, layer, lin_.clean.mlp[slot].features, [&](const at::Tensor& ids, const StepTargets& of) {
        auto sum = along(on_writes(outputs_.mlp_out[slot], lin_.clean.mlp[slot]),
                         mlp_writes(model_, dictionaries_, layer, ids), of);
        for (std::int64_t ahead = 1; ahead <= dictionary->later_layers(); ++ahead) {
          const auto& on_output = outputs_.mlp_out[slot + static_cast<std::size_t>(ahead)];
          sum = sum.add(along(on_output, mlp_writes(model_, dictionaries_, layer, ids, ahead), of));
        }
        return sum;
      });
  if (targets.size() == 0) return;
  const auto ids = targets.features().to(model_.device());
  const auto search = [&](const auto& read) {
    steps(std::move(targets), read, layer, mlp_depth<A>(layer),
          {{EdgeType::mlp, pull_back_.from_mlp(mlp_site(dictionaries_, layer))}});
  };
  if constexpr (ReadsAtInput<Set>) {
    targets.set_constant(make::zeros({targets.size()}));  // theirs differs by prompt and position too
    search([&](Prompt b, const at::Tensor& rows, const at::Tensor& positions) {
      const auto x = lin_.run.template get<hook::ln2::normalized>(layer).select(0, b.value).index_select(0, positions);
      auto at_input = dictionaries_.mlp_readers(layer, x, ids.index_select(0, rows));
      return Pulled{std::move(at_input.readers), std::move(at_input.constant)};
    });
  } else {
    targets.set_constant(dictionary_constant(*dictionary, ids));
    search(by_row(dictionary->input_readers(ids), lin_.clean.mlp[slot]));
  }
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::attention_steps(Layer layer) {
  const auto* dictionary = dictionaries_.attn(layer);
  if (dictionary == nullptr) return;
  const auto slot = static_cast<std::size_t>(layer.value);
  auto targets = targets_of(NodeKind::attn_feature, layer, lin_.clean.attn[slot].features,
                            [&](const at::Tensor& ids, const StepTargets& of) {
                              return along(on_writes(outputs_.attn_out[slot], lin_.clean.attn[slot]),
                                           attn_writes(model_, dictionaries_, layer, ids), of);
                            });
  if (targets.size() == 0) return;
  const auto ids = targets.features().to(model_.device());
  auto readers = dictionary->input_readers(ids);
  targets.set_constant(dictionary_constant(*dictionary, ids));
  at::Tensor constant;
  const auto search = [&](const auto& read) {
    using P = decltype(pull_back_);
    if (policies_.attention == AttentionPaths::all) {
      steps(std::move(targets), read, layer, attn_depth(layer),
            {{EdgeType::ov, &P::values}, {EdgeType::q, &P::queries}, {EdgeType::k, &P::keys}});
    } else {
      steps(std::move(targets), read, layer, attn_depth(layer), {{EdgeType::ov, &P::values}});
    }
  };
  if (dictionaries_.attn_site(layer) == AttentionSite::attn_out) {
    if constexpr (A::Wiring::post_norms) {  // what a feature reads of hook_z then differs by prompt and position
      const auto at_output = by_row(readers, lin_.clean.attn[slot]);
      return search([&](Prompt b, const at::Tensor& rows, const at::Tensor& positions) {
        return pull_back_.output(layer, b, at_output(b, rows, positions).grad, positions);
      });
    } else {
      auto through = pull_back_.output(layer, Prompt{0}, readers, {});
      readers = std::move(through.grad);
      constant = std::move(through.constant);
    }
  }
  search(by_row(readers, lin_.clean.attn[slot], constant));
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::stream_step(Layer layer) {
  const auto* dictionary = stream_dictionary(dictionaries_, layer);
  if (dictionary == nullptr) return;
  if (const auto* across = crosscoder_of(dictionaries_, layer)) return crosscoder_step(*across, layer);
  const auto slot = static_cast<std::size_t>(layer.value);
  auto targets = targets_of(NodeKind::resid_feature, layer, lin_.clean.stream[slot].features,
                            [&](const at::Tensor& ids, const StepTargets& of) {
                              return along(on_writes(outputs_.stream[slot], lin_.clean.stream[slot]),
                                           dictionary->decoder_rows(ids), of);
                            });
  if (targets.size() == 0) return;
  const auto ids = targets.features().to(model_.device());
  targets.set_constant(dictionary_constant(*dictionary, ids));
  using P = decltype(pull_back_);
  steps(std::move(targets), by_row(dictionary->input_readers(ids), lin_.clean.stream[slot]), layer, stream_depth(layer),
        {{EdgeType::resid, &P::stream}});
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::crosscoder_step(const Crosscoder& crosscoder, Layer layer) {
  const auto slot = static_cast<std::size_t>(layer.value);
  const auto& state = lin_.clean.stream[slot];
  const auto all =
      targets_of(NodeKind::resid_feature, layer, state.features, [&](const at::Tensor& ids, const StepTargets& of) {
        return along(outputs_.stream[slot], stream_dictionary(dictionaries_, layer)->decoder_rows(ids), of);
      });
  using P = decltype(pull_back_);
  std::int64_t first = 0;
  for (const auto& part : crosscoder.parts) {
    const auto& d = part.dictionary;
    auto targets = all.within(first, d.d_sae());
    if (part.causal() && targets.size() > 0) {
      const auto ids = targets.features().sub(first).to(model_.device());
      const auto readers = d.readers(ids);
      targets.set_constant(dictionary_constant(d, ids));
      const auto width = crosscoder.d_model();
      for (std::size_t i = 0; i < part.reads.size(); ++i) {
        const auto rows = found_.biases();
        steps(targets, by_row(readers.narrow(1, static_cast<std::int64_t>(i) * width, width), state), part.reads[i],
              stream_depth(part.reads[i]), {{EdgeType::resid, &P::stream}});
        if (i > 0) found_.join_biases(rows);  // of all the layers that a target reads
        targets.set_constant(make::zeros({targets.size()}, at::kDouble));
      }
    }
    first += d.d_sae();
  }
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::error_step(NodeKind kind, Layer layer, const std::vector<Position>& positions) {
  std::vector<Node> nodes;
  for (const auto position : positions) nodes.push_back({kind, layer, position, Feature{0}});
  StepTargets targets{std::move(nodes), batch()};
  for (std::int32_t b = 0; b < batch(); ++b) {
    for (std::int64_t t = 0; t < targets.size(); ++t)
      targets.at(Prompt{b}, t) = {.slope = 1, .nodegrad = 1, .activation = 1};
  }
  targets.set_constant(make::zeros({targets.size()}, at::kDouble));
  using P = decltype(pull_back_);
  const auto slot = static_cast<std::size_t>(layer.value);
  if (kind == NodeKind::mlp_error) {
    steps(std::move(targets),
          by_position(mlp_error_readers(model_, dictionaries_, lin_, layer, outputs_.mlp_out[slot])), layer,
          mlp_depth<A>(layer), {{EdgeType::mlp, pull_back_.from_mlp(mlp_site(dictionaries_, layer))}});
  } else if (kind == NodeKind::resid_error) {
    steps(std::move(targets), by_position(stream_error_readers(dictionaries_, lin_, layer, outputs_.stream[slot])),
          layer, stream_depth(layer), {{EdgeType::resid, &P::stream}});
  } else {
    steps(std::move(targets),
          by_position(attn_error_readers(dictionaries_, lin_, pull_back_, layer, outputs_.attn_out[slot])), layer,
          attn_depth(layer), {{EdgeType::ov, &P::values}, {EdgeType::q, &P::queries}, {EdgeType::k, &P::keys}});
  }
}

template <class Policies, Architecture A, Dictionaries Set>
std::vector<Node> LeapRun<Policies, A, Set>::nodes_above(double threshold) const {
  std::vector<Node> out;
  const auto add = [&](const std::vector<Node>& nodes) {
    for (const auto& node : nodes) {
      double sum = 0;
      for (const auto value : values_of(node).attribution) sum += value / batch();
      if (std::abs(sum) > threshold) out.push_back(node);
    }
  };
  for (std::int32_t p = 0; p < sources_.length(); ++p) {
    add(sources_.at(Position{p}).features);
    add(sources_.at(Position{p}).rest);
  }
  return out;
}

/// The features of one module that are targets, with their state on every prompt.
/// on_targets(ids, targets)  the metric's gradient by each one's activation, unless the chain rule works from edges
template <class Policies, Architecture A, Dictionaries Set>
StepTargets LeapRun<Policies, A, Set>::targets_of(NodeKind kind, Layer layer, const ActiveFeatures& features,
                                                  const auto& on_targets) {
  policies_.targets.add(frontier_, kind, layer, features, lin_.length());
  auto targets = frontier_.take(kind, layer, features, batch(), lin_.length());
  if (targets.size() == 0) return targets;
  if constexpr (chains_by_edges) {
    for (std::int64_t t = 0; t < targets.size(); ++t) {
      const auto* path = find_path(targets.node(t));
      if (path == nullptr) continue;  // no kept edge leaves it
      for (std::int32_t b = 0; b < batch(); ++b) {
        targets.at(Prompt{b}, t).nodegrad = path->nodegrad[static_cast<std::size_t>(b)];
      }
    }
  } else {
    const at::Tensor nodegrads = on_targets(targets.features().to(model_.device()), targets);
    const auto host = nodegrads.to(at::kCPU, at::kDouble).contiguous();  // [batch, targets]
    for (std::int32_t b = 0; b < batch(); ++b) {
      for (std::int64_t t = 0; t < targets.size(); ++t) {
        targets.at(Prompt{b}, t).nodegrad = element(host, b, t);
      }
    }
  }
  return targets;
}

/// Edges of every type into some targets of one module: with one prompt all types' products at once, which takes little
/// more time than one type's; with several, one type after another, as they take memory.
/// read(prompt, rows, positions)  what some of the targets read, and what constants between them and that give
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::steps(StepTargets targets, const auto& read, Layer layer, std::int64_t depth,
                                      std::initializer_list<std::pair<EdgeType, Pull>> pulls) {
  const auto range = upstream_of(dictionaries_, depth);
  struct TypeStep {
    EdgeType type;
    DirectEffects effects;
    ConstantSums sums;
    std::vector<CarriedGradients> carried;
  };
  std::vector<TypeStep> waiting;
  const auto finish = [&] {
    std::vector<DirectEffects*> effects;
    std::vector<const std::vector<CarriedGradients>*> carried;
    for (auto& step : waiting) {
      effects.push_back(&step.effects);
      carried.push_back(&step.carried);
    }
    if (!waiting.empty()) DirectEffects::multiply(effects, carried);
    for (const auto& step : waiting) {
      keep(step.type, targets, step.effects);
      found_.add_biases(step.type, targets, step.sums);
    }
    waiting.clear();
  };
  for (const auto& [type, pull] : pulls) {
    const bool spreads = type == EdgeType::ov || type == EdgeType::k;
    const bool spans = spreads || transparent_below(dictionaries_, range);
    ConstantSums sums{targets.size()};
    std::vector<PromptGradients> gradients;
    for (std::int32_t b = 0; b < batch(); ++b) {
      const auto active = targets.active(Prompt{b});
      if (active.empty()) continue;
      const auto rows = ids_tensor(active).to(model_.device());
      const auto positions = targets.position_tensor().to(model_.device()).index_select(0, rows);
      const auto readers = read(Prompt{b}, rows, positions);
      auto pulled = (pull_back_.*pull)(layer, Prompt{b}, readers.grad, positions);
      if (spans && !spreads) pulled.grad = at_positions(pulled.grad, positions, lin_.length());
      gradients.push_back({Prompt{b}, active, pulled.grad});
      if constexpr (!contrasts) {
        // The dictionary's own bias, and what stands between it and hook_z, is read once, with the values.
        const bool with_bias = type != EdgeType::q && type != EdgeType::k;
        if (with_bias && readers.constant.defined()) pulled.constant = pulled.constant.add(readers.constant);
        add_values(active, pulled.constant, Prompt{b}, targets, sums.bias,
                   [&](std::int64_t t) { return with_bias ? targets.constant(t) : 0.0; });
        if (pulled.remainder.defined()) add_values(active, pulled.remainder, Prompt{b}, targets, sums.remainder);
      }
    }
    if (gradients.empty()) continue;
    auto carried = carry(pull_back_, dictionaries_, std::move(gradients), range, targets.position_tensor());
    add_constants(carried, range, targets, lin_, constants_, contrasts, sums);
    waiting.push_back({type, {sources_, targets.positions(), spans, range}, std::move(sums), std::move(carried)});
    if (batch() > 1) finish();
  }
  finish();
}

/// Turns what the policy keeps into edges.
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::keep(EdgeType type, const StepTargets& targets, const DirectEffects& effects) {
  const auto kept = kept_pairs(policies_, type, targets, effects, batch());
  const auto* pair = data_of<std::int64_t>(kept);
  for (std::int64_t i = 0; i < kept.size(0); ++i, pair += 2) {
    const auto place = effects.place(pair[0], pair[1]);
    if (place.index < 0) continue;
    const auto found = effects.effects(pair[0], place);
    if (!found.empty()) add_edge(type, targets, pair[0], effects.node(place), found);
  }
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::add_edge(EdgeType type, const StepTargets& targets, std::int64_t target, const Node& up,
                                         const std::vector<DirectEffects::Effect>& effects) {
  Edge edge{.type = type, .nn_grad = 0, .nn_attrib = 0, .em_grad = 0, .em_attrib = 0, .prompts = 0};
  NodeValues* path = nullptr;
  if constexpr (chains_by_edges) path = &paths_.try_emplace(up, batch()).first->second;
  const double share = 1.0 / batch();
  for (const auto& e : effects) {
    const auto& state = targets.at(e.prompt, target);
    const double chained = state.nodegrad * state.slope;
    edge.nn_grad += share * e.grad;
    edge.nn_attrib += share * e.attrib;
    edge.em_grad += share * chained * e.grad;
    edge.em_attrib += share * chained * e.attrib;
    edge.prompts += policies_.keep.passes(policies_.score.score(e.attrib, state)) ? 1 : 0;
    if (path != nullptr) {
      path->nodegrad[static_cast<std::size_t>(e.prompt.value)] += chained * e.grad;
      path->attribution[static_cast<std::size_t>(e.prompt.value)] += chained * e.attrib;
    }
  }
  found_.add({up, targets.node(target), edge});
  if (is_feature(up.kind)) policies_.targets.reached(frontier_, up);
}

/// From the edges that leave a node, or from the gradient on the output that it is part of.
template <class Policies, Architecture A, Dictionaries Set>
NodeValues LeapRun<Policies, A, Set>::values_of(const Node& node) const {
  if constexpr (chains_by_edges) {
    const auto* path = find_path(node);
    return path != nullptr ? *path : NodeValues{batch()};
  } else {
    return values_by_gradient(node, outputs_, sources_);
  }
}

template <class Policies, Architecture A, Dictionaries Set>
NodeBundle LeapRun<Policies, A, Set>::bundle_of(const Node& node) const {
  const auto values = values_of(node);
  NodeBundle out{
      .node = node, .activation = 1, .contrast_activation = contrasts ? 1.0 : 0.0, .attribution = 0, .nodegrad = 0};
  if (is_feature(node.kind)) {
    out.activation = mean_activation(lin_.clean, node, batch(), lin_.length());
    if constexpr (contrasts) out.contrast_activation = mean_activation(lin_.corrupt, node, batch(), lin_.length());
  }
  for (std::size_t b = 0; b < values.nodegrad.size(); ++b) {
    out.nodegrad += values.nodegrad[b] / batch();
    out.attribution += values.attribution[b] / batch();
  }
  return out;
}

}  // namespace circuit::detail
