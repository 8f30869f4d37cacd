// Interventions on features of dictionaries of the residual stream itself.
#include <ATen/ops/zeros_like.h>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "circuit/intervene/in_layers.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/intervene/splice_at.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct OnStream {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1, at::kDouble, 3);
  DictionarySet dictionaries = random_model::with_stream({}, model.config(), 2, {0, 2, 3});
  at::Tensor tokens = random_model::Source{3}.tokens(2, 6, model.config().d_vocab);

  [[nodiscard]] SparseDictionary<> sae(Layer layer) const { return {*dictionaries.stream(layer), {}}; }
};

}  // namespace

TEST_CASE("a set's SAEs of the residual stream are spliced as by themselves") {
  const OnStream s;
  const auto alone = s.model.run(s.tokens, splice(s.dictionaries, error::Dropped{})).logits;
  const auto dropped = StreamError::dropped;
  const auto by_hand = s.model.run(s.tokens, splice_at<hook::resid_pre>(Layer{0}, s.sae(Layer{0}), dropped),
                                   splice_at<hook::resid_pre>(Layer{2}, s.sae(Layer{2}), dropped),
                                   splice_at<hook::resid_post>(Layer{2}, s.sae(Layer{3}), dropped));
  REQUIRE_CLOSE(alone, by_hand.logits, 1e-12);
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries)).logits, logits, 1e-12);
  const auto errors = error_terms(s.dictionaries, cache);
  const auto& x = cache.get<hook::resid_post>(Layer{1});
  REQUIRE_CLOSE(errors.get(Module::stream, Layer{2}), x.sub(s.sae(Layer{2}).reconstruct(x)), 1e-12);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries, error::Frozen{errors})).logits, logits, 1e-12);
}

TEST_CASE("ablating features of the residual stream equals editing it") {
  const OnStream s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  for (const Layer layer : {Layer{0}, Layer{2}, Layer{3}}) {
    const auto x = input_of(s.dictionaries, cache, Module::stream, layer);
    const auto acts = s.sae(layer).encode(x);
    const auto feature = acts[0][4].argmax().item<std::int32_t>();
    REQUIRE(acts[0][4][feature].item<double>() > 0.1);
    auto written = at::zeros_like(x);
    written.select(1, 4).copy_(acts.select(1, 4).select(1, feature).unsqueeze(1).mul(s.sae(layer).W_dec[feature]));
    const auto take = [&](const at::Tensor& value, Layer) { return value.sub(written); };
    const auto without = layer.value < 3
                             ? s.model.run(s.tokens, edit<hook::resid_pre>(take, {.layers = {layer}})).logits
                             : s.model.run(s.tokens, edit<hook::resid_post>(take, {.layers = {Layer{2}}})).logits;
    const auto id = resid_feature(layer, Feature{feature});
    REQUIRE(to_string(id) == "resid." + std::to_string(layer.value) + '.' + std::to_string(feature));
    REQUIRE_CLOSE(s.model.run(s.tokens, ablate(s.dictionaries, {id}, on(Position{4}))).logits, without, 1e-12);
    if (layer.value == 0) continue;
    auto deleted = delete_at<hook::resid_post>(Layer{layer.value - 1}, s.model, s.dictionaries, {id}, on(Position{4}));
    REQUIRE_CLOSE(s.model.run(s.tokens, deleted).logits, without, 1e-12);
  }
  REQUIRE_THROWS_AS(ablate(s.dictionaries, {resid_feature(Layer{1}, Feature{0})}, on(Position{4})), NameError);
  REQUIRE_THROWS_AS(delete_at<hook::resid_pre>(Layer{1}, s.model, s.dictionaries, {resid_feature(Layer{2}, Feature{0})},
                                               on(Position{4})),
                    ValueError);
}

TEST_CASE("a circuit of all nodes of the residual stream is the model, one of none the reference") {
  const OnStream s;
  const auto other = random_model::Source{5}.tokens(2, 6, s.model.config().d_vocab);
  const auto reference = s.model.run(other, record_modules());
  KeptNodes all;
  for (const Layer layer : {Layer{0}, Layer{2}, Layer{3}}) {
    for (std::int32_t p = 0; p < 6; ++p) {
      all.errors.push_back({Module::stream, layer, Position{p}});
      for (std::int32_t f = 0; f < 20; ++f) all.features.push_back({resid_feature(layer, Feature{f}), Position{p}});
    }
  }
  const KeepCircuitOptions options{.features = Outside::reference, .errors = Outside::reference};
  REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, all, reference.cache, options)).logits,
                s.model.run(s.tokens).logits, 1e-10);
  REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, {}, reference.cache, options)).logits,
                reference.logits, 1e-10);
}

TEST_CASE("what has no place for dictionaries of the stream or of an MLP's output says so") {
  const OnStream s;
  REQUIRE_THROWS_AS(refuse_unless_within_layers(s.dictionaries, 3, "a test"), ConfigError);
  REQUIRE_NOTHROW(refuse_unless_within_layers(s.dictionaries, 3, "a test", {.stream = true}));
  const auto outputs = random_model::mlp_out_dictionaries(s.model.config(), 2);
  REQUIRE_THROWS_AS(refuse_unless_within_layers(outputs, 3, "a test", {.stream = true}), ConfigError);
  REQUIRE_NOTHROW(refuse_unless_within_layers(outputs, 3, "a test", {.mlp_out = true}));
}

TEST_CASE("a range of layers holds the stream before a layer as that layer's") {
  const OnStream s;
  const auto clean = s.model.run(s.tokens).logits;
  const auto dropped = StreamError::dropped;
  const auto only = [&](std::int32_t layer) {
    return s.model.run(s.tokens, in_layers({Layer{layer}, Layer{layer}}, splice(s.dictionaries, error::Dropped{})))
        .logits;
  };
  const auto by_hand = s.model.run(s.tokens, splice_at<hook::resid_pre>(Layer{2}, s.sae(Layer{2}), dropped)).logits;
  REQUIRE_CLOSE(only(2), by_hand, 1e-12);
  REQUIRE_CLOSE(only(3), s.model.run(s.tokens, splice_at<hook::resid_post>(Layer{2}, s.sae(Layer{3}), dropped)).logits,
                1e-12);
  REQUIRE(only(1).equal(clean));
  REQUIRE_FALSE(by_hand.allclose(clean, 1e-3, 1e-3));

  const auto set = random_model::with_stream({}, s.model.config(), 2, {0, 2});
  const auto reference = s.model.run(random_model::Source{5}.tokens(2, 6, s.model.config().d_vocab), record_modules());
  const auto from = [&](std::int32_t first) {
    const KeepCircuitOptions options{.first_layer = Layer{first}};
    return s.model.run(s.tokens, keep_circuit(set, {}, reference.cache, options)).logits;
  };
  auto none = keep_circuit(set, {}, reference.cache);
  REQUIRE_CLOSE(from(2), s.model.run(s.tokens, in_layers({Layer{2}, Layer{2}}, std::move(none))).logits, 1e-12);
  REQUIRE_FALSE(from(2).allclose(clean, 1e-3, 1e-3));
  REQUIRE(from(3).equal(clean));
  REQUIRE_CLOSE(from(1), from(2), 1e-12);  // no dictionary describes the stream before layer 1
}
