// Interventions on features of SAEs that read what an MLP writes.
#include <ATen/ops/zeros_like.h>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/intervene/splice_at.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct OnMlpOut {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1, at::kDouble, 3);
  DictionarySet dictionaries = random_model::mlp_out_dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(2, 6, model.config().d_vocab);
  Layer layer{1};

  [[nodiscard]] SparseDictionary<> sae() const { return {*dictionaries.mlp(layer), {}}; }
};

}  // namespace

TEST_CASE("a set's SAE on hook_mlp_out is spliced as by itself") {
  const OnMlpOut s;
  DictionarySet one;
  one.set_mlp(s.layer, s.sae(), MlpSite::mlp_out);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(one, error::Dropped{})).logits,
                s.model.run(s.tokens, splice_at<hook::mlp_out>(s.layer, s.sae(), StreamError::dropped)).logits, 1e-12);
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  const auto errors = error_terms(one, cache);
  const auto& out = cache.get<hook::mlp_out>(s.layer);
  REQUIRE_CLOSE(errors.get(Module::mlp, s.layer), out.sub(s.sae().reconstruct(out)), 1e-12);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries)).logits, logits, 1e-12);
}

TEST_CASE("ablating a feature of an SAE on hook_mlp_out takes away what it wrote") {
  const OnMlpOut s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto acts = s.sae().encode(cache.get<hook::mlp_out>(s.layer));
  const auto feature = acts[0][4].argmax().item<std::int32_t>();
  REQUIRE(acts[0][4][feature].item<double>() > 0.1);
  auto written = at::zeros_like(cache.get<hook::mlp_out>(s.layer));
  written.select(1, 4).copy_(acts.select(1, 4).select(1, feature).unsqueeze(1).mul(s.sae().W_dec[feature]));
  const auto without =
      edit<hook::mlp_out>([&](const at::Tensor& x, Layer) { return x.sub(written); }, {.layers = {s.layer}});
  auto ablated = ablate(s.dictionaries, {mlp_feature(s.layer, Feature{feature})}, on(Position{4}));
  REQUIRE_CLOSE(s.model.run(s.tokens, ablated).logits, s.model.run(s.tokens, without).logits, 1e-12);
}

TEST_CASE("a circuit of all nodes of SAEs on hook_mlp_out is the model") {
  const OnMlpOut s;
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  KeptNodes all;
  for (std::int32_t l = 0; l < 3; ++l) {
    for (const auto module : {Module::attn, Module::mlp}) {
      for (std::int32_t p = 0; p < 6; ++p) {
        all.errors.push_back({module, Layer{l}, Position{p}});
        for (std::int32_t f = 0; f < 20; ++f) all.features.push_back({{module, Layer{l}, Feature{f}}, Position{p}});
      }
    }
  }
  REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, all, cache)).logits, logits, 1e-10);
}
