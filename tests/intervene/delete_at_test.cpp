#include "circuit/intervene/delete_at.hpp"

#include <ATen/ops/full.h>

#include <limits>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/freeze_at.hpp"
#include "circuit/intervene/module_values.hpp"
#include "intervene/golden_dictionaries.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct DeleteSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  DictionarySet dictionaries = random_model::dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(3, 6, model.config().d_vocab);
};

/// The feature's activation [batch] at a position of a plain run.
at::Tensor activation(const DeleteSetting& s, const FeatureId& id, Position position) {
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto index = at::full({1}, id.feature.value, at::kLong);
  return encode(s.dictionaries, id.module, id.layer, input_of(s.dictionaries, cache, id.module, id.layer), index)
      .select(1, position.value)
      .squeeze(-1);
}

/// A feature that is active in some prompts and not in others at that position.
FeatureId varied(const DeleteSetting& s, Module module, Layer layer, Position position) {
  for (std::int32_t f = 0; f < 20; ++f) {
    const FeatureId id{module, layer, Feature{f}};
    const auto active = activation(s, id, position).gt(0).sum().item<std::int64_t>();
    if (active > 0 && active < 3) return id;
  }
  FAIL("no such feature");
  return {};
}

/// Each prompt alone, at its own position, gives what all give together.
template <class Attach>
void requires_each(const DeleteSetting& s, const Attach& attach) {
  const std::vector<Position> of_each{Position{4}, Position{2}, Position{5}};
  const auto together = s.model.run(s.tokens, attach(on_each(of_each))).logits;
  REQUIRE_FALSE(difference(together, s.model.run(s.tokens).logits, 1e-4).close);
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto alone = s.model.run(s.tokens.narrow(0, b, 1), attach(on(of_each[static_cast<std::size_t>(b)]))).logits;
    REQUIRE_CLOSE(together.narrow(0, b, 1), alone, 1e-12);
  }
}

template <class P>
void requires_deletion(const DeleteSetting& s, Layer hook_layer, const FeatureId& id, const at::Tensor& vector) {
  const Position position{4};
  INFO(hook_name(P{}, hook_layer) << ' ' << id);
  const auto act = activation(s, id, position);
  const auto before = s.model.run(s.tokens, record<P>()).cache;
  const auto deleted = [&](auto amount) {
    return s.model
        .run(s.tokens, delete_at<P>(hook_layer, s.model, s.dictionaries, {id}, on(position), amount), record<P>())
        .cache.template get<P>(hook_layer);
  };
  auto expected = before.template get<P>(hook_layer).clone();
  expected.select(1, 4).sub_(act.unsqueeze(-1).mul(vector));
  REQUIRE_CLOSE(deleted(amount::PerPrompt{}), expected, 1e-12);
  auto with_mean = before.template get<P>(hook_layer).clone();
  with_mean.select(1, 4).sub_(vector.mul(act.mean()));
  REQUIRE_CLOSE(deleted(amount::BatchMean{}), with_mean, 1e-12);
  REQUIRE_FALSE(difference(expected, with_mean, 1e-3).close);
}

}  // namespace

TEST_CASE("the run's own activation times the written vector is subtracted, per prompt or by the batch's mean") {
  const DeleteSetting s;
  const Position position{4};
  // hook_z: the decoder row passes W_O.
  const auto z = varied(s, Module::attn, Layer{0}, position);
  const auto through =
      s.dictionaries.attn(Layer{0})->W_dec[z.feature.value].matmul(s.model.weights().blocks[0].attn.W_O);
  requires_deletion<hook::resid_mid>(s, Layer{0}, z, through);
  requires_deletion<hook::resid_pre>(s, Layer{1}, z, through);
  requires_deletion<hook::resid_post>(s, Layer{1}, z, through);
  const auto out = varied(s, Module::attn, Layer{1}, position);
  requires_deletion<hook::resid_mid>(s, Layer{1}, out, s.dictionaries.attn(Layer{1})->W_dec[out.feature.value]);
  const auto mlp = varied(s, Module::mlp, Layer{0}, position);
  requires_deletion<hook::resid_post>(s, Layer{0}, mlp, s.dictionaries.mlp(Layer{0})->W_dec[mlp.feature.value]);
}

TEST_CASE("a transcoder of hook_resid_mid is deleted from streams behind it, also where the next one reads") {
  DeleteSetting s;
  for (const auto l : {Layer{0}, Layer{1}}) {
    s.dictionaries.set_mlp(l, SparseDictionary<>{*s.dictionaries.mlp(l), {}}, MlpSite::resid_mid);
  }
  const auto mlp = varied(s, Module::mlp, Layer{0}, Position{4});
  const auto written = s.dictionaries.mlp(Layer{0})->W_dec[mlp.feature.value];
  requires_deletion<hook::resid_post>(s, Layer{0}, mlp, written);
  requires_deletion<hook::resid_pre>(s, Layer{1}, mlp, written);
  requires_deletion<hook::resid_mid>(s, Layer{1}, mlp, written);
  REQUIRE_THROWS_AS(delete_at<hook::resid_mid>(Layer{0}, s.model, s.dictionaries, {mlp}, on(Position{4})), ValueError);
}

TEST_CASE("deleting where the module writes is ablation, of several features of several modules too") {
  const DeleteSetting s;
  const auto position = Position{4};
  const std::vector<FeatureId> features{varied(s, Module::attn, Layer{1}, position),
                                        attn_feature(Layer{1}, Feature{0})};
  REQUIRE_CLOSE(
      s.model.run(s.tokens, delete_at<hook::resid_mid>(Layer{1}, s.model, s.dictionaries, features, on(position)))
          .logits,
      s.model.run(s.tokens, ablate(s.dictionaries, features, on(position))).logits, 1e-10);
  const auto a = mlp_feature(Layer{0}, Feature{1});
  const auto b = attn_feature(Layer{0}, Feature{2});
  const auto both =
      s.model.run(s.tokens, delete_at<hook::resid_post>(Layer{1}, s.model, s.dictionaries, {a, b}, everywhere)).logits;
  const auto one = s.model
                       .run(s.tokens, delete_at<hook::resid_post>(Layer{1}, s.model, s.dictionaries, {a}, everywhere),
                            delete_at<hook::resid_post>(Layer{1}, s.model, s.dictionaries, {b}, everywhere))
                       .logits;
  REQUIRE_CLOSE(both, one, 1e-12);
  REQUIRE_FALSE(difference(both, s.model.run(s.tokens).logits, 1e-4).close);
}

TEST_CASE("what is deleted or added at a position of each prompt's own is what the prompt alone has") {
  const DeleteSetting s;
  const auto a = attn_feature(Layer{0}, Feature{2});
  const auto m = mlp_feature(Layer{0}, Feature{1});
  requires_each(s, [&](const On& where) {
    return delete_at<hook::resid_pre>(Layer{1}, s.model, s.dictionaries, {a, m}, where);
  });
  requires_each(
      s, [&](const On& where) { return add_at<hook::resid_mid>(Layer{0}, s.model, s.dictionaries, m, 2.0, where); });
}

TEST_CASE("the batch mean's deletion equals the reference's fixed subtraction") {
  const auto model = golden::model(weights::folded_and_centered);
  for (const auto& [layer, name] : {std::pair{Layer{1}, "delete mean attn.0 at 4 from resid_pre 1"},
                                    std::pair{Layer{2}, "delete mean attn.0 at 4 from resid_pre 2"}}) {
    const auto logits =
        model
            .run(golden::tokens("clean"),
                 delete_at<hook::resid_pre>(layer, model, golden::dictionaries(), {attn_feature(Layer{0}, Feature{75})},
                                            on(Position{4}), amount::BatchMean{}))
            .logits;
    REQUIRE_CLOSE(logits, golden::fact(std::string{"intervention/"} + name + "/logits"), 1e-10);
  }
}

TEST_CASE("a point before the feature is written is refused, with the feature's name") {
  const DeleteSetting s;
  const auto a = attn_feature(Layer{1}, Feature{0});
  const auto m = mlp_feature(Layer{0}, Feature{0});
  const auto attempt = [&]<class P>(P, Layer layer, const std::vector<FeatureId>& features) {
    (void)delete_at<P>(layer, s.model, s.dictionaries, features, everywhere);
  };
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{1}, {a}), ValueError);
  REQUIRE_THROWS_AS(attempt(hook::resid_post{}, Layer{0}, {a}), ValueError);
  REQUIRE_NOTHROW(attempt(hook::resid_mid{}, Layer{1}, {a}));
  REQUIRE_THROWS_AS(attempt(hook::resid_mid{}, Layer{0}, {m}), ValueError);
  REQUIRE_NOTHROW(attempt(hook::resid_post{}, Layer{0}, {m}));
  REQUIRE_NOTHROW(attempt(hook::resid_pre{}, Layer{1}, {m}));
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{1}, {m, a}), ValueError);
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{2}, {m}), IndexError);
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{1}, {}), ValueError);
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{1}, {m, m}), ValueError);
  REQUIRE_THROWS_AS(attempt(hook::resid_pre{}, Layer{1}, {mlp_feature(Layer{0}, Feature{20})}), IndexError);
  REQUIRE_THROWS_AS(
      s.model.run(s.tokens, delete_at<hook::resid_pre>(Layer{1}, s.model, s.dictionaries, {m}, on(Position{6}))),
      IndexError);
}

TEST_CASE("a fixed amount may be added anywhere, but must be finite and at a layer there is") {
  const DeleteSetting s;
  const auto a = attn_feature(Layer{1}, Feature{0});
  const auto add = [&](Layer layer, double scale) {
    return add_at<hook::resid_pre>(layer, s.model, s.dictionaries, a, scale, on(Position{1}));
  };
  const auto before = s.model.run(s.tokens, record<hook::resid_pre>()).cache.get<hook::resid_pre>(Layer{0});
  const auto after =
      s.model.run(s.tokens, add(Layer{0}, 2.0), record<hook::resid_pre>()).cache.get<hook::resid_pre>(Layer{0});
  auto expected = before.clone();
  expected.select(1, 1).add_(s.dictionaries.attn(Layer{1})->W_dec[0].mul(2.0));
  REQUIRE_CLOSE(after, expected, 1e-12);
  REQUIRE_THROWS_AS(add(Layer{2}, 1.0), IndexError);
  REQUIRE_THROWS_AS(add(Layer{0}, std::numeric_limits<double>::quiet_NaN()), ValueError);

  const auto parallel = random_model::make<GptNeox>(3);
  const auto dictionaries = random_model::dictionaries(parallel.config(), 4);
  REQUIRE_THROWS_AS(add_at<hook::resid_mid>(Layer{1}, parallel, dictionaries, a, 1.0, on(Position{1})), ConfigError);
}

TEST_CASE("freezing patterns and scales at another run gives those values, in the layers named") {
  const DeleteSetting s;
  const auto others = random_model::Source{4}.tokens(3, 6, s.model.config().d_vocab);
  const auto other = s.model.run(others, record<hook::attn::pattern, hook::ln1::scale>()).cache;
  const auto cache = s.model
                         .run(s.tokens, freeze_at<hook::attn::pattern, hook::ln1::scale>(other, {.layers = {Layer{1}}}),
                              record<hook::attn::pattern, hook::ln1::scale>())
                         .cache;
  REQUIRE_CLOSE(cache.get<hook::attn::pattern>(Layer{1}), other.get<hook::attn::pattern>(Layer{1}), 0.0);
  REQUIRE_CLOSE(cache.get<hook::ln1::scale>(Layer{1}), other.get<hook::ln1::scale>(Layer{1}), 0.0);
  REQUIRE_FALSE(
      difference(cache.get<hook::attn::pattern>(Layer{0}), other.get<hook::attn::pattern>(Layer{0}), 1e-3).close);
  const auto same = s.model.run(s.tokens, record<hook::attn::pattern>()).cache;
  REQUIRE_CLOSE(s.model.run(s.tokens, freeze_at<hook::attn::pattern>(same)).logits, s.model.run(s.tokens).logits, 0.0);
  REQUIRE_THROWS_AS(s.model.run(s.tokens.narrow(0, 0, 2), freeze_at<hook::attn::pattern>(same)), ShapeError);
  const auto lower = s.model.run(s.tokens, record<hook::attn::pattern>({.layers = {Layer{0}}})).cache;
  REQUIRE_THROWS_AS(s.model.run(s.tokens, freeze_at<hook::attn::pattern>(lower)), NameError);
}
