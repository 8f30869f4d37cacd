#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/evaluate/faithfulness.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/linear/post_norm.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/search/for_each_node.hpp"
#include "circuit/search/module_nodes.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit {

/// A node whose value differs between clean and corrupt prompts, and by how much.
struct NodeChange {
  Node node{};
  double change = 0;  ///< mean over prompts of |clean - corrupt|: of activations, of the norm of errors and embeddings
};

/// What becomes of the errors of dictionaries.
enum class ErrorsOutside : std::uint8_t {
  corrupt,  ///< errors are nodes as features are: outside the circuit they hold the corrupt run's values
  clean,    ///< all of them are kept, in the empty circuit too
};

/// One size of a circuit of features, errors and embeddings, and how it did.
struct NodeSizePoint {
  std::int64_t nodes = 0;
  double share_of_nodes = 0;  ///< of the nodes that differ between clean and corrupt prompts
  double metric = 0;
  double faithfulness = 0;
};

/// Judges sets of nodes on clean prompts, each node outside holding its value on the same prompt's corrupt partner: a
/// feature its activation, an error the corrupt run's error, an embedding the corrupt token's. A feature inside is
/// computed on the run at hand, an error inside is the clean run's and never recomputed. The empty circuit is then the
/// corrupt run, and the full one the clean run. Not for a model's own units where they write before a post-norm.
/// source  Marks et al. 2024 (sparse feature circuits), section 4, with errors counted as nodes
template <Architecture A, class Set, Metric M>
class NodeEvaluation {
 public:
  /// throws  ShapeError, and as a run and a search do
  NodeEvaluation(const HookedTransformer<A>& model, const Set& dictionaries, PromptPair prompts, M metric,
                 ErrorsOutside errors = ErrorsOutside::corrupt);

  /// The metric on clean prompts, and with no node kept.
  [[nodiscard]] const MetricRange& range() const { return range_; }
  /// Every node that a circuit could need: the largest change first.
  [[nodiscard]] const std::vector<NodeChange>& changes() const { return changes_; }
  /// The metric of each prompt with these nodes alone, [batch]. Nodes of other kinds (the metric) are passed over.
  [[nodiscard]] at::Tensor per_prompt(std::span<const Node> kept) const {
    return metric_.per_prompt(model_->run(tokens(kept), attachment(kept)).logits);
  }
  /// The two halves of that run: its tokens, clean where an embedding is kept, and what holds every other node.
  [[nodiscard]] at::Tensor tokens(std::span<const Node> kept) const;
  [[nodiscard]] CircuitOnly<Set> attachment(std::span<const Node> kept) const;
  [[nodiscard]] const HookedTransformer<A>& model() const { return *model_; }
  [[nodiscard]] const Set& dictionaries() const { return *dictionaries_; }
  [[nodiscard]] const M& metric() const { return metric_; }
  /// Its mean over prompts.
  [[nodiscard]] double metric_of(std::span<const Node> kept) const {
    return per_prompt(kept).mean().template item<double>();
  }
  [[nodiscard]] double faithfulness(std::span<const Node> kept) const { return range_.share(metric_of(kept)); }
  /// What the model still does with all nodes but these, which hold corrupt values; 0 where the circuit is complete.
  [[nodiscard]] double faithfulness_of_rest(std::span<const Node> kept) const {
    const std::set<Node> circuit{kept.begin(), kept.end()};
    std::vector<Node> rest;
    for (const auto& change : changes_) {
      if (!circuit.contains(change.node)) rest.push_back(change.node);
    }
    return faithfulness(rest);
  }
  /// Faithfulness of the first n nodes, for each n of `sizes`.
  [[nodiscard]] std::vector<NodeSizePoint> curve(std::span<const Node> ranked,
                                                 std::span<const std::int64_t> sizes) const;

 private:
  using Cache = decltype(std::declval<const HookedTransformer<A>&>().run(at::Tensor{}, record_modules()).cache);

  void find_changes(const Cache& clean, const Cache& corrupt);
  void add_changes(NodeKind kind, Layer layer, const at::Tensor& change);
  void add_all_errors(KeptNodes& kept) const;

  const HookedTransformer<A>* model_;
  const Set* dictionaries_;
  PromptPair prompts_;
  M metric_;
  ErrorsOutside errors_;
  OutsideValues<Set> outside_;
  MetricRange range_;
  std::vector<NodeChange> changes_;
};

/// A circuit's nodes as a search ranks them: by the size of what each gives the metric.
[[nodiscard]] inline std::vector<Node> ranked_by_attribution(const Circuit& circuit) {
  std::vector<NodeBundle> nodes;
  for (const auto& bundle : circuit.nodes()) {
    if (has_position(bundle.node.kind)) nodes.push_back(bundle);
  }
  nodes = detail::sorted_by(std::move(nodes), [](const NodeBundle& a, const NodeBundle& b) {
    return std::abs(a.attribution) > std::abs(b.attribution);
  });
  std::vector<Node> ranked;
  for (const auto& bundle : nodes) ranked.push_back(bundle.node);
  return ranked;
}

/// The same nodes by the size of their change alone, and in an order drawn by a seed: what a search has to beat.
[[nodiscard]] inline std::vector<Node> ranked_by_change(std::span<const NodeChange> changes) {
  std::vector<Node> ranked;
  for (const auto& change : changes) ranked.push_back(change.node);
  return ranked;
}
[[nodiscard]] inline std::vector<Node> drawn_at_random(std::span<const NodeChange> changes, std::uint64_t seed) {
  auto nodes = ranked_by_change(changes);
  std::mt19937_64 draw{seed};
  for (auto i = nodes.size(); i > 1; --i) std::swap(nodes[i - 1], nodes[draw() % i]);
  return nodes;
}

}  // namespace circuit

namespace circuit {

template <Architecture A, class Set, Metric M>
NodeEvaluation<A, Set, M>::NodeEvaluation(const HookedTransformer<A>& model, const Set& dictionaries,
                                          PromptPair prompts, M metric, ErrorsOutside errors)
    : model_{&model},
      dictionaries_{&dictionaries},
      prompts_{std::move(prompts)},
      metric_{std::move(metric)},
      errors_{errors},
      outside_{.dictionaries = dictionaries} {
  static_assert(!mlp_writes_pass_post_norm<A, Set>, "neurons that write before a post-norm have no place outside it");
  prompts_.check();
  const c10::AutoGradMode no_gradient{false};
  const auto corrupt = model.run(prompts_.corrupt, record_modules()).cache;
  const auto clean = model.run(prompts_.clean, record_modules());
  KeepCircuitOptions options{.features = Outside::reference, .errors = Outside::reference};
  if constexpr (!describes_exactly<Set>) options.kept_errors = error_terms(dictionaries, clean.cache);
  outside_ = outside_values(dictionaries, corrupt, options);
  find_changes(clean.cache, corrupt);
  range_ = {mean(metric_, clean.logits).template item<double>(), metric_of({})};
}

template <Architecture A, class Set, Metric M>
void NodeEvaluation<A, Set, M>::find_changes(const Cache& clean, const Cache& corrupt) {
  ErrorTerms corrupt_errors;
  if constexpr (!describes_exactly<Set>) corrupt_errors = error_terms(*dictionaries_, corrupt);
  for_each_module(*dictionaries_, clean,
                  [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& /*out*/) {
                    const auto dense = [&](const at::Tensor& x) { return encode(*dictionaries_, module, l, x); };
                    const auto change = dense(input).sub(dense(input_of(*dictionaries_, corrupt, module, l)));
                    add_changes(detail::feature_kind(module), l, change.abs().mean(0));
                    if constexpr (describes_exactly<Set>) return;
                    const auto missed = outside_.options.kept_errors->get(module, l).sub(corrupt_errors.get(module, l));
                    add_changes(detail::error_kind(module), l, missed.norm(2, -1, /*keepdim=*/true).mean(0));
                  });
  const auto& table = model_->weights().W_E;
  const auto moved = widened(table.index_select(0, prompts_.clean.flatten()))
                         .sub(widened(table.index_select(0, prompts_.corrupt.flatten())));
  const auto shape = prompts_.clean.sizes();
  add_changes(NodeKind::embedding, Layer{0}, moved.norm(2, -1).view(shape).mean(0).unsqueeze(-1));

  changes_ = detail::sorted_by(std::move(changes_),
                               [](const NodeChange& a, const NodeChange& b) { return a.change > b.change; });
}

/// change  [pos, n]  of nodes 0 to n - 1
template <Architecture A, class Set, Metric M>
void NodeEvaluation<A, Set, M>::add_changes(NodeKind kind, Layer layer, const at::Tensor& change) {
  for_each_node(kind, layer, change, [&](const Node& node, double value) { changes_.push_back({node, value}); });
}

template <Architecture A, class Set, Metric M>
void NodeEvaluation<A, Set, M>::add_all_errors(KeptNodes& kept) const {
  for (const auto& change : changes_) {
    if (!is_error(change.node.kind)) continue;
    kept.errors.push_back({detail::module_of(change.node), change.node.layer, change.node.position});
  }
}

template <Architecture A, class Set, Metric M>
at::Tensor NodeEvaluation<A, Set, M>::tokens(std::span<const Node> kept) const {
  auto tokens = prompts_.corrupt.clone();
  for (const auto& node : kept) {
    if (node.kind != NodeKind::embedding) continue;
    tokens.select(1, node.position.value).copy_(prompts_.clean.select(1, node.position.value));
  }
  return tokens;
}

template <Architecture A, class Set, Metric M>
CircuitOnly<Set> NodeEvaluation<A, Set, M>::attachment(std::span<const Node> kept) const {
  KeptNodes nodes;
  for (const auto& node : kept) {
    const auto module = detail::module_of(node);
    if (is_feature(node.kind)) nodes.features.push_back({{module, node.layer, node.feature}, node.position});
    if (is_error(node.kind)) nodes.errors.push_back({module, node.layer, node.position});
  }
  if (errors_ == ErrorsOutside::clean) {
    nodes.errors.clear();
    add_all_errors(nodes);
  }
  return keep_circuit(outside_, nodes);
}

template <Architecture A, class Set, Metric M>
std::vector<NodeSizePoint> NodeEvaluation<A, Set, M>::curve(std::span<const Node> ranked,
                                                            std::span<const std::int64_t> sizes) const {
  std::vector<NodeSizePoint> points;
  for (const auto size : sizes) {
    const auto n = std::clamp<std::int64_t>(size, 0, static_cast<std::int64_t>(ranked.size()));
    const auto metric = metric_of(ranked.first(static_cast<std::size_t>(n)));
    points.push_back({n, static_cast<double>(n) / static_cast<double>(changes_.size()), metric, range_.share(metric)});
  }
  return points;
}

}  // namespace circuit
