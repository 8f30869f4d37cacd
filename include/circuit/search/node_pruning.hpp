#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/progress.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/search/gate_training.hpp"
#include "circuit/search/gated_nodes.hpp"
#include "circuit/search/mask_attributions.hpp"
#include "circuit/search/pruning_batch.hpp"

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
  std::size_t nodes = 0;        ///< if given, as many gates may stay open at no cost; twice as many cost the price
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
  /// The same from an order of one's own, the largest first: what another search found, or the part of a circuit that
  /// is to become smaller. Nodes that are not in it stay closed.
  /// throws     also ValueError for no nodes
  template <Architecture A, Dictionaries Set, class MetricOf, Observer... Observers>
  [[nodiscard]] std::vector<NodeAttribution> from(std::span<const Node> start, const HookedTransformer<A>& model,
                                                  const Set& dictionaries, std::span<const ContrastBatch> batches,
                                                  const MetricOf& metric_of, Observers&&... observers) const;

  /// How many gates are free of cost at a step: over the first half of the steps as many fewer, in proportion, as lead
  /// from those open at first to `nodes`.
  [[nodiscard]] double free_nodes(std::int64_t step, double open_at_first) const {
    const auto left = std::max(0.0, 1 - 2 * static_cast<double>(step) / static_cast<double>(steps));
    const auto aim = static_cast<double>(nodes);
    return aim * std::pow(std::max(1.0, open_at_first / aim), left);
  }
};

}  // namespace circuit

namespace circuit::detail {

/// The square of how far a number of open gates is over the free ones, in shares of these.
[[nodiscard]] inline at::Tensor over(const at::Tensor& open, double free) {
  return open.div(free).sub(1.0).clamp_min(0.0).square();
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set, class MetricOf, Observer... Observers>
std::vector<NodeAttribution> NodePruning::operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                                     std::span<const ContrastBatch> batches, const MetricOf& metric_of,
                                                     Observers&&... observers) const {
  check_count(steps, "steps");
  const auto start = in_order(mask_attributions(model, dictionaries, batches, metric_of, {.steps = mask_steps}));
  return from(start, model, dictionaries, batches, metric_of, std::forward<Observers>(observers)...);
}

template <Architecture A, Dictionaries Set, class MetricOf, Observer... Observers>
std::vector<NodeAttribution> NodePruning::from(std::span<const Node> start, const HookedTransformer<A>& model,
                                               const Set& dictionaries, std::span<const ContrastBatch> batches,
                                               const MetricOf& metric_of, Observers&&... observers) const {
  check_count(steps, "steps");
  static_assert(!mlp_writes_pass_post_norm<A, Set>, "neurons that write before a post-norm have no gates behind it");
  if (batches.empty()) throw ValueError{{.tensor = "batches", .expected = "at least one", .got = "none"}};
  if (start.empty()) throw ValueError{{.tensor = "start", .expected = "at least one node", .got = "none"}};
  using M = std::remove_cvref_t<decltype(metric_of(batches.front()))>;
  std::vector<detail::PruningBatch<Set, M>> prepared;
  for (const auto& batch : batches) {
    prepared.push_back(detail::pruning_batch(model, dictionaries, batch, metric_of(batch)));
  }
  const auto none = detail::no_gates(dictionaries, prepared.front().places, prepared.front().unkept_embedding);
  detail::GateTraining gates{none, start, spread};
  std::mt19937_64 bits{seed};
  double open_at_first = 0;
  for (std::int64_t step = 1; step <= steps; ++step) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    const c10::AutoGradMode with_gradient{true};
    const auto drawn = gates.draw(bits);
    const auto open = drawn.open.template item<double>();
    if (step == 1) open_at_first = open;
    const auto cost = nodes == 0 ? drawn.open.div(static_cast<double>(start.size()))
                                 : detail::over(drawn.open, free_nodes(step, open_at_first));
    const auto& batch = prepared[bits() % prepared.size()];
    const auto left = static_cast<double>(steps - step + 1) / static_cast<double>(steps);
    const auto loss = batch.misfit(model, dictionaries, drawn.gates).add(cost, price);
    gates.update(gradient_of(loss, drawn.log_odds), step, rate * std::min(1.0, 2 * left));
    notify(RoundDone{static_cast<std::size_t>(step), static_cast<std::size_t>(open)}, observers...);
  }
  return std::move(gates).found();
}

}  // namespace circuit
