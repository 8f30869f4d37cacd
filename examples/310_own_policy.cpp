// A search of one's own: a policy is a struct of a few lines.
#include <circuit/leap.hpp>
#include <iostream>

using namespace circuit;

// Models KeepRule: the ten largest edges into every target that are also over a threshold.
struct TenLargestAbove {
  double threshold = 0.0;

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const {
    const auto largest = top_n_per_target(scores.magnitude(), 10);
    return {largest.kept.logical_and(scores.magnitude().gt(threshold))};
  }
  [[nodiscard]] bool passes(double score) const { return std::abs(score) > threshold; }
};

// Models ContrastRule: only features that the corrupt prompt silences altogether count.
struct SilencedByCorruption {
  static constexpr bool needs_corrupt = true;
  [[nodiscard]] double activation(double clean, double corrupt) const { return corrupt == 0 ? clean : 0; }
};

int main() {
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model", {.dtype = at::kDouble});
  const auto dictionaries =
      load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders", {.dtype = at::kDouble});
  const auto batch = load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(), {.size = 10});

  const Leap mine{
      .keep = TenLargestAbove{.threshold = 0.02}, .chain = chain::GraphPath{}, .contrast = SilencedByCorruption{}};
  std::cout << edge_counts(mine(model, dictionaries, batch, LogitDifference{batch})) << '\n';
}
