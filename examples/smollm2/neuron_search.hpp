#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/intervene/patch_units.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/record.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/mask_attributions.hpp"
#include "circuit/search/node_attributions.hpp"
#include "ioi_task.hpp"

/// What of a model without any dictionary answers "Alice": its own neurons and head dimensions, searched and ablated.
namespace smollm2 {

using circuit::Node;
using circuit::NodeAttribution;
using circuit::UnitMask;

/// A choice of units for the position-wise intervention.
[[nodiscard]] inline UnitMask mask_of(const circuit::ModelConfig& config, std::int64_t length,
                                      const std::vector<Node>& nodes) {
  UnitMask mask{config, length};
  for (const auto& n : nodes) mask.choose(circuit::is_attention(n.kind), n.layer, n.position, n.feature);
  return mask;
}

/// As many nodes of each layer and kind as the circuit has, none of them its own: the first of `ordered` that are left.
[[nodiscard]] inline std::vector<Node> matched(const std::vector<Node>& circuit, const std::vector<Node>& ordered,
                                               const UnitMask& of_circuit) {
  std::map<std::pair<circuit::NodeKind, circuit::Layer>, std::size_t> wanted;
  for (const auto& n : circuit) ++wanted[{n.kind, n.layer}];
  std::vector<Node> out;
  for (const auto& n : ordered) {
    auto& left = wanted[{n.kind, n.layer}];
    if (left == 0 || of_circuit.has(circuit::is_attention(n.kind), n.layer, n.position, n.feature)) continue;
    out.push_back(n);
    --left;
  }
  return out;
}

/// Units behind position 0 in several orders.
struct RankedUnits {
  std::vector<Node> by_mask;  ///< what they are worth on the ways to all units from none, summed over two kinds of none
  std::vector<Node> by_gradient;  ///< what the gradient at the clean run says they are worth, as LEAP has it
  std::vector<Node> by_change;    ///< how much they differ between clean and corrupt prompts
  std::vector<Node> shuffled;

  /// A share of the units, the first by mask.
  [[nodiscard]] std::vector<Node> circuit(double share) const {
    const auto size = static_cast<std::size_t>(share * static_cast<double>(shuffled.size()));
    return {by_mask.begin(), by_mask.begin() + static_cast<std::ptrdiff_t>(std::min(size, by_mask.size()))};
  }
};

/// Values at some points of every prompt, without the logits.
/// edits  attachments before the recorder
template <circuit::HookPoint... Points, class Model, class... Edits>
[[nodiscard]] auto values_at(const Model& model, const at::Tensor& tokens, const Edits&... edits) {
  const c10::AutoGradMode no_gradient{false};
  circuit::Recorder<Points...> recorder;
  using circuit::Layer;
  const Layer end{static_cast<std::int32_t>(model.config().n_layers)};
  (void)model.blocks(model.embed(tokens, edits..., recorder), Layer{0}, end, edits..., recorder);
  return std::move(recorder).cache();
}

/// What interventions give to units, of every prompt.
template <class Model>
[[nodiscard]] auto unit_values(const Model& model, const at::Tensor& tokens) {
  return values_at<circuit::hook::attn::z, circuit::hook::mlp::post>(model, tokens);
}

/// Mean over prompts of |clean - corrupt|, [pos, units] float32, by whether it is of attention and by layer.
template <class Model>
[[nodiscard]] auto unit_changes(const Model& model, const circuit::PromptPair& prompts) {
  using namespace circuit;
  const auto clean = unit_values(model, prompts.clean);
  const auto corrupt = unit_values(model, prompts.corrupt);
  std::map<std::pair<bool, Layer>, at::Tensor> change;
  clean.for_each([&]<class P>(P, Layer layer, const at::Tensor& value) {
    const auto mean = value.sub(corrupt.template get<P>(layer)).flatten(2).abs().mean(0).contiguous();
    change[{std::same_as<P, hook::attn::z>, layer}] = mean;
  });
  return change;
}

/// What units are worth, in metric units.
using Worth = std::map<Node, double>;

/// What units behind position 0 are worth on the way from what they hold on other prompts to what they hold on these, mean
/// over prompts; a few prompts at a time, so that memory does not grow with them.
/// reference  prompts whose mean is where the way starts; none: each prompt's own corrupt values
template <class Model, class Basis>
[[nodiscard]] Worth worth_of_units(const Model& model, const Basis& basis, const circuit::ContrastBatch& batch,
                                   const circuit::ContrastBatch* reference = nullptr) {
  using namespace circuit;
  constexpr std::size_t at_once = 8;
  const auto from = reference != nullptr ? Outside::reference_mean : Outside::reference;
  Worth worth;
  for (std::size_t first = 0; first < batch.size(); first += at_once) {
    const auto part = batch.slice(first, std::min(at_once, batch.size() - first));
    const PromptPair prompts{part};
    const auto start = reference != nullptr ? PromptPair{*reference}.clean : prompts.corrupt;
    for (const auto& a : mask_attributions(model, basis, prompts.clean, start, LogitDifference{part},
                                           {.steps = 5, .outside = from, .embeddings = false, .first = Position{1}})) {
      worth[a.node] += a.attribution * static_cast<double>(part.size()) / static_cast<double>(batch.size());
    }
  }
  return worth;
}

/// Most worth first.
[[nodiscard]] inline std::vector<Node> by_worth(const Worth& worth) {
  std::vector<NodeAttribution> all;
  for (const auto& [node, value] : worth) all.push_back({node, value});
  return circuit::in_order(std::move(all), circuit::ByValue{});
}

/// What a circuit is set to when it is ablated, corrupt values, and what stands for the units outside of it, means over
/// other prompts, ask for different units: a mean keeps what all prompts of the template share, such as that S2 is a
/// repetition, which corrupt prompts lack. So the units are ranked by the sum of the two ways.
/// others  prompts whose means stand for what a unit holds outside a circuit
template <class Model, class Basis>
[[nodiscard]] RankedUnits rank_units(const Model& model, const Basis& basis, const circuit::ContrastBatch& batch,
                                     const circuit::ContrastBatch& others) {
  using namespace circuit;
  const PromptPair prompts{batch};
  const LogitDifference metric{batch};
  RankedUnits out;
  auto worth = worth_of_units(model, basis, batch, &others);
  for (const auto& [node, value] : worth_of_units(model, basis, batch)) worth[node] += value;
  out.by_mask = by_worth(worth);

  auto all = node_attributions(model, basis, prompts.clean, prompts.corrupt, metric);
  std::erase_if(all, [](const NodeAttribution& a) { return a.node.position == Position{0}; });
  const auto change = unit_changes(model, prompts);
  std::vector<std::pair<float, Node>> changes;
  for (const auto& a : all) {
    const auto& of_layer = change.at({is_attention(a.node.kind), a.node.layer});
    changes.emplace_back(
        of_layer.template data_ptr<float>()[a.node.position.value * of_layer.size(1) + a.node.feature.value], a.node);
  }
  std::ranges::stable_sort(changes, std::ranges::greater{}, &std::pair<float, Node>::first);
  for (const auto& [amount, node] : changes) out.by_change.push_back(node);

  for (const auto& a : all) out.shuffled.push_back(a.node);
  data::Random random{1};
  for (std::size_t i = out.shuffled.size(); i > 1; --i) std::swap(out.shuffled[i - 1], out.shuffled[random.below(i)]);
  out.by_gradient = in_order(std::move(all), ByMagnitude{});
  return out;
}

/// LEAP's targets: the nodes named, whichever edges are kept.
struct TheseTargets {
  std::vector<Node> nodes{};

  void add(circuit::TargetSet& set, circuit::NodeKind kind, circuit::Layer layer, const circuit::ActiveFeatures&,
           std::int64_t) const {
    for (const auto& n : nodes) {
      if (n.kind == kind && n.layer == layer) set.insert(n);
    }
  }
  void reached(circuit::TargetSet&, const Node&) const {}
};

/// Mean logit difference on prompts, some units replaced.
template <class Model, class... Attachments>
[[nodiscard]] double logit_difference(const Model& model, const circuit::ContrastBatch& batch,
                                      Attachments... attachments) {
  const c10::AutoGradMode no_gradient{false};
  const auto last = last_logits(model, circuit::PromptPair{batch}.clean, attachments...);
  return circuit::LogitDifference{batch}.per_prompt(last.unsqueeze(1)).mean().template item<double>();
}

/// The mean over prompts of every recorded unit, as one prompt's recording.
template <class Cache>
[[nodiscard]] Cache mean_values(const Cache& cache) {
  Cache out;
  cache.for_each([&]<class P>(P, circuit::Layer layer, const at::Tensor& value) {
    out.template put<P>(layer, value.mean(0, /*keepdim=*/true));
  });
  return out;
}

struct HeadEffect {
  circuit::Layer layer{};
  circuit::Head head{};
  double strength = 0;  ///< by which it was found
  double without = 0;   ///< logit difference when the head has its corrupt values

  [[nodiscard]] std::string name() const { return std::to_string(layer.value) + '.' + std::to_string(head.value); }
};

/// The heads whose mean pattern, times a weight over 0, is largest from one position to another, the first first.
template <class Weight>
[[nodiscard]] std::vector<HeadEffect> strongest_heads(const circuit::ModelConfig& config, const auto& patterns,
                                                      circuit::Position from, circuit::Position to, std::size_t count,
                                                      Weight&& weight) {
  std::vector<HeadEffect> heads;
  for (std::int32_t l = 0; l < config.n_layers; ++l) {
    const auto& pattern = patterns.template get<circuit::hook::attn::pattern>(circuit::Layer{l});
    for (std::int32_t h = 0; h < config.n_heads; ++h) {
      const auto attends =
          pattern.select(1, h).select(1, from.value).select(1, to.value).mean().template item<double>();
      const double strength = attends * weight(circuit::Layer{l}, circuit::Head{h});
      if (strength > 0) heads.push_back({circuit::Layer{l}, circuit::Head{h}, strength, 0});
    }
  }
  std::ranges::stable_sort(heads, std::ranges::greater{}, &HeadEffect::strength);
  heads.resize(std::min(count, heads.size()));
  return heads;
}

/// All dimensions of a head, behind position 0.
[[nodiscard]] inline UnitMask mask_of_head(const circuit::ModelConfig& config, std::int64_t length,
                                           const HeadEffect& head) {
  UnitMask mask{config, length};
  for (std::int32_t p = 1; p < length; ++p) {
    for (std::int64_t i = 0; i < config.d_head; ++i) {
      const auto unit = head.head.value * config.d_head + i;
      mask.choose(true, head.layer, circuit::Position{p}, circuit::Feature{static_cast<std::int32_t>(unit)});
    }
  }
  return mask;
}

}  // namespace smollm2
