#pragma once

#include <concepts>
#include <cstdint>
#include <vector>

#include "circuit/metric/metric.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/gradient_rule.hpp"
#include "circuit/model/run_from.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/prompt_pair.hpp"
#include "circuit/search/receiver_gradients.hpp"

namespace circuit {

/// How much of the metric each component carries, exactly: the clean metric minus the metric of a clean run in which
/// the component's output, and nothing else, is the corrupt run's. One forward pass per component, from its layer on.
/// source  Vig et al. 2020; Meng et al. 2022, there on restored rather than corrupted nodes
struct ActivationPatching {
  /// return  [senders] float64 on the CPU, a mean over prompts in metric units
  /// throws  ShapeError for prompts that do not line up, and what the model and the metric throw
  template <Architecture A, Metric M>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const PromptPair& prompts, const M& metric) const;
};

/// The same to first order from one backward pass: what each component gives on the clean run minus what it gives on
/// the corrupt one, times the metric's gradient at the clean run. source  Nanda 2023
template <GradientRule Rule = gradient_rule::Exact>
struct AttributionPatchingBy {
  /// As ActivationPatching::scores.
  template <Architecture A, Metric M>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const PromptPair& prompts, const M& metric) const;
};

using AttributionPatching = AttributionPatchingBy<>;

/// Every component with its score as a circuit without edges.
/// scores  [senders] float64
[[nodiscard]] inline Circuit node_circuit(const Components& c, const at::Tensor& scores, CircuitInfo info = {}) {
  check_shape(scores, {c.senders()}, "scores", {}, "one per sender");
  Circuit out{std::move(info)};
  for (std::int64_t s = 0; s < c.senders(); ++s) {
    out.add_node({.node = sender_node(c, s), .attribution = scores[s].item<double>()});
  }
  return out;
}

}  // namespace circuit

namespace circuit::detail {

using ModuleOutputs = ActivationCache<hook::resid_pre, hook::attn::z, hook::mlp_out>;

/// An attachment that gives one component the output it has in another run.
struct PatchSender {
  const ModuleOutputs& other;
  Node node;

  void visit(hook::resid_pre /*point*/, Layer layer, at::Tensor& value) const {
    if (node.kind == NodeKind::input && layer == Layer{0}) value = other.get<hook::resid_pre>(layer);
  }
  void visit(hook::attn::z /*point*/, Layer layer, at::Tensor& value) const {
    if (node.kind != NodeKind::head || layer != node.layer) return;
    value = value.clone();
    value.select(2, node.feature.value).copy_(other.get<hook::attn::z>(layer).select(2, node.feature.value));
  }
  void visit(hook::mlp_out /*point*/, Layer layer, at::Tensor& value) const {
    if (node.kind == NodeKind::mlp_block && layer == node.layer) value = other.get<hook::mlp_out>(layer);
  }
};

[[nodiscard]] inline auto record_outputs() { return record<hook::resid_pre, hook::attn::z, hook::mlp_out>(); }

}  // namespace circuit::detail

template <circuit::Architecture A, circuit::Metric M>
at::Tensor circuit::ActivationPatching::scores(const HookedTransformer<A>& model, const PromptPair& prompts,
                                               const M& metric) const {
  prompts.check();
  const auto c = Components::of(model);
  const auto outputs = model.run(prompts.corrupt, detail::record_outputs()).cache;
  const auto whole = model.run(prompts.clean, record<hook::resid_pre>());
  const auto clean = mean(metric, whole.logits).template item<double>();
  auto scores = make::empty({c.senders()}, at::kDouble);
  for (std::int64_t s = 0; s < c.senders(); ++s) {
    const auto node = sender_node(c, s);
    const auto from = node.kind == NodeKind::input ? Layer{0} : node.layer;
    const auto& stream = whole.cache.template get<hook::resid_pre>(from);
    const auto logits = run_from(model, from, stream, detail::PatchSender{outputs, node}).logits;
    scores[s].fill_(clean - mean(metric, logits).template item<double>());
  }
  return scores;
}

template <circuit::GradientRule Rule>
template <circuit::Architecture A, circuit::Metric M>
at::Tensor circuit::AttributionPatchingBy<Rule>::scores(const HookedTransformer<A>& model, const PromptPair& prompts,
                                                        const M& metric) const {
  prompts.check();
  const auto c = Components::of(model);
  const auto corrupt = model.run(prompts.corrupt, detail::record_outputs()).cache;
  const c10::AutoGradMode gradient{true};
  auto recorder = detail::record_outputs();
  const StartFrom leaf{};
  typename Rule::template For<A> rule;
  const auto value = mean(metric, model.forward(prompts.clean, leaf, rule, recorder));
  const auto gradients = gradients_at(value, recorder.cache());
  auto scores = make::zeros({c.senders()}, at::kDouble);
  recorder.cache().for_each([&]<class P>(P, Layer layer, const at::Tensor& clean) {
    const auto effect = clean.detach().sub(corrupt.template get<P>(layer)).mul(gradients.template get<P>(layer));
    if constexpr (std::same_as<P, hook::attn::z>) {
      scores.narrow(0, c.first_head(layer), c.n_heads).copy_(effect.sum(at::IntArrayRef{0, 1, 3}));
    } else if constexpr (std::same_as<P, hook::mlp_out>) {
      scores[c.mlp(layer)].copy_(effect.sum());
    } else if (layer == Layer{0}) {
      scores[0].copy_(effect.sum());
    }
  });
  return scores;
}
