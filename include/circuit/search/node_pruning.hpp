#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/progress.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/search/hard_concrete.hpp"
#include "circuit/search/mask_attributions.hpp"
#include "circuit/search/module_nodes.hpp"

namespace circuit {

/// Features, errors and embeddings found by training: every node has a gate between 0 (its value on the corrupt
/// partner) and 1 (its own: a feature's computed on the gated run, an error's the clean run's), and the gates learn to
/// keep each prompt's metric while few stay open. Gates start open or closed by how `mask_attributions` ranks them.
/// Nodes have positions, so all prompts are of one template; as many as show every word in every role.
/// source  Louizos et al. 2018 (the gates); Bhaskar et al. 2024 (edge pruning)
struct NodePruning {
  std::int64_t steps = 400;     ///< one batch each
  double rate = 0.1;            ///< Adam's; over the second half it falls to 0
  double price = 10.0;          ///< what all nodes kept cost; a metric lost altogether costs 1
  double spread = 3.0;          ///< first log odds run from this, of the node that masks rank first, to its negative
  std::int64_t mask_steps = 6;  ///< of the walk that ranks them
  std::uint64_t seed = 0;       ///< of the gates' noise and the order of batches
  std::stop_token stop{};       ///< read once per step

  /// batches    each is held with every activation of its corrupt run; of some 32 prompts
  /// metric_of  metric_of(batch) is its metric
  /// return     every node's log odds of staying, in place of an attribution: `in_order(found, ByValue{})` ranks them
  /// throws     ValueError for no steps or no batches, Cancelled, and as mask_attributions
  template <Architecture A, Dictionaries Set, class MetricOf, Observer... Observers>
  [[nodiscard]] std::vector<NodeAttribution> operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                                        std::span<const ContrastBatch> batches,
                                                        const MetricOf& metric_of, Observers&&... observers) const;
};

}  // namespace circuit

namespace circuit::detail {

/// Gates of all nodes: a tensor [pos, features + 1] for each module, errors last, and one of embeddings [pos, 1].
struct NodeGates {
  std::map<std::pair<Module, Layer>, at::Tensor> modules{};
  at::Tensor embedding{};

  /// One of the tensors, and the column of a node in it.
  [[nodiscard]] std::pair<at::Tensor*, std::int64_t> find(const Node& node) {
    if (is_embedding(node.kind)) return {&embedding, 0};
    auto& gates = modules.at({module_of(node), node.layer});
    return {&gates, is_error(node.kind) ? gates.size(1) - 1 : node.feature.value};
  }
  /// As many with `make` of each, of an order that is always the same.
  template <class Make>
  [[nodiscard]] NodeGates with(Make&& make) const {
    NodeGates out;
    for (const auto& [key, gates] : modules) out.modules[key] = make(gates);
    out.embedding = make(embedding);
    return out;
  }
  [[nodiscard]] std::vector<at::Tensor> all() const {
    std::vector<at::Tensor> out;
    for (const auto& [key, gates] : modules) out.push_back(gates);
    out.push_back(embedding);
    return out;
  }
};

/// An attachment that holds every node between its reference's value and its own, as its gate says.
template <class Set>
class GatedNodes {
 public:
  using Places = typename AtStrength<Set>::Places;

  GatedNodes(const Set& set, const Places& places, const NodeGates& gates, at::Tensor unkept_embedding)
      : modules_{set}, places_{&places}, gates_{&gates}, unkept_embedding_{std::move(unkept_embedding)} {}

  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) const {
    value = unkept_embedding_.add(value.sub(unkept_embedding_).mul(gates_->embedding));
  }

  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    modules_.visit(point, layer, value,
                   [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& /*output*/) {
                     return gated(module, l, input);
                   });
  }

 private:
  [[nodiscard]] at::Tensor gated(Module module, Layer layer, const at::Tensor& input) const {
    const auto& here = places_->at({module, layer});
    const auto& gates = gates_->modules.at({module, layer});
    const auto features = gates.size(1) - 1;
    const auto& dictionary = *dictionary_of(modules_.dictionaries(), module, layer);
    const auto more = dense_writes(modules_.dictionaries(), module, layer, input).sub(here.activations);
    auto out = here.described.add(more.mul(gates.narrow(1, 0, features)).matmul(widened(dictionary.W_dec)));
    if (!here.rest.defined()) return out;
    out = with_own(std::move(out), dictionary, input);
    return out.add(here.rest).add(here.rest_change.mul(gates.narrow(1, features, 1)));
  }

  AtModules<Set> modules_;
  const Places* places_;
  const NodeGates* gates_;
  at::Tensor unkept_embedding_;
};

/// What one batch's gated runs need.
template <class Set, class M>
struct PruningBatch {
  at::Tensor clean;
  typename AtStrength<Set>::Places places;
  at::Tensor unkept_embedding;
  M metric;
  at::Tensor full;   // [batch]  the metric of the whole model
  at::Tensor range;  // scalar   its mean less that of the empty circuit

  /// Mean squared loss of the metric, in shares of its range.
  template <Architecture A>
  [[nodiscard]] at::Tensor misfit(const HookedTransformer<A>& model, const Set& set, const NodeGates& gates) const {
    GatedNodes<Set> run{set, places, gates, unkept_embedding};
    return metric.per_prompt(model.forward(clean, run)).sub(full).div(range).square().mean();
  }
};

template <Architecture A, class Set, class M>
[[nodiscard]] PruningBatch<Set, M> pruning_batch(const HookedTransformer<A>& model, const Set& set,
                                                 const PromptPair& pair, const M& metric) {
  const c10::AutoGradMode no_gradient{false};
  const auto clean = model.run(pair.clean, record_modules());
  const auto corrupt = model.run(pair.corrupt, record_modules());
  Recorder<hook::embed> recorder;
  (void)model.embed(pair.corrupt, recorder);
  const auto full = metric.per_prompt(clean.logits);
  return {pair.clean,
          mask_places(set, clean.cache, corrupt.cache, Outside::reference),
          recorder.cache().template get<hook::embed>(),
          metric,
          full,
          full.mean().sub(metric.per_prompt(corrupt.logits).mean())};
}

/// Zeros for every node there could be.
template <class Set>
[[nodiscard]] NodeGates no_gates(const Set& set, const typename AtStrength<Set>::Places& places,
                                 const at::Tensor& embedding) {
  NodeGates out;
  for (const auto& [key, place] : places) {
    const auto features = dictionary_of(set, key.first, key.second)->d_sae();
    out.modules[key] = make::zeros({embedding.size(1), features + 1}, embedding.options());
  }
  out.embedding = make::zeros({embedding.size(1), 1}, embedding.options());
  return out;
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set, class MetricOf, Observer... Observers>
std::vector<NodeAttribution> NodePruning::operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                                     std::span<const ContrastBatch> batches, const MetricOf& metric_of,
                                                     Observers&&... observers) const {
  if (steps < 1) throw ValueError{{.tensor = "steps", .expected = "at least 1", .got = std::to_string(steps)}};
  auto found = strongest(mask_attributions(model, dictionaries, batches, metric_of, {.steps = mask_steps}),
                         static_cast<std::size_t>(-1), [](const Node&) { return true; });
  using M = std::remove_cvref_t<decltype(metric_of(batches.front()))>;
  std::vector<detail::PruningBatch<Set, M>> prepared;
  for (const auto& batch : batches) {
    prepared.push_back(detail::pruning_batch(model, dictionaries, batch, metric_of(batch)));
  }
  auto log_odds = detail::no_gates(dictionaries, prepared.front().places, prepared.front().unkept_embedding);
  auto nodes = log_odds.with([](const at::Tensor& gates) { return make::zeros_like(gates); });  // 1 where there is one
  const auto count = static_cast<double>(found.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    const auto set = [&](detail::NodeGates& gates, double value) {
      const auto [tensor, column] = gates.find(found[i].node);
      (*tensor)[found[i].node.position.value][column].fill_(value);
    };
    set(nodes, 1);
    set(log_odds, spread * (1 - 2 * static_cast<double>(i) / count));
  }
  const auto masks = nodes.all();
  std::vector<hard_concrete::AdamStep> adam;
  for (const auto& mask : masks) adam.emplace_back(mask);
  std::mt19937_64 bits{seed};
  for (std::int64_t step = 1; step <= steps; ++step) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    const c10::AutoGradMode with_gradient{true};
    std::vector<at::Tensor> leaves;
    at::Tensor open;
    const auto gates = log_odds.with([&](const at::Tensor& odds) {
      leaves.push_back(odds.detach().requires_grad_(true));
      const auto kept = hard_concrete::open_probability(leaves.back()).mul(masks[leaves.size() - 1]).sum();
      open = open.defined() ? open.add(kept) : kept;
      return hard_concrete::draw(leaves.back(), bits).mul(masks[leaves.size() - 1]);
    });
    const auto& batch = prepared[bits() % prepared.size()];
    const auto gradients = gradient_of(batch.misfit(model, dictionaries, gates).add(open.div(count), price), leaves);
    const auto left = static_cast<double>(steps - step + 1) / static_cast<double>(steps);
    std::size_t i = 0;
    log_odds = log_odds.with([&](const at::Tensor& odds) {
      check_finite(gradients[i], "gradient of gates");
      const auto moved = adam[i].change(gradients[i], step).mul(masks[i]);
      ++i;
      return odds.sub(moved, rate * std::min(1.0, 2 * left)).detach();
    });
    notify(RoundDone{static_cast<std::size_t>(step), static_cast<std::size_t>(open.template item<double>())},
           observers...);
  }
  for (auto& each : found) {
    const auto [tensor, column] = log_odds.find(each.node);
    each.attribution = (*tensor)[each.node.position.value][column].template item<double>();
  }
  return found;
}

}  // namespace circuit
