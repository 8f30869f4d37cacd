#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/evaluate/node_faithfulness.hpp"
#include "circuit/model/run_from.hpp"

namespace circuit {

/// Judges sets of nodes that differ little from a first one: a run begins at the lowest layer in which a node is in one
/// of the two and not in the other, below which nothing is computed again. For knock-outs and minimality, whose `measure`
/// it is, and for growing a circuit from the top:
///
///     const NodesAround around{judge, circuit};
///     minimality(circuit, {}, [&](std::span<const Node> kept) { return around.faithfulness(kept); });
///
/// Cross-layer features write into layers to come, so with them every run begins at the embeddings.
template <Architecture A, class Set, Metric M>
class NodesAround {
 public:
  /// The evaluation is kept by reference.
  NodesAround(const NodeEvaluation<A, Set, M>& judge, std::span<const Node> nodes)
      : judge_{&judge},
        nodes_{nodes.begin(), nodes.end()},
        layers_{static_cast<std::int32_t>(judge.model().config().n_layers)} {
    auto run = judge.model().run(judge.tokens(nodes), judge.attachment(nodes), record<hook::resid_pre>());
    metric_ = judge.metric().per_prompt(run.logits);
    streams_ = std::move(run.cache);
    for (std::int32_t l = 0; l < layers_; ++l) {
      const auto* mlp = judge.dictionaries().mlp(Layer{l});
      cross_layer_ = cross_layer_ || (mlp != nullptr && mlp->later_layers() > 0);
    }
  }

  /// As NodeEvaluation's.  [batch]
  [[nodiscard]] at::Tensor per_prompt(std::span<const Node> kept) const {
    const auto from = first_change(kept);
    if (from.value > layers_) return metric_;
    if (from == Layer{0}) return judge_->per_prompt(kept);
    const auto& stream = streams_.template get<hook::resid_pre>(from);
    return judge_->metric().per_prompt(run_from(judge_->model(), from, stream, judge_->attachment(kept)).logits);
  }
  [[nodiscard]] double metric_of(std::span<const Node> kept) const {
    return per_prompt(kept).mean().template item<double>();
  }
  [[nodiscard]] double faithfulness(std::span<const Node> kept) const { return judge_->range().share(metric_of(kept)); }

  /// The layer at which a set's run begins; beyond n_layers where the set is the first one.
  [[nodiscard]] Layer first_change(std::span<const Node> kept) const {
    const std::set<Node> other{kept.begin(), kept.end()};
    std::vector<Node> differing;
    std::ranges::set_symmetric_difference(nodes_, other, std::back_inserter(differing));
    Layer first{layers_ + 1};
    for (const auto& node : differing) {
      if (is_output(node.kind)) continue;
      if (cross_layer_ || !has_layer(node.kind)) return Layer{0};
      // The stream before a layer is held behind the layer before it.
      const Layer at{is_stream(node.kind) ? std::max(0, node.layer.value - 1) : node.layer.value};
      first = std::min(first, at);
    }
    return first;
  }

 private:
  const NodeEvaluation<A, Set, M>* judge_;
  std::set<Node> nodes_;
  at::Tensor metric_;
  ActivationCache<hook::resid_pre> streams_;
  std::int32_t layers_ = 0;
  bool cross_layer_ = false;
};

}  // namespace circuit
