#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/sources.hpp"
#include "circuit/search/contrast.hpp"

namespace circuit {

/// What one feature at one position is worth to the metric, mean over prompts.
struct NodeAttribution {
  Node node{};
  double attribution = 0;  ///< gradient times (contrasted) activation, metric units
};

/// Every feature's own attribution, as a search has it for its nodes under chain::ModelGradient, without searching any
/// edge: one clean run with its gradient, one corrupt run, and one product per module and position. What an edge search
/// cannot afford to ask of every unit of a neuron basis.
/// throws  as a search
/// source  attribution patching of nodes (Nanda 2023; Syed et al. 2023)
template <FinalNorm Final = final_norm::Frozen, Architecture A, Dictionaries Set, Metric M,
          ContrastRule Contrast = contrast::Signed>
[[nodiscard]] std::vector<NodeAttribution> node_attributions(const HookedTransformer<A>& model, const Set& dictionaries,
                                                             const at::Tensor& clean, const at::Tensor& corrupt,
                                                             const M& metric, const Contrast& contrast = {});

/// By what nodes are put in order.
struct ByMagnitude {
  double operator()(const NodeAttribution& a) const { return std::abs(a.attribution); }
};
/// What works for the metric comes before what works against it.
struct ByValue {
  double operator()(const NodeAttribution& a) const { return a.attribution; }
};

/// Largest first, the first `n` of those that a rule admits.
template <class Admits, class Order = ByMagnitude>
[[nodiscard]] std::vector<NodeAttribution> strongest(std::vector<NodeAttribution> nodes, std::size_t n, Admits&& admits,
                                                     Order order = {}) {
  std::erase_if(nodes, [&](const NodeAttribution& a) { return !admits(a.node); });
  std::ranges::stable_sort(nodes, std::ranges::greater{}, order);
  if (nodes.size() > n) nodes.resize(n);
  return nodes;
}

/// All of them without their numbers, largest first.
template <class Order = ByMagnitude>
[[nodiscard]] std::vector<Node> in_order(std::vector<NodeAttribution> nodes, Order order = {}) {
  const auto count = nodes.size();
  std::vector<Node> out;
  for (const auto& a : strongest(
           std::move(nodes), count, [](const Node&) { return true; }, order)) {
    out.push_back(a.node);
  }
  return out;
}

}  // namespace circuit

namespace circuit::detail {

/// Adds what one block's writes give a position's features, `out`, to the metric.
inline void add_attributions(std::span<NodeAttribution> out, const PositionSources& here, const WriteBlock& block,
                             Position p, const OutputGradients& gradients) {
  for (std::size_t depth = 0; depth + 1 < block.before.size(); ++depth) {
    const auto first = block.before[depth];
    const auto count = block.before[depth + 1] - first;
    if (count == 0) continue;
    const auto& grads = gradients.at_depth(static_cast<std::int64_t>(depth));
    const auto first_prompt = block.only ? block.only->value : 0;
    const auto prompts = block.only ? 1 : grads.size(0);
    const auto on_writes = grads.narrow(0, first_prompt, prompts)
                               .select(1, p.value)
                               .matmul(block.writes.narrow(0, first, count).t())
                               .to(at::kCPU, at::kDouble)
                               .contiguous();  // [prompts, count]
    for (std::int64_t b = 0; b < prompts; ++b) {
      const auto* activation =
          here.activation.data() + here.slot(Prompt{static_cast<std::int32_t>(first_prompt + b)}, 0);
      const auto* effect = data_of<double>(on_writes) + b * count;
      for (std::int64_t i = 0; i < count; ++i) {
        const auto feature = block.feature[static_cast<std::size_t>(first + i)];
        out[static_cast<std::size_t>(feature)].attribution +=
            effect[i] * activation[feature] / static_cast<double>(grads.size(0));
      }
    }
  }
}

}  // namespace circuit::detail

namespace circuit {

template <FinalNorm Final, Architecture A, Dictionaries Set, Metric M, ContrastRule Contrast>
std::vector<NodeAttribution> node_attributions(const HookedTransformer<A>& model, const Set& dictionaries,
                                               const at::Tensor& clean, const at::Tensor& corrupt, const M& metric,
                                               const Contrast& contrast) {
  const c10::AutoGradMode no_gradient{false};
  const auto lin =
      linearize<Final>(model, dictionaries, clean, Contrast::needs_corrupt ? corrupt : at::Tensor{}, metric);
  const auto sources = Sources::pack(model, dictionaries, lin, contrast, {.errors = false, .embeddings = false});
  std::vector<NodeAttribution> out;
  for (std::int32_t p = 0; p < sources.length(); ++p) {
    const auto& here = sources.at(Position{p});
    const auto start = out.size();
    for (const auto& node : here.features) out.push_back({node, 0.0});
    const auto of_position = std::span{out}.subspan(start);
    for (const auto& block : here.blocks)
      detail::add_attributions(of_position, here, block, Position{p}, lin.gradients);
  }
  return out;
}

}  // namespace circuit
