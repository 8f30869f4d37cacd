// A search of one's own over heads and MLPs, made of the library's blocks: an edge counts by its effect on the metric and
// by how far corruption moves what the sender writes.
#include <iostream>

#include "circuit/evaluate/faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/search/component_circuit.hpp"
#include "circuit/search/receiver_gradients.hpp"

using namespace circuit;

struct MovedEdges {
  template <Architecture A, Metric M>
  [[nodiscard]] at::Tensor scores(const HookedTransformer<A>& model, const PromptPair& prompts, const M& metric) const {
    const auto change = sender_writes(model, prompts.clean).sub(sender_writes(model, prompts.corrupt));
    const auto gradients = receiver_gradients(model, prompts.clean, metric);
    const auto effects = edge_products(Components::of(model), change, gradients);
    const auto moved = change.flatten(1).norm(2, at::IntArrayRef{1});
    return effects.mul(moved.div(moved.max()).to(effects.options()).unsqueeze(1));
  }
};

int main() {
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model", {.dtype = at::kDouble});
  const auto batch = load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(), {.size = 10});
  const PromptPair prompts{to_tokens(batch.clean), to_tokens(batch.corrupt)};
  const LogitDifference metric{batch};

  const auto scores = MovedEdges{}.scores(model, prompts, metric);
  const EdgeEvaluation judge{model, prompts, metric};
  std::cout << component_circuit(judge.components(), scores, top_edges(scores, 5)).edge_count() << " edges\n";
  const std::vector<double> shares{0.2, 0.5, 1.0};
  std::cout.precision(2);
  for (const auto& point : judge.curve(scores, shares)) {
    std::cout << point.edges << " edges: faithfulness " << std::fixed << point.faithfulness << '\n';
  }
}
