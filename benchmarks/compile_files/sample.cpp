// The documentation's program. With SECOND_SEARCH a second search under another keep policy is added (second_search.cpp).
#include <circuit/leap.hpp>
#include <iostream>

using namespace circuit;

int main() {
  auto model = load_model<Gpt2>("gpt2/", {.processing = weights::folded_and_centered});
  auto dictionaries = load_dictionaries("attn-saes/", "transcoders/");
  auto batch = load_contrast_batch("ioi_BABA.json", model.tokenizer(), {.size = 10});
  auto metric = LogitDifference{batch};

  const Leap search{.keep = keep::Above{.threshold = 0.04}, .chain = chain::ModelGradient{}};
  Circuit found = search(model, dictionaries, batch, metric);
  std::cout << edge_counts(found);

#ifdef SECOND_SEARCH
  const Leap another{.keep = SECOND_SEARCH, .chain = chain::ModelGradient{}};
  std::cout << edge_counts(another(model, dictionaries, batch, metric));
#endif

  auto c1 = ablate(dictionaries, {attn_feature(Layer{5}, Feature{7515}), attn_feature(Layer{6}, Feature{17410})},
                   on(batch.role("S2")));
  auto [logits, cache] = model.run(PromptPair{batch}.clean, c1, record<hook::attn::pattern>());
  std::cout << logits.sizes() << '\n';
}
