// Ablate the features that a circuit holds at one word, and see what is left of the metric.
#include <circuit/evaluate/clusters.hpp>
#include <circuit/leap.hpp>
#include <circuit/report/table.hpp>
#include <iostream>

using namespace circuit;

int main() {
  const auto model = load_model<Gpt2>(CIRCUIT_EXAMPLE_DATA "/model", {.dtype = at::kDouble});
  const auto dictionaries =
      load_dictionaries(CIRCUIT_EXAMPLE_DATA "/attn-saes", CIRCUIT_EXAMPLE_DATA "/transcoders", {.dtype = at::kDouble});
  const auto batch = load_contrast_batch(CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json", model.tokenizer(), {.size = 10});
  const LogitDifference metric{batch};
  const Circuit found = Leap{.keep = keep::Above{.threshold = 0.1}}(model, dictionaries, batch, metric);

  std::vector<FeatureId> features;
  for (const auto& node : attention_features_at(found, batch.role("S2"), 3)) {
    features.push_back(attn_feature(node.layer, node.feature));
    std::cout << node << '\n';
  }
  const auto tokens = to_tokens(batch.clean);
  const auto clean = mean(metric, model.run(tokens).logits).item<double>();
  const auto without = model.run(tokens, ablate(dictionaries, features, on(batch.role("S2")))).logits;
  const auto ablated = mean(metric, without).item<double>();
  std::cout << "clean logit diff = " << fixed(clean, 1) << "\nablated logit diff = " << fixed(ablated, 1)
            << "\npercent logit diff reduction = " << fixed(percent_reduction(clean, ablated), 0) << "%\n";
}
