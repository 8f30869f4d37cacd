#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/graph/influence.hpp"
#include "circuit/graph/pool.hpp"
#include "circuit/search/asked_targets.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/logit_targets.hpp"

namespace circuit {

namespace detail {

template <KeepRule Keep>
[[nodiscard]] Keep nearly_all() {
  if constexpr (std::same_as<Keep, keep::CumulativeShare>) return {.share = 0.999};
  return {};
}

}  // namespace detail

/// The attribution graph of one prompt: direct effects on the likeliest logits and, from there down, on the features of
/// most influence, everything but the paths themselves frozen. By default attention moves gradients and is no node;
/// `modules::ReadElseOpaque` makes attention features nodes, with ov and (first-order) q and k edges into them.
/// Influence, scores and cuts are graph/influence.hpp's.
/// source  Ameisen et al. 2025, "Circuit tracing"; docs/searches.md says where circuit-tracer differs
template <KeepRule Keep = keep::CumulativeShare, ModuleRule Modules = modules::TransparentAttention,
          SoftmaxJacobian Softmax = softmax::Exact>
struct AttributionGraph {
  [[no_unique_address]] Keep keep =
      detail::nearly_all<Keep>();           ///< which edges are stored: 99.9% of a target's, by type
  [[no_unique_address]] Modules modules{};  ///< which modules are read, opaque or transparent
  [[no_unique_address]] Softmax softmax{};  ///< how scores move the pattern
  LogitTargets logits{};
  std::size_t budget = 7500;  ///< how many features become targets, the most influential first; 0: all
  std::size_t round = 2048;   ///< how many become targets between two estimates of influence
  AttentionPaths attention = AttentionPaths::all;
  SourceOptions sources{};
  std::stop_token stop{};  ///< read once per round

  /// tokens  [1, pos] int64
  /// return  logits' `activation` is the logit less the mean of all, `nodegrad` its probability; `em` numbers say what
  /// an
  ///         edge gives the sum of the logits weighted so
  /// throws  ShapeError for another batch, and as Leap
  template <Architecture A, Dictionaries Set, Observer... Observers>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& tokens,
                                   Observers&&... observers) const;

  /// A graph for each prompt of a batch, each of its own likeliest logits.
  /// tokens  [batch, pos] int64
  template <Architecture A, Dictionaries Set, Observer... Observers>
  [[nodiscard]] std::vector<Circuit> by_prompt(const HookedTransformer<A>& model, const Set& dictionaries,
                                               const at::Tensor& tokens, Observers&&... observers) const {
    check_shape(tokens, {-1, -1}, "tokens");
    std::vector<Circuit> graphs;
    for (std::int64_t b = 0; b < tokens.size(0); ++b) {
      graphs.push_back((*this)(model, dictionaries, tokens.narrow(0, b, 1), observers...));
    }
    return graphs;
  }

  /// One graph of all prompts of a batch, their own graphs pooled: an edge is multiplied out on each prompt, and only
  /// then does a rule make one number of them.
  /// tokens  [batch, pos] int64   least_share  of the prompts whose graphs must have an edge
  template <Architecture A, Dictionaries Set, PoolRule Rule = pooling::Mean>
  [[nodiscard]] Circuit pooled(const HookedTransformer<A>& model, const Set& dictionaries, const at::Tensor& tokens,
                               const Rule& rule = {}, double least_share = 0) const {
    return pool(by_prompt(model, dictionaries, tokens), rule, least_share);
  }
};

}  // namespace circuit

namespace circuit::detail {

/// The features of most influence that are no targets yet.
[[nodiscard]] inline std::vector<Node> most_influential(const std::vector<EdgeRef>& edges, const NodeWeights& outputs,
                                                        const std::unordered_set<Node>& done, std::size_t n) {
  std::vector<std::pair<Node, double>> waiting;
  for (const auto& [node, value] : influence(edges, outputs)) {
    if (is_feature(node.kind) && !done.contains(node)) waiting.emplace_back(node, value);
  }
  std::vector<Node> out;
  for (const auto i : order_by(waiting.size(), [&](auto a, auto b) {
         return waiting[a].second != waiting[b].second ? waiting[a].second > waiting[b].second
                                                       : waiting[a].first < waiting[b].first;
       })) {
    if (out.size() == n) break;
    out.push_back(waiting[i].first);
  }
  return out;
}

}  // namespace circuit::detail

namespace circuit {

template <KeepRule Keep, ModuleRule Modules, SoftmaxJacobian Softmax>
template <Architecture A, Dictionaries Set, Observer... Observers>
Circuit AttributionGraph<Keep, Modules, Softmax>::operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                                             const at::Tensor& tokens, Observers&&... observers) const {
  const c10::AutoGradMode no_gradient{false};
  check_shape(tokens, {1, -1}, "tokens", {}, "an attribution graph is one prompt's; search prompt by prompt");
  const auto chosen = logits.choose(model.run(tokens).logits.select(0, 0).select(0, -1));
  const DictionariesByRole read{dictionaries, modules};
  const Leap<keep::AnyRule, chain::AllPaths, contrast::None, batching::Exact, score::Direct, targets::Asked, Softmax,
             final_norm::Frozen, Modules>
      policies{.keep = keep,
               .targets = {.all = budget == 0},
               .softmax = softmax,
               .modules = modules,
               .attention = attention,
               .sources = sources,
               .stop = stop};
  detail::LeapRun<std::remove_cvref_t<decltype(policies)>, A, DictionariesByRole<Set, Modules>> run{
      policies, model, read, linearize<final_norm::Frozen>(model, read, tokens, {}, ExpectedLogit{chosen})};
  auto rows = detail::logit_rows(model, run.linearization(), chosen);
  run.output_step(std::move(rows.targets), {{Prompt{0}, std::move(rows.index), std::move(rows.grad)}},
                  {rows.constants});

  std::unordered_set<Node> done;
  if (budget == 0) run.expand({});
  while (done.size() < budget) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    const auto next =
        detail::most_influential(run.found().edges(), rows.weights, done, std::min(round, budget - done.size()));
    if (next.empty()) break;
    run.expand(next);
    done.insert(next.begin(), next.end());
    notify(RoundDone{done.size(), run.found().edges().size()}, observers...);
  }
  if (budget > 0) {
    run.found().drop_edges([&](const EdgeRef& e) { return is_feature(e.up.kind) && !done.contains(e.up); });
  }
  return run.circuit();
}

}  // namespace circuit
