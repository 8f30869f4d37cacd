#pragma once

#include "circuit/model/record.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/keep/above.hpp"

namespace circuit {

/// Information flow routes: how near each sender's write lies to the stream that a receiver reads, by the L1 norm, as a
/// share of all that the receiver reads. Neither a metric nor corrupt prompts are needed; all readers of one stream get
/// the same scores.
/// source  Ferrando and Voita 2024
template <KeepRule Keep = keep::Above>
struct InformationFlowRoutes {
  [[no_unique_address]] Keep keep{};

  /// Every edge's share, a mean over positions and prompts; where there are any, a receiver's sum to 1.
  /// return  [senders, receivers] float64 on the CPU
  template <Architecture A>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const at::Tensor& tokens) const;

  template <Architecture A>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const at::Tensor& tokens) const {
    const auto components = Components::of(model);
    const auto all = scores(model, tokens);
    return component_circuit(components, all, keep_edges(components, all, keep),
                             {.prompts = static_cast<std::int32_t>(tokens.size(0))});
  }
};

}  // namespace circuit

namespace circuit::detail {

/// writes [senders, batch, pos, d_model]   stream [batch, pos, d_model]   return [senders]
[[nodiscard]] inline at::Tensor flow_shares(const at::Tensor& writes, const at::Tensor& stream) {
  const auto l1 = [](const at::Tensor& x) { return x.abs().sum(-1); };
  const auto proximity = l1(stream).sub(l1(stream.sub(writes))).clamp_min(0);
  const auto total = proximity.sum(0);
  return proximity.div(total.masked_fill(total.eq(0), 1)).mean(at::IntArrayRef{1, 2});
}

}  // namespace circuit::detail

template <circuit::KeepRule Keep>
template <circuit::Architecture A>
at::Tensor circuit::InformationFlowRoutes<Keep>::scores(const HookedTransformer<A>& model,
                                                        const at::Tensor& tokens) const {
  const auto c = Components::of(model);
  const auto writes = sender_writes(model, tokens);
  const auto run = model.run(tokens, record<hook::resid_pre, hook::mlp_in, hook::resid_post>()).cache;
  auto scores = make::zeros({c.senders(), c.receivers()}, at::kDouble);
  const auto fill = [&](std::int64_t first, std::int64_t readers, const at::Tensor& stream) {
    const auto before = c.before(first);
    const auto shares = detail::flow_shares(writes.narrow(0, 0, before), stream);
    scores.narrow(0, 0, before).narrow(1, first, readers).copy_(shares.unsqueeze(1).expand({-1, readers}));
  };
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    const Layer layer{l};
    fill(c.first_query(layer), 3 * c.n_heads, run.template get<hook::resid_pre>(layer));
    if (c.mlps) fill(c.mlp_in(layer), 1, run.template get<hook::mlp_in>(layer));
  }
  fill(c.logits(), 1, run.template get<hook::resid_post>(Layer{static_cast<std::int32_t>(c.n_layers - 1)}));
  return scores;
}
