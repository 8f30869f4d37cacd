#include "circuit/model/generate.hpp"

#include "circuit/model/edit.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

/// Greedy tokens and their logits by running everything again for every token.
template <class Model, class... Attached>
Generated recomputed(const Model& model, at::Tensor tokens, std::int64_t count, Attached... attached) {
  std::vector<at::Tensor> logits;
  for (std::int64_t i = 0; i < count; ++i) {
    auto fresh = std::tuple{attached...};
    const auto all = std::apply([&](auto&... a) { return model.run(tokens, a...).logits; }, fresh);
    logits.push_back(all.select(1, -1));
    tokens = make::cat({tokens, logits.back().argmax(-1).unsqueeze(1)}, 1);
  }
  return {tokens, make::stack(logits, 1)};
}

template <class... Attached>
void check_same(const Generated& found, const Generated& expected) {
  REQUIRE_CLOSE(found.logits, expected.logits, 1e-9);
  CHECK(found.tokens.equal(expected.tokens));
}

at::Tensor prompts() { return random_model::Source{7}.tokens(3, 5, 23); }

/// A steering vector on the stream, head-wise edits of keys, values and patterns.
template <class Model>
auto steering(const Model& model) {
  const auto vector = random_model::Source{8}({model.config().d_model}, 0.5);
  return edit<hook::resid_post>([vector](const at::Tensor& resid, Layer) { return resid.add(vector); },
                                {.layers = {Layer{0}}});
}
auto key_and_value_edit() {
  return edit<hook::attn::rot_k, hook::attn::v>([](const at::Tensor& x, Layer) { return x.mul(1.3); },
                                                {.heads = {Head{1}}});
}

}  // namespace

TEMPLATE_TEST_CASE("generation with kept keys and values equals computing everything again", "", Gpt2, Llama, GptNeox,
                   Gemma2, Plain, random_model::MixedParts) {
  const auto model = random_model::make<TestType>(5);
  const auto found = generate(model, prompts(), 6);
  CHECK(shape_of(found.tokens) == std::vector<std::int64_t>{3, 11});
  check_same(found, recomputed(model, prompts(), 6));
  CHECK(generate_tokens(model, prompts(), 6, choose::Greedy{}).equal(found.tokens));
}

TEMPLATE_TEST_CASE("steering acts on every position, once, and equals steering every recomputation", "", Gpt2, Llama,
                   GptNeox, Gemma2) {
  const auto model = random_model::make<TestType>(5);
  const auto found = generate(model, prompts(), 5, choose::Greedy{}, steering(model), key_and_value_edit());
  check_same(found, recomputed(model, prompts(), 5, steering(model), key_and_value_edit()));
  const auto plain = generate(model, prompts(), 5);
  CHECK_FALSE(difference(found.logits, plain.logits, 1e-3).close);
}

TEST_CASE("what acts on the prompt alone equals an edit at the prompt's positions") {
  const auto model = random_model::make<Llama>(5);
  const auto vector = random_model::Source{8}({model.config().d_model}, 0.5);
  const auto add = [vector](const at::Tensor& resid, Layer) { return resid.add(vector); };
  const Where two{.layers = {Layer{1}}, .positions = {Position{2}, Position{4}}};
  check_same(generate(model, prompts(), 5, choose::Greedy{}, prompt_only(edit<hook::resid_pre>(add, two))),
             recomputed(model, prompts(), 5, edit<hook::resid_pre>(add, two)));
  CHECK_THROWS_AS(generate(model, prompts(), 2, choose::Greedy{}, edit<hook::resid_pre>(add, two)), IndexError);
}

TEST_CASE("a prompt may be run in parts of any length") {
  const auto model = random_model::make<Gemma2>(5);
  const auto tokens = random_model::Source{9}.tokens(2, 9, 23);
  const auto whole = model.run(tokens).logits;
  KeyValueCache cache;
  std::int64_t start = 0;
  for (const std::int64_t size : {4, 1, 3, 1}) {
    const auto part = model.run(tokens.narrow(1, start, size), cache).logits;
    REQUIRE_CLOSE(part, whole.narrow(1, start, size), 1e-9);
    start += size;
    CHECK(cache.first_position().value == start);
  }
  CHECK_THROWS_AS(model.run(tokens.narrow(0, 0, 1).narrow(1, 0, 1), cache), ShapeError);
  CHECK_THROWS_AS(model.run(tokens.narrow(1, 0, 4), cache), ValueError);  // 9 + 4 are over 12
}

TEST_CASE("samples follow the probabilities, the same for one seed") {
  const auto logits = make::zeros({1, 3}, at::kDouble);
  logits[0][1].fill_(std::log(2.0));
  logits[0][2].fill_(std::log(5.0));
  const auto many = logits.expand({4000, 3});
  const auto drawn = choose::Sample{3}.next(many);
  CHECK(drawn.equal(choose::Sample{3}.next(many)));
  CHECK_FALSE(drawn.equal(choose::Sample{4}.next(many)));
  const auto share = [&](std::int64_t token) { return drawn.eq(token).sum().item<double>() / 4000; };
  CHECK(std::abs(share(0) - 0.125) < 0.02);  // four standard errors
  CHECK(std::abs(share(1) - 0.25) < 0.03);
  CHECK(std::abs(share(2) - 0.625) < 0.03);
  const auto cold = choose::Sample{3, 0.01}.next(many);
  CHECK(cold.eq(2).all().item<bool>());
  CHECK_THROWS_AS((choose::Sample{3, 0.0}), ValueError);
}

TEST_CASE("no tokens, and more than the context holds, are refused") {
  const auto model = random_model::make<Gpt2>(5);
  CHECK_THROWS_AS(generate(model, prompts(), 0), ValueError);
  CHECK_NOTHROW(generate(model, prompts(), 8));
  CHECK_THROWS_AS(generate(model, prompts(), 9), ValueError);  // the last would be computed at position 12 of 12
}
