#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <stop_token>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "circuit/intervene/at_modules.hpp"
#include "circuit/search/asked_targets.hpp"
#include "circuit/search/integrated_gradients.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/prompt_pair.hpp"

namespace circuit::detail {

template <KeepRule Keep>
[[nodiscard]] Keep edge_rule() {
  if constexpr (std::same_as<Keep, keep::Above>) return {.threshold = 0.01};
  return {};
}

}  // namespace circuit::detail

namespace circuit {

/// Sparse feature circuits: features, errors and embeddings whose indirect effect, by integrated gradients, is over one
/// threshold, and between them the edges whose share of the metric, a Jacobian product, is over another. The Jacobian
/// is the model's own, scales and softmax moving, with gradients stopped at every module between; into attention it
/// comes apart as `ov`, `q` and `k`, which sum to it. Errors are targets too. source  Marks et al. 2024;
/// docs/searches.md says where their tool differs
template <KeepRule Keep = keep::Above, ContrastRule Contrast = contrast::Signed>
struct SparseFeatureCircuit {
  double node_threshold = 0.1;            ///< on a node's attribution, a mean over prompts, metric units
  Keep keep = detail::edge_rule<Keep>();  ///< which edges between such nodes stay: above 0.01
  Contrast contrast{};                    ///< contrast::None takes every activation to 0
  std::int64_t steps = 10;                ///< of integrated gradients
  double offset = 0.0;
  bool into_errors = true;  ///< whether errors are targets
  Scales scales = Scales::live;
  SourceOptions sources{};
  std::stop_token stop{};  ///< read between stages

  /// return  em numbers are shares of the metric, clean minus corrupt; no bias rows
  /// throws  ConfigError for dictionaries across layers or transcoders of hook_resid_mid, and as Leap
  template <Architecture A, Dictionaries Set, Metric M>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                   const PromptPair& prompts, const M& metric) const {
    const c10::AutoGradMode no_gradient{false};
    const auto corrupt = Contrast::needs_corrupt ? prompts.corrupt : at::Tensor{};
    if (Contrast::needs_corrupt && !corrupt.defined()) {
      throw ValueError{
          {.tensor = "corrupt prompts", .problem = "there are none", .hint = "search with contrast::None"}};
    }
    refuse_unless_within_layers(dictionaries, static_cast<std::int32_t>(model.config().n_layers),
                                "a sparse feature circuit", {.mlp_out = true, .stream = true, .input_norm = true});
    std::vector<Layer> streams;
    for (std::int32_t l = 0; l <= model.config().n_layers; ++l) {
      if (stream_dictionary(dictionaries, Layer{l}) != nullptr) streams.emplace_back(l);
    }
    const modules::ReadElseOpaque rule{};
    const DictionariesByRole read{dictionaries, rule};
    const Leap<keep::AnyRule, chain::Given, Contrast, batching::Exact, score::Chained, targets::Asked, softmax::Exact,
               final_norm::Exact>
        policies{.keep = keep,
                 .chain = {integrated_gradients(model, prompts.clean, corrupt, metric, steps, offset, streams)},
                 .contrast = contrast,
                 .sources = sources,
                 .stop = stop,
                 .scales = scales};
    if (stop.stop_requested()) throw Cancelled{"the search"};
    detail::LeapRun<std::remove_cvref_t<decltype(policies)>, A, DictionariesByRole<Set, modules::ReadElseOpaque>> run{
        policies, model, read, linearize<final_norm::Exact>(model, read, prompts.clean, corrupt, metric)};
    const auto nodes = run.nodes_above(node_threshold);
    const std::unordered_set<Node> chosen{nodes.begin(), nodes.end()};
    std::vector<Node> features;
    std::map<std::pair<NodeKind, Layer>, std::vector<Position>> errors;
    for (const auto& node : nodes) {
      if (is_feature(node.kind)) features.push_back(node);
      if (is_error(node.kind) && into_errors) errors[{node.kind, node.layer}].push_back(node.position);
    }
    run.metric_step();
    run.expand(features);
    for (auto& [module, positions] : errors) {
      std::ranges::sort(positions, std::ranges::greater{});
      run.error_step(module.first, module.second, positions);
    }
    run.found().drop_edges([&](const EdgeRef& e) { return !chosen.contains(e.up); });
    run.found().drop_biases();
    return run.circuit(nodes);
  }
};

}  // namespace circuit
