#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/known/known_circuit.hpp"
#include "circuit/search/attribution_graph.hpp"
#include "circuit/search/component_scores.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/mask_attributions.hpp"
#include "circuit/search/node_pruning.hpp"
#include "circuit/search/sparse_feature_circuit.hpp"

/// Searches of features on a model whose circuit of heads and MLPs is known: they search its own units.
namespace compare_searches {

struct UnitSearch {
  std::string name;
  std::function<circuit::ComponentScores()> scores;
};

struct UnitOptions {
  double threshold = 0.001;                       ///< on edges, and on nodes where a search has a threshold on them
  std::int64_t steps = 10;                        ///< of integrated gradients
  std::int64_t graph_edges = 50;                  ///< into each target of an attribution graph, by type
  circuit::Totals totals = circuit::Totals::net;  ///< how the units of a head or MLP add up
  circuit::NodePruning pruning{.steps = 100};
};

/// Prompts without answers or roles.
[[nodiscard]] inline circuit::ContrastBatch without_answers(const circuit::PromptPair& prompts) {
  const auto rows = [](const at::Tensor& tokens) {
    std::vector<std::vector<std::int32_t>> out;
    for (std::int64_t b = 0; b < tokens.size(0); ++b) {
      auto& row = out.emplace_back();
      for (std::int64_t p = 0; p < tokens.size(1); ++p) {
        row.push_back(static_cast<std::int32_t>(tokens[b][p].item<std::int64_t>()));
      }
    }
    return out;
  };
  circuit::ContrastBatch batch;
  batch.clean = rows(prompts.clean);
  batch.corrupt = rows(prompts.corrupt);
  return batch;
}

/// Mean over prompts of what the units of each head and MLP have in all. Each prompt is searched by itself: a unit is one
/// at a position, and here a position means nothing in another prompt.
/// search(prompts, metric)  a circuit
template <circuit::Architecture A, class Search>
[[nodiscard]] circuit::ComponentScores by_prompt(const circuit::KnownCircuit<A>& task, circuit::Totals totals,
                                                 const Search& search) {
  using namespace circuit;
  const auto c = Components::of(task.model);
  const auto prompts = task.clean.size(0);
  ComponentScores mean = ComponentScores::of(c, {});
  for (std::int64_t b = 0; b < prompts; ++b) {
    const LogitDifference metric{std::span{task.answers}.subspan(static_cast<std::size_t>(b), 1),
                                 std::span{task.wrong_answers}.subspan(static_cast<std::size_t>(b), 1)};
    const Circuit found = search(PromptPair{task.clean.narrow(0, b, 1), task.corrupt.narrow(0, b, 1)}, metric);
    const auto one = ComponentScores::of(c, by_component(found, task.model.config().d_head, totals));
    mean.nodes.add_(one.nodes, 1.0 / static_cast<double>(prompts));
    mean.edges.add_(one.edges, 1.0 / static_cast<double>(prompts));
  }
  return mean;
}

template <circuit::Architecture A>
[[nodiscard]] std::vector<UnitSearch> unit_searches(const circuit::KnownCircuit<A>& task, const UnitOptions& options) {
  using namespace circuit;
  const auto& model = task.model;
  // find(basis, prompts, metric)  a circuit of units
  const auto in_units = [&model, &task, totals = options.totals](auto find) {
    return [&model, &task, totals, find] {
      const NeuronBasis basis{model};
      return by_prompt(task, totals, [&](const auto&... prompt) { return find(basis, prompt...); });
    };
  };
  const auto contrasted = [&](auto search) {
    return in_units([&model, search](const auto& basis, const PromptPair& prompts, const LogitDifference& metric) {
      return search(model, basis, prompts, metric);
    });
  };
  const auto graph = [&](AttentionPaths paths) {
    const AttributionGraph<keep::TopPerTarget, modules::ReadElseOpaque> search{.keep = {.n = options.graph_edges},
                                                                               .attention = paths};
    return in_units([&model, search](const auto& basis, const PromptPair& prompts, const LogitDifference&) {
      return search(model, basis, prompts.clean);
    });
  };
  const auto masks = [&model](const auto& basis, const PromptPair& prompts, const LogitDifference& metric) {
    Circuit nodes;
    for (const auto& [node, attribution] : mask_attributions(model, basis, prompts.clean, prompts.corrupt, metric)) {
      nodes.add_node({.node = node, .attribution = attribution});
    }
    return nodes;
  };
  // A unit counts 1 where its gate stays open.
  const auto pruned = [&model, pruning = options.pruning](const auto& basis, const PromptPair& prompts,
                                                          const LogitDifference& metric) {
    const auto batch = without_answers(prompts);
    Circuit nodes;
    for (const NodeAttribution& gate :
         pruning(model, basis, std::span{&batch, 1}, [&](const ContrastBatch&) { return metric; })) {
      nodes.add_node({.node = gate.node, .attribution = gate.attribution > 0 ? 1.0 : 0.0});
    }
    return nodes;
  };
  const auto nodes_alone = [&](auto find) {
    return [search = in_units(find)] {
      auto scores = search();
      scores.edges.reset();
      return scores;
    };
  };
  const keep::Above above{options.threshold};
  return {{"leap", contrasted(Leap{.keep = above})},
          {"leap_values", contrasted(Leap{.keep = above, .attention = AttentionPaths::values})},
          {"sparse_feature_circuit", contrasted(SparseFeatureCircuit<>{
                                         .node_threshold = options.threshold, .keep = above, .steps = options.steps})},
          {"attribution_graph", graph(AttentionPaths::all)},
          {"attribution_graph_values", graph(AttentionPaths::values)},
          {"masks", nodes_alone(masks)},
          {"pruning", nodes_alone(pruned)}};
}

}  // namespace compare_searches
