// Find the features that carry a metric, and the edges between them.
#include <circuit/graph/path.hpp>
#include <circuit/leap.hpp>
#include <iostream>

using namespace circuit;

int main() {
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model", {.dtype = at::kDouble});
  const auto dictionaries =
      load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders", {.dtype = at::kDouble});
  const auto batch = load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(), {.size = 10});

  const Leap search{.keep = keep::Above{.threshold = 0.02}};  // name what you change; the rest is the default
  const Circuit found = search(model, dictionaries, batch, LogitDifference{batch});

  std::cout << found << '\n';
  for (const auto& [layer, counts] : edge_counts_by_layer(found)) std::cout << layer << ": " << counts << '\n';
  if (const auto path = strongest_path(found, Node::embedding(batch.role("S2")), Node::metric()))
    std::cout << *path << '\n';
}
