#include "circuit/intervene/splice_crosscoder.hpp"

#include "circuit/intervene/module_values.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/model/edit.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct Crosscoded {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1, at::kDouble, 3);
  Crosscoder across = random_model::crosscoder(model.config(), 2, {Layer{0}, Layer{2}, Layer{3}});
  at::Tensor tokens = random_model::Source{3}.tokens(2, 6, model.config().d_vocab);
};

}  // namespace

TEST_CASE("a crosscoder with its errors is the model; what it misses is the stream less its reconstruction") {
  const Crosscoded s;
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  const auto run = describe_run(s.across, cache);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice_crosscoder(s.across, run.activations, run.errors)).logits, logits, 1e-12);
  const auto& last = cache.get<hook::resid_post>(Layer{2});
  REQUIRE_CLOSE(run.errors.select(2, 2), last.sub(s.across.decode(run.activations, Layer{3})), 1e-12);
  const auto dropped = s.model.run(s.tokens, splice_crosscoder(s.across, run.activations)).logits;
  REQUIRE_CLOSE(dropped, s.model.unembed(s.across.decode(run.activations, Layer{3})), 1e-12);
  REQUIRE(dropped.sub(logits).abs().max().item<double>() > 0.01);
}

TEST_CASE("a feature taken out of a crosscoder takes what it wrote out of every stream") {
  const Crosscoded s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto run = describe_run(s.across, cache);
  const auto feature = run.activations[0][4].narrow(0, 0, 14).argmax().item<std::int64_t>();
  REQUIRE(run.activations[0][4][feature].item<double>() > 0.1);
  auto acts = run.activations.clone();
  acts.select(1, 4).select(1, feature).zero_();
  auto recorder = record<hook::resid_pre, hook::resid_post>();
  const auto edited = s.model.run(s.tokens, splice_crosscoder(s.across, acts, run.errors), recorder).cache;
  for (const Layer layer : {Layer{0}, Layer{2}, Layer{3}}) {
    const auto was =
        layer.value == 0 ? cache.get<hook::resid_pre>(layer) : cache.get<hook::resid_post>(Layer{layer.value - 1});
    const auto is =
        layer.value == 0 ? edited.get<hook::resid_pre>(layer) : edited.get<hook::resid_post>(Layer{layer.value - 1});
    const auto wrote =
        run.activations.select(1, 4).select(1, feature).unsqueeze(1).mul(s.across.decoder(layer)[feature]);
    REQUIRE_CLOSE(was.sub(is).select(1, 4), wrote, 1e-12);
    REQUIRE_CLOSE(was.select(1, 3), is.select(1, 3), 1e-12);
  }
}

TEST_CASE("what splices dictionaries as a run goes has no place for a crosscoder") {
  const Crosscoded s;
  DictionarySet set;
  set.set_crosscoder(s.across);
  REQUIRE_THROWS_WITH(splice(set), circuit_test::ContainsSubstring("splice_crosscoder"));
  REQUIRE_THROWS_WITH(refuse_unless_within_layers(set, 3, "a test", {.stream = true}),
                      circuit_test::ContainsSubstring("has no place for crosscoders"));
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto run = describe_run(s.across, cache);
  REQUIRE_THROWS_AS(splice_crosscoder(s.across, run.errors), ShapeError);
  REQUIRE_THROWS_AS(s.model.run(s.tokens.narrow(0, 0, 1), splice_crosscoder(s.across, run.activations)), ShapeError);
}
