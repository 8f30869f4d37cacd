#pragma once

#include <cstdint>
#include <random>
#include <stop_token>
#include <string>
#include <vector>

#include "circuit/core/progress.hpp"
#include "circuit/intervene/patch_edges.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/hard_concrete.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// Edges between components found by training: every edge has a gate between 0 (it carries the corrupt run) and 1,
/// drawn from a hard-concrete distribution, and the gates learn to keep the model's next-token distribution while few
/// stay open. source  Bhaskar et al. 2024 (edge pruning); Louizos et al. 2018 (the gates)
struct EdgePruning {
  std::int64_t steps = 300;
  double rate = 0.1;       ///< Adam's
  double sparsity = 10.0;  ///< nats that all edges open cost; an edge stays where it is worth its share of that
  double start = 2.0;      ///< every gate's first log odds
  std::uint64_t seed = 0;  ///< of the gates' noise
  std::stop_token stop{};  ///< read once per step

  /// How open each gate is without noise, by its log odds.
  [[nodiscard]] static at::Tensor gate(const at::Tensor& log_odds) { return hard_concrete::gate(log_odds); }
  /// The probability that a gate is not 0.
  [[nodiscard]] static at::Tensor open_probability(const at::Tensor& log_odds) {
    return hard_concrete::open_probability(log_odds);
  }

  /// What is minimised, of gates [senders, receivers]: KL of the gated model's next token from the model's at the last
  /// position, mean over prompts, nats.
  template <Architecture A>
  [[nodiscard]] static at::Tensor divergence(const HookedTransformer<A>& model, const PromptPair& prompts,
                                             const at::Tensor& gates, const at::Tensor& other, const at::Tensor& whole);

  /// Every edge's log odds of staying, larger where it is needed; 0 where there is no edge.
  /// return  [senders, receivers] float64
  /// throws  ShapeError for prompts that do not line up, ValueError for no steps, Cancelled, and what the model throws
  template <Architecture A, Observer... Observers>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const PromptPair& prompts,
                                  Observers&&... observers) const;

  /// The edges whose gates are more open than not.
  template <Architecture A>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const PromptPair& prompts) const {
    const auto components = Components::of(model);
    const auto log_odds = scores(model, prompts);
    return component_circuit(components, log_odds, gate(log_odds).gt(0.5).logical_and(components.edge_mask()),
                             {.prompts = static_cast<std::int32_t>(prompts.clean.size(0))});
  }
};

}  // namespace circuit

namespace circuit {

template <Architecture A>
at::Tensor EdgePruning::divergence(const HookedTransformer<A>& model, const PromptPair& prompts,
                                   const at::Tensor& gates, const at::Tensor& other, const at::Tensor& whole) {
  const auto closed = gates.neg().add(1.0).mul(Components::of(model).edge_mask());
  auto patched = patch_edges(model, closed, other);
  const auto q = model.forward(prompts.clean, patched).select(1, -1).log_softmax(-1);
  return whole.exp().mul(whole.sub(q)).sum(-1).mean();
}

template <Architecture A, Observer... Observers>
at::Tensor EdgePruning::scores(const HookedTransformer<A>& model, const PromptPair& prompts,
                               Observers&&... observers) const {
  prompts.check();
  check_count(steps, "steps");
  const c10::AutoGradMode with_gradient{true};
  const auto components = Components::of(model);
  const auto mask = components.edge_mask().to(at::kDouble);
  const auto other = sender_writes(model, prompts.corrupt).detach();
  const auto whole = model.run(prompts.clean).logits.select(1, -1).log_softmax(-1);
  std::mt19937_64 bits{seed};
  auto log_odds = mask.mul(start);
  hard_concrete::AdamStep adam{log_odds};
  for (std::int64_t step = 1; step <= steps; ++step) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    const auto learned = log_odds.detach().requires_grad_(true);
    const auto gates = hard_concrete::draw(learned, bits);
    const auto open = open_probability(learned).mul(mask).sum().div(static_cast<double>(components.edges()));
    const auto loss =
        divergence(model, prompts, gates.to(other.options()), other, whole).to(at::kDouble).add(open, sparsity);
    const auto g = gradient_of(loss, {learned}).front();
    const auto change = adam.change(g, step);
    log_odds = log_odds.sub(change, rate).mul(mask).detach();
    notify(RoundDone{static_cast<std::size_t>(step),
                     static_cast<std::size_t>(gate(log_odds).gt(0.5).mul(mask).sum().template item<double>())},
           observers...);
  }
  check_finite(log_odds, "log odds of edges");
  return log_odds;
}

}  // namespace circuit
