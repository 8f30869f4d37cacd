#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/progress.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/linear/direct_effects.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/modules.hpp"
#include "circuit/linear/pull_back.hpp"
#include "circuit/linear/sources.hpp"
#include "circuit/search/batching.hpp"
#include "circuit/search/chain.hpp"
#include "circuit/search/contrast.hpp"
#include "circuit/search/edge_scores.hpp"
#include "circuit/search/keep/above.hpp"
#include "circuit/search/keep/any_rule.hpp"
#include "circuit/search/score.hpp"
#include "circuit/search/targets.hpp"

namespace circuit {

/// Prompts as tensors [batch, pos] of int64; `corrupt` undefined where a search has no use for it.
struct PromptTensors {
  at::Tensor clean{};
  at::Tensor corrupt{};

  PromptTensors() = default;
  PromptTensors(at::Tensor clean_tokens, at::Tensor corrupt_tokens)
      : clean{std::move(clean_tokens)}, corrupt{std::move(corrupt_tokens)} {}
  PromptTensors(const ContrastBatch& batch)  // NOLINT(google-explicit-constructor): a batch is its prompts
      : clean{to_tokens(batch.clean)}, corrupt{to_tokens(batch.corrupt)} {}
};

/// Linear edge attribution patching with sparse features: from the metric downwards, the direct effect of every upstream
/// feature, error and embedding on each target, through frozen scales and patterns (ov, mlp, metric) or through the
/// exact softmax (q, k). Each policy answers one question; docs/leap.md lists the answers there are.
/// source  circuit-finder's LEAP; docs/leap.md says where its formulas are corrected
template <KeepRule Keep = keep::Above, ChainRule Chain = chain::ModelGradient, ContrastRule Contrast = contrast::Signed,
          BatchRule Batching = batching::Exact, ScoreRule Score = score::Chained, TargetRule Targets = targets::FromKept,
          SoftmaxJacobian Softmax = softmax::Exact, FinalNorm Final = final_norm::Frozen,
          ModuleRule Modules = modules::ReadElseOpaque>
struct Leap {
  [[no_unique_address]] Keep keep{};          ///< which edges stay
  [[no_unique_address]] Chain chain{};        ///< how a target's effect on the metric is known
  [[no_unique_address]] Contrast contrast{};  ///< what an upstream activation counts for
  [[no_unique_address]] Batching batching{};  ///< whether prompts are averaged before or after the products
  [[no_unique_address]] Score score{};        ///< which attribution decides
  [[no_unique_address]] Targets targets{};    ///< which features become targets
  [[no_unique_address]] Softmax softmax{};    ///< how scores move the pattern
  [[no_unique_address]] Final final_norm{};   ///< whether the final scale moves
  [[no_unique_address]] Modules modules{};    ///< which modules are read, opaque or transparent
  AttentionPaths attention = AttentionPaths::all;  ///< whether q and k edges are searched
  SourceOptions sources{};                         ///< which nodes besides features count as upstream
  std::stop_token stop{};        ///< read once per layer

  /// return  the kept edges with nn and em gradients and attributions, means over prompts
  /// throws  Cancelled, ShapeError, IndexError, ValueError (empty batch, NaN), ConfigError, DTypeError
  template <Architecture A, Dictionaries Set, Metric M, Observer... Observers>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                   const PromptTensors& prompts, const M& metric, Observers&&... observers) const;
};

/// The Python seed's behaviour where it is a choice and not a defect: averages first, keeps positive chained attributions
/// clipped at their target's own, and counts no negative contrast.
using SeedLeap = Leap<keep::PositiveAbove, chain::ModelGradient, contrast::Positive, batching::MeanFirst,
                      score::ChainedClipped>;
[[nodiscard]] inline SeedLeap seed_policies(double threshold) { return {.keep = {.threshold = threshold}}; }

}  // namespace circuit

namespace circuit::detail {

/// Gradients at one position each as gradients at every position.
/// grad [n, d_model]  positions [n] int64  return [n, length, d_model]
[[nodiscard]] inline at::Tensor at_positions(const at::Tensor& grad, const at::Tensor& positions, std::int64_t length) {
  const auto place = positions.view({-1, 1, 1}).expand({grad.size(0), 1, grad.size(1)});
  return make::zeros({grad.size(0), length, grad.size(1)}, grad.options()).scatter(1, place, grad.unsqueeze(1));
}

/// Where a node stands among those of its position, which lie by depth and feature.
[[nodiscard]] inline std::ptrdiff_t index_of(const std::vector<Node>& nodes, const Node& node) {
  const auto place = [](const Node& n) { return std::pair{depth(n), n}; };
  return std::ranges::lower_bound(nodes, place(node), {}, place) - nodes.begin();
}

/// What constants give the targets of one step, summed over prompts.
struct ConstantSums {
  explicit ConstantSums(std::int64_t targets) : bias(static_cast<std::size_t>(targets)), map{bias} {}

  struct Sum {
    double nn = 0;
    double em = 0;

    void add(double value, const TargetState& target) {
      nn += value;
      em += target.nodegrad * target.slope * value;
    }
  };
  std::vector<Sum> bias;
  std::vector<Sum> map;  // only with contrast
};

/// What a node is worth on every prompt.
struct NodeValues {
  explicit NodeValues(std::int32_t batch) : nodegrad(static_cast<std::size_t>(batch), 0.0), attribution{nodegrad} {}

  std::vector<double> nodegrad;     // d metric / d activation
  std::vector<double> attribution;  // by its (contrasted) activation or vector
};

/// One run of a search: what it has learned so far.
template <class Policies, Architecture A, Dictionaries Set>
class LeapRun {
 public:
  LeapRun(const Policies& policies, const HookedTransformer<A>& model, const Set& dictionaries, Linearization lin)
      : policies_{policies},
        model_{model},
        dictionaries_{dictionaries},
        lin_{std::move(lin)},
        pull_back_{model, lin_.run, policies.softmax},
        sources_{Sources::pack(model, dictionaries, lin_, policies.contrast, policies.sources)} {
    using Chain = decltype(policies.chain);
    if constexpr (!std::remove_cvref_t<Chain>::from_edges) {
      outputs_ = policies.chain.gradients(model, dictionaries, lin_, pull_back_, policies.attention);
    }
    accumulate_constants();
  }

  void metric_step();
  void mlp_step(Layer layer);
  void attention_steps(Layer layer);

  [[nodiscard]] std::size_t edge_count() const { return edges_.size(); }
  [[nodiscard]] Circuit circuit() &&;

 private:
  static constexpr bool chains_by_edges = std::remove_cvref_t<decltype(Policies::chain)>::from_edges;
  static constexpr bool contrasts = std::remove_cvref_t<decltype(Policies::contrast)>::needs_corrupt;

  struct KeptEdge {
    Node up;
    Node down;
    Edge edge;
  };
  using Pull = Pulled (PullBack<A, decltype(Policies::softmax)>::*)(Layer, Prompt, const at::Tensor&, const at::Tensor&)
      const;

  [[nodiscard]] std::int32_t batch() const { return sources_.batch(); }
  void accumulate_constants();
  [[nodiscard]] NodeValues values_of(const Node& node) const;
  [[nodiscard]] const NodeValues* find_path(const Node& node) const {
    const auto found = paths_.find(node);
    return found == paths_.end() ? nullptr : &found->second;
  }
  [[nodiscard]] StepTargets targets_of(NodeKind kind, Layer layer, const ActiveFeatures& features,
                                       const at::Tensor& writes_gradient, const auto& writes);
  /// Readers that are the same on every prompt and at every position.
  [[nodiscard]] static auto by_row(const at::Tensor& readers) {
    return [readers](Prompt, const at::Tensor& rows, const at::Tensor& /*positions*/) {
      return Pulled{readers.index_select(0, rows), {}};
    };
  }
  /// The gradient on a module's output as one on its write vectors, [batch, pos, d_model].
  [[nodiscard]] static at::Tensor on_writes(const at::Tensor& grad, const ModuleState& module) {
    return module.write_scale.defined() ? grad.div(module.write_scale) : grad;
  }
  void steps(StepTargets targets, const auto& read, Layer layer, std::int64_t depth,
             std::initializer_list<std::pair<EdgeType, Pull>> pulls);
  [[nodiscard]] bool transparent_below(std::int64_t depth) const;
  [[nodiscard]] std::vector<CarriedGradients> carry(std::vector<PromptGradients> gradients, std::int64_t depth,
                                                    const StepTargets& targets) const;
  [[nodiscard]] bool pass_layer(std::vector<PromptGradients>& gradients, Layer layer, std::int64_t from,
                                const StepTargets& targets) const;
  void sum_constants(const std::vector<CarriedGradients>& carried, std::int64_t depth, const StepTargets& targets,
                     ConstantSums& sums) const;
  [[nodiscard]] at::Tensor along_constant(const at::Tensor& constant, const PromptGradients& g,
                                          const StepTargets& targets) const;
  void keep(EdgeType type, const StepTargets& targets, const DirectEffects& effects);
  void add_edge(EdgeType type, const StepTargets& targets, std::int64_t target, const Node& up,
                const std::vector<DirectEffects::Effect>& effects);
  void add_bias(EdgeType type, const StepTargets& targets, const ConstantSums& sums);
  [[nodiscard]] NodeBundle bundle_of(const Node& node) const;
  [[nodiscard]] std::pair<double, double> activations_of(const Node& node) const;

  const Policies& policies_;
  const HookedTransformer<A>& model_;
  const Set& dictionaries_;
  Linearization lin_;
  PullBack<A, decltype(Policies::softmax)> pull_back_;
  Sources sources_;
  OutputGradients outputs_;            // of the chain rule, unless it works from edges
  std::vector<at::Tensor> constants_;  // by depth: sum of the constants that modules before it write
  TargetSet frontier_;
  std::unordered_map<Node, NodeValues> paths_;  // sums over outgoing kept edges; chains from edges only
  std::vector<KeptEdge> edges_;
  std::vector<BiasRow> biases_;
};

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::accumulate_constants() {
  auto sum = make::zeros({model_.config().d_model}, lin_.clean.embed.options());
  const auto add = [&](const std::vector<ModuleState>& clean, const std::vector<ModuleState>& corrupt, std::size_t l) {
    constants_.push_back(sum);
    const auto& constant = clean[l].constant;
    if (!constant.defined()) return;
    if constexpr (!contrasts) {
      sum = sum.add(constant);
    } else if (constant.dim() > 1) {  // else it is the same in both runs
      sum = sum.add(constant.sub(corrupt[l].constant));
    }
  };
  for (std::size_t l = 0; l < lin_.clean.attn.size(); ++l) {
    add(lin_.clean.attn, lin_.corrupt.attn, l);
    add(lin_.clean.mlp, lin_.corrupt.mlp, l);
  }
  constants_.push_back(sum);
}

/// Effect of the metric's own gradient at every position of the last residual stream.
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::metric_step() {
  const auto depth = 2 * model_.config().n_layers;
  const auto last = lin_.length() - 1;
  auto targets = StepTargets::metric(batch(), last);
  DirectEffects effects{sources_, targets.positions(), /*spans=*/true, depth};
  ConstantSums sums{targets.size()};
  std::vector<PromptGradients> gradients;
  for (std::int32_t b = 0; b < batch(); ++b) {
    gradients.push_back({Prompt{b}, {0}, lin_.gradients.last.narrow(0, b, 1)});
    auto& state = targets.at(Prompt{b}, 0);
    state.activation = lin_.metric[b].template item<double>();
    if constexpr (!contrasts) sums.bias[0].add(lin_.metric_constant[b].template item<double>(), state);
  }
  const auto carried = carry(std::move(gradients), depth, targets);
  sum_constants(carried, depth, targets, sums);
  effects.multiply(carried);
  keep(EdgeType::metric, targets, effects);
  add_bias(EdgeType::metric, targets, sums);
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::mlp_step(Layer layer) {
  const auto* dictionary = dictionaries_.mlp(layer);
  if (dictionary == nullptr) return;
  const auto slot = static_cast<std::size_t>(layer.value);
  auto targets = targets_of(NodeKind::mlp_feature, layer, lin_.clean.mlp[slot].features,
                            chains_by_edges ? at::Tensor{} : outputs_.mlp_out[slot],
                            [&](const at::Tensor& ids) { return mlp_writes(dictionaries_, layer, ids); });
  if (targets.size() == 0) return;
  const auto ids = targets.features().to(model_.device());
  const auto search = [&](const auto& read) {
    steps(std::move(targets), read, layer, mlp_depth<A>(layer), {{EdgeType::mlp, &decltype(pull_back_)::mlp}});
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
    search(by_row(dictionary->readers(ids)));
  }
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::attention_steps(Layer layer) {
  const auto* dictionary = dictionaries_.attn(layer);
  if (dictionary == nullptr) return;
  const auto slot = static_cast<std::size_t>(layer.value);
  auto targets = targets_of(NodeKind::attn_feature, layer, lin_.clean.attn[slot].features,
                            chains_by_edges ? at::Tensor{} : on_writes(outputs_.attn_out[slot], lin_.clean.attn[slot]),
                            [&](const at::Tensor& ids) { return attn_writes(model_, dictionaries_, layer, ids); });
  if (targets.size() == 0) return;
  const auto ids = targets.features().to(model_.device());
  auto readers = dictionary->readers(ids);
  auto constant = dictionary_constant(*dictionary, ids);
  const auto search = [&](const auto& read) {
    targets.set_constant(constant);
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
      return search([&](Prompt b, const at::Tensor& rows, const at::Tensor& positions) {
        return pull_back_.output(layer, b, readers.index_select(0, rows), positions);
      });
    } else {
      auto through = pull_back_.output(layer, Prompt{0}, readers, {});
      readers = std::move(through.grad);
      constant = constant.add(through.constant.to(at::kCPU, at::kDouble));
    }
  }
  search(by_row(readers));
}

/// The features of one module that are targets, with their state on every prompt.
template <class Policies, Architecture A, Dictionaries Set>
StepTargets LeapRun<Policies, A, Set>::targets_of(NodeKind kind, Layer layer, const ActiveFeatures& features,
                                                  const at::Tensor& writes_gradient, const auto& writes) {
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
    const auto w = writes(targets.features().to(model_.device()));
    const auto grads = writes_gradient.index_select(1, targets.position_tensor().to(model_.device()));
    const auto on_targets = grads.mul(w).sum(-1).to(at::kCPU, at::kDouble).contiguous();  // [batch, targets]
    for (std::int32_t b = 0; b < batch(); ++b) {
      for (std::int64_t t = 0; t < targets.size(); ++t) {
        targets.at(Prompt{b}, t).nodegrad = element(on_targets, b, t);
      }
    }
  }
  return targets;
}

/// Edges of every type into some targets of one module.
/// read(prompt, rows, positions)  what some of the targets read, and what constants between them and that give
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::steps(StepTargets targets, const auto& read, Layer layer, std::int64_t depth,
                                      std::initializer_list<std::pair<EdgeType, Pull>> pulls) {
  for (const auto& [type, pull] : pulls) {
    const bool spreads = type == EdgeType::ov || type == EdgeType::k;
    const bool spans = spreads || transparent_below(depth);
    DirectEffects effects{sources_, targets.positions(), spans, depth};
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
        const bool with_bias = type == EdgeType::ov || type == EdgeType::mlp;
        if (with_bias && readers.constant.defined()) pulled.constant = pulled.constant.add(readers.constant);
        const auto own = pulled.constant.to(at::kCPU, at::kDouble).contiguous();
        for (std::size_t r = 0; r < active.size(); ++r) {
          const auto t = active[r];
          sums.bias[static_cast<std::size_t>(t)].add(
              data_of<double>(own)[r] + (with_bias ? targets.constant(t) : 0.0), targets.at(Prompt{b}, t));
        }
      }
    }
    if (gradients.empty()) continue;
    const auto carried = carry(std::move(gradients), depth, targets);
    sum_constants(carried, depth, targets, sums);
    effects.multiply(carried);
    keep(type, targets, effects);
    add_bias(type, targets, sums);
  }
}

template <class Policies, Architecture A, Dictionaries Set>
bool LeapRun<Policies, A, Set>::transparent_below(std::int64_t depth) const {
  for (std::int32_t l = 0; l < model_.config().n_layers && attn_depth(Layer{l}) < depth; ++l) {
    if (has_transparent_attention(dictionaries_, Layer{l})) return true;
  }
  return false;
}

/// The gradients of some targets at every depth below theirs: what passes on through transparent attention and skip
/// paths is added.
template <class Policies, Architecture A, Dictionaries Set>
std::vector<CarriedGradients> LeapRun<Policies, A, Set>::carry(std::vector<PromptGradients> gradients,
                                                               std::int64_t depth, const StepTargets& targets) const {
  std::vector<CarriedGradients> carried;
  const auto pass = [&](Layer layer, std::int64_t from) {
    if (from >= depth) return;
    auto below = gradients;
    if (pass_layer(below, layer, from, targets)) carried.push_back({from, std::exchange(gradients, std::move(below))});
  };
  for (auto l = static_cast<std::int32_t>(model_.config().n_layers) - 1; l >= 0; --l) {
    const Layer layer{l};
    if constexpr (!A::Wiring::parallel) pass(layer, mlp_depth<A>(layer));
    pass(layer, attn_depth(layer));
  }
  carried.push_back({0, std::move(gradients)});
  return carried;
}

/// Adds to gradients what passes on through the modules of one layer that read at a depth: in a parallel block both do.
/// return  whether there are any
template <class Policies, Architecture A, Dictionaries Set>
bool LeapRun<Policies, A, Set>::pass_layer(std::vector<PromptGradients>& gradients, Layer layer, std::int64_t from,
                                           const StepTargets& targets) const {
  const bool attention = from == attn_depth(layer) && has_transparent_attention(dictionaries_, layer);
  const bool skip = has_mlp<A> && from == mlp_depth<A>(layer) && has_skip(dictionaries_, layer);
  if (!attention && !skip) return false;
  for (auto& g : gradients) {
    const auto above = g.grad;
    if (attention) g.grad = g.grad.add(pull_back_.attention(layer, g.prompt, above));
    if constexpr (has_mlp<A>) {
      if (!skip) continue;
      const auto positions = targets.position_tensor().index_select(0, ids_tensor(g.target)).to(above.device());
      g.grad = g.grad.add(pull_back_.skip(layer, g.prompt, dictionaries_.mlp(layer)->W_skip, above, positions));
    }
  }
  return true;
}

/// What the modules' constants, and with contrast the change of transparent modules' maps, give the targets.
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::sum_constants(const std::vector<CarriedGradients>& carried, std::int64_t depth,
                                              const StepTargets& targets, ConstantSums& sums) const {
  const bool constants_count = !contrasts || constants_.back().dim() > 1;
  auto above = depth;
  for (std::size_t part = 0; part < carried.size(); ++part) {
    const auto from = carried[part].from;
    const bool last = part + 1 == carried.size();  // below the lowest transparent module
    auto constant = constants_[static_cast<std::size_t>(above)];
    if (!last) constant = constant.sub(constants_[static_cast<std::size_t>(from)]);
    for (const auto& g : carried[part].gradients) {
      const auto add = [&](std::vector<ConstantSums::Sum>& into, const at::Tensor& on_targets) {
        const auto values = on_targets.to(at::kCPU, at::kDouble).contiguous();
        for (std::size_t r = 0; r < g.target.size(); ++r) {
          const auto t = g.target[r];
          into[static_cast<std::size_t>(t)].add(data_of<double>(values)[r], targets.at(g.prompt, t));
        }
      };
      if (constants_count) add(sums.bias, along_constant(constant, g, targets));
      if constexpr (contrasts) {
        if (last) continue;
        add(sums.map, along_constant(lin_.map_change[static_cast<std::size_t>(from)], g, targets));
      }
    }
    above = from;
  }
}

/// What a constant of the stream, [d_model] or [batch, pos, d_model], gives the targets of one prompt.
template <class Policies, Architecture A, Dictionaries Set>
at::Tensor LeapRun<Policies, A, Set>::along_constant(const at::Tensor& constant, const PromptGradients& g,
                                                     const StepTargets& targets) const {
  const bool spans = g.grad.dim() == 3;
  if (constant.dim() == 1) return (spans ? g.grad.sum(1) : g.grad).matmul(constant);
  const auto here = constant.select(0, g.prompt.value);
  if (spans) return g.grad.mul(here).sum(-1).sum(-1);
  const auto positions = targets.position_tensor().index_select(0, ids_tensor(g.target)).to(here.device());
  return g.grad.mul(here.index_select(0, positions)).sum(-1);
}

/// Scores every candidate, lets the policy decide, and turns what it kept into edges.
template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::keep(EdgeType type, const StepTargets& targets, const DirectEffects& effects) {
  const auto shape = std::vector<std::int64_t>{effects.targets(), effects.columns()};
  EdgeScores scores{.type = type, .mean = make::zeros(shape, at::kDouble), .passed = {}, .prompts = batch()};
  auto* mean = scores.mean.template data_ptr<double>();
  std::int32_t* passed = nullptr;
  if (policies_.keep.needs_counts()) {
    scores.passed = make::zeros(shape, at::kInt);
    passed = scores.passed.template data_ptr<std::int32_t>();
  }
  const double share = 1.0 / batch();
  const auto columns = effects.columns();
  effects.for_each([&](Prompt b, std::int64_t target, std::int64_t column, double attrib) {
    const double value = policies_.score.score(attrib, targets.at(b, target));
    mean[target * columns + column] += share * value;
    if (passed != nullptr) passed[target * columns + column] += policies_.keep.passes(value) ? 1 : 0;
  });
  check_finite(scores.mean, std::string{name(type)} + " attributions of " + to_string(targets.node(0)));

  const auto kept = policies_.keep.keep(scores).kept.nonzero().contiguous();
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
  edges_.push_back({up, targets.node(target), edge});
  if (is_feature(up.kind)) policies_.targets.reached(frontier_, up);
}

template <class Policies, Architecture A, Dictionaries Set>
void LeapRun<Policies, A, Set>::add_bias(EdgeType type, const StepTargets& targets, const ConstantSums& sums) {
  const double share = 1.0 / batch();
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    const auto& bias = sums.bias[static_cast<std::size_t>(t)];
    const auto& map = sums.map[static_cast<std::size_t>(t)];
    biases_.push_back({.target = targets.node(t),
                       .type = type,
                       .nn_attrib = share * bias.nn,
                       .em_attrib = share * bias.em,
                       .nn_map = share * map.nn,
                       .em_map = share * map.em});
  }
}

/// From the edges that leave a node, or from the gradient on the output that it is part of.
template <class Policies, Architecture A, Dictionaries Set>
NodeValues LeapRun<Policies, A, Set>::values_of(const Node& node) const {
  NodeValues out{batch()};
  if constexpr (chains_by_edges) {
    const auto* path = find_path(node);
    return path != nullptr ? *path : out;
  } else {
    const auto layer = static_cast<std::size_t>(node.layer.value);
    const auto& grads = is_embedding(node.kind)   ? outputs_.embed
                        : is_attention(node.kind) ? outputs_.attn_out[layer]
                                                  : outputs_.mlp_out[layer];
    const auto& source = sources_.at(node.position);
    const bool feature = is_feature(node.kind);
    const auto& nodes = feature ? source.features : source.rest;
    const auto i = index_of(nodes, node);
    for (std::int32_t b = 0; b < batch(); ++b) {
      const auto slot = static_cast<std::size_t>(b);
      const auto grad = grads.select(0, b).select(0, node.position.value);
      const auto along = [&](const at::Tensor& write) { return write.dot(grad).template item<double>(); };
      if (!feature) {
        out.nodegrad[slot] = along(source.rest_writes.select(0, b).select(0, i));
        out.attribution[slot] = along(source.rest_effect.select(0, b).select(0, i));
      } else if (const auto at_prompt = source.slot(Prompt{b}, i); source.present[at_prompt] != 0) {
        const double effect = along(source.writes.select(0, i));
        out.nodegrad[slot] = effect * source.unit_at(at_prompt);
        out.attribution[slot] = effect * source.activation[at_prompt];
      }
    }
    return out;
  }
}

/// Mean clean and corrupt activation of a node.
template <class Policies, Architecture A, Dictionaries Set>
std::pair<double, double> LeapRun<Policies, A, Set>::activations_of(const Node& node) const {
  if (!is_feature(node.kind)) return {1.0, contrasts ? 1.0 : 0.0};
  const auto mean = [&](const DescribedRun& run) {
    const auto& features = (is_attention(node.kind) ? run.attn : run.mlp)[static_cast<std::size_t>(node.layer.value)].features;
    double sum = 0;
    for (std::int32_t b = 0; b < batch(); ++b) {
      sum += activation_at(features, b * lin_.length() + node.position.value, node.feature.value);
    }
    return sum / batch();
  };
  return {mean(lin_.clean), contrasts ? mean(lin_.corrupt) : 0.0};
}

template <class Policies, Architecture A, Dictionaries Set>
NodeBundle LeapRun<Policies, A, Set>::bundle_of(const Node& node) const {
  if (node.kind == NodeKind::metric) {
    const double value = lin_.metric.mean().template item<double>();
    return {.node = node, .activation = value, .contrast_activation = 0, .attribution = value, .nodegrad = 1};
  }
  const auto values = values_of(node);
  const auto [clean, corrupt] = activations_of(node);
  NodeBundle out{.node = node, .activation = clean, .contrast_activation = corrupt, .attribution = 0, .nodegrad = 0};
  for (std::size_t b = 0; b < values.nodegrad.size(); ++b) {
    out.nodegrad += values.nodegrad[b] / batch();
    out.attribution += values.attribution[b] / batch();
  }
  return out;
}

template <class Policies, Architecture A, Dictionaries Set>
Circuit LeapRun<Policies, A, Set>::circuit() && {
  CircuitInfo info;
  info.prompts = static_cast<std::int32_t>(batch());
  Circuit out{std::move(info)};
  out.add_node(bundle_of(Node::metric()));
  const auto add = [&](const Node& node) {
    if (!out.contains(node)) out.add_node(bundle_of(node));
  };
  for (const auto& e : edges_) {
    add(e.down);
    add(e.up);
  }
  for (const auto& e : edges_) out.add_edge(e.up, e.down, e.edge);
  for (const auto& row : biases_) {
    if (out.contains(row.target)) out.add_bias(row);
  }
  return out;
}

}  // namespace circuit::detail

namespace circuit {

template <KeepRule Keep, ChainRule Chain, ContrastRule Contrast, BatchRule Batching, ScoreRule Score, TargetRule Targets,
          SoftmaxJacobian Softmax, FinalNorm Final, ModuleRule Modules>
template <Architecture A, Dictionaries Set, Metric M, Observer... Observers>
Circuit Leap<Keep, Chain, Contrast, Batching, Score, Targets, Softmax, Final, Modules>::operator()(
    const HookedTransformer<A>& model, const Set& dictionaries, const PromptTensors& prompts, const M& metric,
    Observers&&... observers) const {
  const c10::AutoGradMode no_gradient{false};
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  const auto stage = [&](std::string_view what) {
    const auto now = Clock::now();
    notify(StageDone{what, std::chrono::duration<double>(now - start).count()}, observers...);
    start = now;
    if (stop.stop_requested()) throw Cancelled{"the search"};
  };
  if (Contrast::needs_corrupt && !prompts.corrupt.defined()) {
    throw ValueError{{.tensor = "corrupt prompts",
                      .problem = "a contrast needs them and there are none",
                      .hint = "give corrupt prompts, or search with contrast::None"}};
  }
  const DictionariesByRole read{dictionaries, modules};
  auto linearization = batching.prepare(linearize<Final>(
      model, read, prompts.clean, Contrast::needs_corrupt ? prompts.corrupt : at::Tensor{}, metric));
  stage("runs and encodings");
  using Policies = Leap<keep::AnyRule, Chain, Contrast, Batching, Score, Targets, Softmax, Final, Modules>;
  const Policies policies{keep, chain, contrast, batching, score, targets, softmax, final_norm, modules, attention,
                          sources, stop};
  detail::LeapRun<Policies, A, DictionariesByRole<Set, Modules>> run{policies, model, read, std::move(linearization)};
  stage("packing");
  run.metric_step();
  for (auto l = static_cast<std::int32_t>(model.config().n_layers) - 1; l >= 0; --l) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    run.mlp_step(Layer{l});
    run.attention_steps(Layer{l});
    notify(LayerDone{Layer{l}, run.edge_count()}, observers...);
  }
  stage("edges");
  auto found = std::move(run).circuit();
  stage("graph");
  return found;
}

}  // namespace circuit
