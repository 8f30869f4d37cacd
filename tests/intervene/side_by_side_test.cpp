#include "circuit/intervene/side_by_side.hpp"

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/in_layers.hpp"
#include "circuit/intervene/replace.hpp"
#include "circuit/intervene/splice.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

at::Tensor two_prompts() { return random_model::Source{7}.tokens(2, 5, 23); }

}  // namespace

TEMPLATE_TEST_CASE("interventions beside each other equal each alone", "", Gpt2, Llama, Gemma2) {
  const auto model = random_model::make<TestType>(5);
  using Ablation = decltype(replace<hook::attn::z>(with::Zero{}));
  std::vector<Ablation> heads;
  for (std::int32_t l = 0; l < 2; ++l) {
    for (std::int32_t h = 0; h < 4; ++h) {
      heads.push_back(replace<hook::attn::z>(with::Zero{}, {.layers = {Layer{l}}, .heads = {Head{h}}}));
    }
  }
  const auto together = run_side_by_side(model, two_prompts(), heads);
  CHECK(shape_of(together) == std::vector<std::int64_t>{8, 2, 5, 23});
  for (std::size_t i = 0; i < heads.size(); ++i) {
    const auto alone = model.run(two_prompts(), heads[i]).logits;
    REQUIRE_CLOSE(together[static_cast<std::int64_t>(i)], alone, 1e-9);
    CHECK_FALSE(difference(alone, model.run(two_prompts()).logits, 1e-4).close);
  }
}

TEST_CASE("interventions of different kinds, on features and on activations, run beside each other") {
  const auto model = random_model::make<Llama>(5);
  const auto dictionaries = random_model::dictionaries(model.config(), 6);
  const auto feature = ablate(dictionaries, {attn_feature(Layer{0}, Feature{3})}, everywhere);
  const auto other = model.run(random_model::Source{8}.tokens(2, 5, 23), record<hook::mlp_out>()).cache;
  const auto patch = replace<hook::mlp_out>(with::Run{other}, {.layers = {Layer{1}}});
  const auto replacement = splice(dictionaries, error::Dropped{});
  using Any =
      std::variant<std::decay_t<decltype(feature)>, std::decay_t<decltype(patch)>, std::decay_t<decltype(replacement)>>;
  const auto together = run_side_by_side(model, two_prompts(), std::vector<Any>{patch, feature, replacement, feature});
  REQUIRE_CLOSE(together[0], model.run(two_prompts(), patch).logits, 1e-9);
  REQUIRE_CLOSE(together[1], model.run(two_prompts(), std::decay_t<decltype(feature)>{feature}).logits, 1e-9);
  REQUIRE_CLOSE(together[2], model.run(two_prompts(), std::decay_t<decltype(replacement)>{replacement}).logits, 1e-9);
  REQUIRE_CLOSE(together[3], together[1], 1e-12);
}

TEST_CASE("none, and a batch that cannot be shared out, are refused") {
  const auto model = random_model::make<Gpt2>(5);
  const auto zero = replace<hook::attn::z>(with::Zero{});
  using Ablation = std::decay_t<decltype(zero)>;
  CHECK_THROWS_AS(run_side_by_side(model, two_prompts(), std::vector<Ablation>{}), ValueError);
  SideBySide three{std::vector{zero, zero, zero}};
  CHECK_THROWS_AS(model.run(two_prompts(), three), ValueError);
}

TEST_CASE("an attachment in a range of layers is the attachment given those layers") {
  const auto model = random_model::make<Gpt2>(5);
  const auto zero = with::Zero{};
  auto ranged = in_layers({Layer{1}, Layer{1}}, replace<hook::attn::z, hook::mlp_out>(zero));
  const auto listed = replace<hook::attn::z, hook::mlp_out>(zero, {.layers = {Layer{1}}});
  CHECK(model.run(two_prompts(), ranged).logits.equal(model.run(two_prompts(), listed).logits));
  auto both = in_layers({Layer{0}, Layer{1}}, replace<hook::attn::z>(zero));
  CHECK(model.run(two_prompts(), both).logits.equal(model.run(two_prompts(), replace<hook::attn::z>(zero)).logits));
  // Points without a layer pass.
  auto embed = in_layers({Layer{1}, Layer{1}}, replace<hook::embed>(zero));
  CHECK(model.run(two_prompts(), embed).logits.equal(model.run(two_prompts(), replace<hook::embed>(zero)).logits));
  CHECK_THROWS_AS(in_layers({Layer{1}, Layer{0}}, replace<hook::attn::z>(zero)), ValueError);
  CHECK_THROWS_AS(in_layers({Layer{-1}, Layer{0}}, replace<hook::attn::z>(zero)), ValueError);
}
