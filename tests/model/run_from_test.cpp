#include "circuit/model/run_from.hpp"

#include "circuit/model/edit.hpp"
#include "random_model.hpp"

using namespace circuit;

TEMPLATE_TEST_CASE("the rest of a run equals the run, from every layer on", "", Gpt2, Llama, GptNeox, Gemma2) {
  const auto model = random_model::make<TestType>(5);
  const auto tokens = random_model::Source{7}.tokens(2, 5, 23);
  const auto half = edit<hook::attn::z>([](const at::Tensor& z, Layer) { return z.mul(0.5); }, {.layers = {Layer{1}}});
  const auto whole = model.run(tokens, record<hook::resid_pre, hook::resid_post>());
  const auto edited = model.run(tokens, half, record<hook::mlp_out>());
  for (const std::int32_t l : {0, 1}) {
    const auto start = whole.cache.template get<hook::resid_pre>(Layer{l});
    CHECK(run_from(model, Layer{l}, start).logits.equal(whole.logits));
    const auto rest = run_from(model, Layer{l}, start, half, record<hook::mlp_out>());
    CHECK(rest.logits.equal(edited.logits));
    CHECK(rest.cache.template get<hook::mlp_out>(Layer{1}).equal(edited.cache.template get<hook::mlp_out>(Layer{1})));
  }
  const auto last = whole.cache.template get<hook::resid_post>(Layer{1});
  CHECK(run_from(model, Layer{2}, last).logits.equal(whole.logits));
  CHECK_FALSE(whole.logits.equal(edited.logits));
}

TEST_CASE("a layer that is not there, and another stream, are refused") {
  const auto model = random_model::make<Gpt2>(5);
  CHECK_THROWS_AS(run_from(model, Layer{3}, random_model::Source{7}({2, 5, 16})), IndexError);
  CHECK_THROWS_AS(run_from(model, Layer{-1}, random_model::Source{7}({2, 5, 16})), IndexError);
  CHECK_THROWS_AS(run_from(model, Layer{0}, random_model::Source{7}({2, 5, 15})), ShapeError);
}
