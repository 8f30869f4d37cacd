#include "circuit/model/process_weights.hpp"

#include <ATen/ops/zeros.h>

#include "circuit/model/record.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

template <Architecture A>
HookedTransformer<A> processed(const HookedTransformer<A>& raw, const weights::Processing& processing) {
  return {raw.config(), process_weights<A>(raw.weights(), raw.config(), processing), processing};
}

at::Tensor without_mean(const at::Tensor& x) { return x.sub(x.mean(-1, true)); }

}  // namespace

TEST_CASE(
    "every combination of processings leaves the function of a LayerNorm model, up to each position's mean logit") {
  const auto raw = random_model::make<Gpt2>(5);
  const auto tokens = random_model::Source{6}.tokens(3, 8, raw.config().d_vocab);
  const auto logits = raw.run(tokens).logits;
  for (int bits = 0; bits < 16; ++bits) {
    const weights::Processing processing{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
    INFO(bits);
    const auto after = processed(raw, processing).run(tokens).logits;
    if (processing.center_unembed) {
      REQUIRE_CLOSE(after, without_mean(logits), 1e-10);
    } else {
      REQUIRE_CLOSE(after, logits, 1e-10);
    }
  }
}

TEST_CASE("each processing does what its name says") {
  const auto raw = random_model::make<Gpt2>(5);
  const auto tokens = random_model::Source{6}.tokens(3, 8, raw.config().d_vocab);
  const auto all = processed(raw, weights::folded_and_centered);
  REQUIRE_FALSE(all.weights().ln_final.gain.defined());
  REQUIRE_FALSE(all.weights().blocks[1].attn.b_V.defined());
  const auto cache = all.run(tokens, record<hook::resid_post, hook::ln2::normalized, hook::attn::v>()).cache;
  const auto zero = at::zeros({3, 8}, at::kDouble);
  REQUIRE_CLOSE(cache.get<hook::resid_post>(Layer{1}).mean(-1), zero, 1e-12);       // writers are centred
  REQUIRE_CLOSE(cache.get<hook::ln2::normalized>(Layer{1}).mean(-1), zero, 1e-12);  // and no bias is left in the norm
  REQUIRE_CLOSE(all.weights().W_U.mean(-1), at::zeros({raw.config().d_model}, at::kDouble), 1e-12);
  const auto raw_cache = raw.run(tokens, record<hook::resid_post, hook::attn::v>()).cache;
  REQUIRE_FALSE(difference(raw_cache.get<hook::resid_post>(Layer{1}).mean(-1), zero, 1e-3).close);
  const auto& b_V = raw.weights().blocks[0].attn.b_V;
  const auto only_values = processed(raw, {.fold_value_biases = true});
  const auto folded = only_values.run(tokens, record<hook::attn::v>()).cache.get<hook::attn::v>(Layer{0});
  REQUIRE_CLOSE(raw_cache.get<hook::attn::v>(Layer{0}), folded.add(b_V.view({4, 4})), 1e-12);
}

TEST_CASE("an RMSNorm model with grouped queries folds exactly, and centring is refused") {
  const auto raw = random_model::make<Llama>(7);
  const auto tokens = random_model::Source{8}.tokens(2, 8, raw.config().d_vocab);
  const auto logits = raw.run(tokens).logits;
  const weights::Processing folded{.fold_norms = true, .fold_value_biases = true};
  REQUIRE_CLOSE(processed(raw, folded).run(tokens).logits, logits, 1e-10);
  REQUIRE_CLOSE(processed(raw, {.center_unembed = true}).run(tokens).logits, without_mean(logits), 1e-10);
  REQUIRE_THROWS_AS(processed(raw, {.center_writing = true}), ConfigError);
}

TEMPLATE_TEST_CASE("what is exact leaves the function, in parallel blocks, behind post-norms and without norms", "",
                   GptNeox, Gemma2, random_model::MixedParts, Plain, AttentionOnly) {
  using A = TestType;
  const auto raw = random_model::make<A>(9);
  const auto tokens = random_model::Source{10}.tokens(2, 8, raw.config().d_vocab);
  const auto logits = raw.run(tokens).logits;
  constexpr bool may_center_writing = A::Norm::centers && !A::Wiring::post_norms;
  const bool may_center_unembed = raw.config().logit_soft_cap == 0;
  for (int bits = 0; bits < 16; ++bits) {
    const weights::Processing processing{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0};
    INFO(bits);
    if ((processing.center_writing && !may_center_writing) || (processing.center_unembed && !may_center_unembed)) {
      REQUIRE_THROWS_AS(processed(raw, processing), ConfigError);
    } else {
      const auto after = processed(raw, processing).run(tokens).logits;
      REQUIRE_CLOSE(after, processing.center_unembed ? without_mean(logits) : logits, 1e-10);
    }
  }
}

TEST_CASE("a refusal says why") {
  const auto why = [](const auto& raw, const weights::Processing& processing) {
    try {
      (void)processed(raw, processing);
    } catch (const ConfigError& error) {
      return std::string{error.what()};
    }
    return std::string{};
  };
  REQUIRE_THAT(why(random_model::make<Llama>(1), {.center_writing = true}),
               ContainsSubstring("does not subtract the mean"));
  REQUIRE_THAT(why(random_model::make<random_model::MixedParts>(1), {.center_writing = true}),
               ContainsSubstring("post-norm"));
  REQUIRE_THAT(why(random_model::make<Gemma2>(1), {.center_unembed = true}), ContainsSubstring("soft cap"));
}

TEST_CASE("the weights that come in are left as they are") {
  const auto raw = random_model::make<Gpt2>(5);
  const auto before = raw.weights().W_E.clone();
  const auto value_bias = raw.weights().blocks[0].attn.b_V.clone();
  (void)processed(raw, weights::folded_and_centered);
  REQUIRE_CLOSE(raw.weights().W_E, before, 0.0);
  REQUIRE_CLOSE(raw.weights().blocks[0].attn.b_V, value_bias, 0.0);
}
