#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/edges_around.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/edge_selection.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// A metric on the whole model and with everything taken away: the ends between which a circuit is judged.
struct MetricRange {
  double full = 0;
  double empty = 0;

  /// 1 for a circuit as good as the model, 0 for one as good as none: (m - m(empty)) / (m(full) - m(empty)).
  /// throws  ValueError  when the two ends are equal, or a number is not finite
  [[nodiscard]] double share(double metric) const {
    const auto range = full - empty;
    if (range == 0 || !std::isfinite(range) || !std::isfinite(metric)) {
      throw ValueError{
          {.tensor = "faithfulness",
           .problem = "is a share of the distance between the whole model's metric and the empty circuit's",
           .expected = "two different finite numbers",
           .got = std::to_string(full) + " and " + std::to_string(empty)}};
    }
    return (metric - empty) / range;
  }
};

/// One size of a circuit and how it did.
struct SizePoint {
  std::int64_t edges = 0;
  double share_of_edges = 0;
  double faithfulness = 0;
};

/// Judges sets of edges between components on clean prompts, every other edge carrying another run: the corrupt
/// prompts', or any writes [senders, batch or 1, pos, d_model], such as `mean_writes` or zeros. Masks are [senders,
/// receivers].
template <Architecture A, Metric M>
class EdgeEvaluation {
 public:
  EdgeEvaluation(const HookedTransformer<A>& model, PromptPair prompts, M metric)
      : EdgeEvaluation{model, prompts, std::move(metric), sender_writes(model, prompts.corrupt)} {}
  EdgeEvaluation(const HookedTransformer<A>& model, const PromptPair& prompts, M metric, at::Tensor outside)
      : model_{&model}, clean_{prompts.clean}, metric_{std::move(metric)}, outside_{std::move(outside)} {
    const auto c = components();
    range_ = {metric_of(c.edge_mask()), metric_of(make::zeros({c.senders(), c.receivers()}, at::kBool))};
  }

  [[nodiscard]] Components components() const { return Components::of(*model_); }
  [[nodiscard]] const MetricRange& range() const { return range_; }

  /// The metric of each prompt with the kept edges alone.  [batch]
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& kept) const {
    return metric_.per_prompt(model_->run(clean_, keep_only_edges(*model_, kept, outside_)).logits);
  }
  /// The metric's mean over prompts with the kept edges alone.
  [[nodiscard]] double metric_of(const at::Tensor& kept) const {
    return per_prompt(kept).mean().template item<double>();
  }
  [[nodiscard]] double faithfulness(const at::Tensor& kept) const { return range_.share(metric_of(kept)); }
  /// What the model still does without the circuit; 0 where the circuit is complete.
  [[nodiscard]] double faithfulness_of_rest(const at::Tensor& kept) const {
    return range_.share(metric_of(components().edge_mask().logical_and(kept.logical_not())));
  }
  /// For each kept edge how much faithfulness falls without it, 0 elsewhere; one run per edge, from the layer that reads
  /// it on. A circuit is minimal where none is near 0.  [senders, receivers] float64
  [[nodiscard]] at::Tensor loss_by_edge(const at::Tensor& kept) const;

  /// Faithfulness of the edges that a selection chooses by their scores, at each share (0 to 1) of all edges.
  /// throws  ValueError  for a share outside 0 to 1
  template <EdgeSelection Selection = selection::Largest>
  [[nodiscard]] std::vector<SizePoint> curve(const at::Tensor& scores, std::span<const double> shares,
                                             const Selection& selection = {}) const;

 private:
  const HookedTransformer<A>* model_;
  at::Tensor clean_;
  M metric_;
  at::Tensor outside_;
  MetricRange range_;
};

/// What senders write on average over prompts, for each position.  [senders, 1, pos, d_model]
[[nodiscard]] inline at::Tensor mean_writes(const at::Tensor& writes) { return writes.mean(1, /*keepdim=*/true); }

}  // namespace circuit

template <circuit::Architecture A, circuit::Metric M>
at::Tensor circuit::EdgeEvaluation<A, M>::loss_by_edge(const at::Tensor& kept) const {
  const EdgesAround around{*model_, clean_, kept, outside_};
  const auto share = [&](const at::Tensor& logits) {
    return range_.share(mean(metric_, logits).template item<double>());
  };
  const auto with_all = share(around.logits());
  auto loss = make::zeros(kept.sizes(), at::kDouble);
  const auto edges = kept.nonzero();
  for (std::int64_t i = 0; i < edges.size(0); ++i) {
    const auto s = edges[i][0].template item<std::int64_t>();
    const auto r = edges[i][1].template item<std::int64_t>();
    auto without = kept.clone();
    without[s][r].fill_(false);
    loss[s][r].fill_(with_all - share(around.logits(without)));
  }
  return loss;
}

template <circuit::Architecture A, circuit::Metric M>
template <circuit::EdgeSelection Selection>
std::vector<circuit::SizePoint> circuit::EdgeEvaluation<A, M>::curve(const at::Tensor& scores,
                                                                     std::span<const double> shares,
                                                                     const Selection& selection) const {
  const auto c = components();
  check_edges(scores, c, "scores");
  std::vector<SizePoint> points;
  for (const auto share : shares) {
    if (!(share >= 0 && share <= 1)) {
      throw ValueError{{.tensor = "share of edges", .expected = "0 to 1", .got = std::to_string(share)}};
    }
    const auto edges = std::llround(share * static_cast<double>(c.edges()));
    const auto kept = share == 1.0 ? c.edge_mask() : selection.choose(c, scores, edges);
    points.push_back({kept.sum().template item<std::int64_t>(), share, faithfulness(kept)});
  }
  return points;
}
