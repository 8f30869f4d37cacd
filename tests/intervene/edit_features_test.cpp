#include "circuit/intervene/edit_features.hpp"

#include <ATen/ops/full.h>

#include <limits>
#include <utility>

#include "circuit/intervene/ablate.hpp"
#include "circuit/model/gradient.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct EditSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  DictionarySet dictionaries = random_model::dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(3, 6, model.config().d_vocab);
  at::Tensor others = random_model::Source{4}.tokens(3, 6, model.config().d_vocab);

  [[nodiscard]] auto cache(const at::Tensor& of) const { return model.run(of, record_modules()).cache; }

  /// The feature of a module that is active most often at a position, and its dense activations [batch, pos, d_sae].
  [[nodiscard]] std::pair<FeatureId, at::Tensor> busiest(Module module, Layer layer, Position position) const {
    const auto acts = module == Module::attn
                          ? dictionaries.encode_attn(layer, input_of(dictionaries, cache(tokens), module, layer))
                          : dictionaries.encode_mlp(layer, input_of(dictionaries, cache(tokens), module, layer));
    const auto feature = acts.select(1, position.value).gt(0).sum(0).argmax().item<std::int64_t>();
    return {{module, layer, Feature{static_cast<std::int32_t>(feature)}}, acts};
  }
};

/// The dense definition: the module's output with `change` [batch, pos] of the feature's activation written.
at::Tensor with_written(const at::Tensor& output, const DictionaryWeights& dictionary, Feature feature,
                        const at::Tensor& change) {
  return output.add(change.unsqueeze(-1).mul(dictionary.W_dec[feature.value]));
}

const Position at_two{2};

template <class Edits>
void requires_written(const EditSetting& s, const FeatureId& id, Edits edits, const at::Tensor& change) {
  const auto before = s.cache(s.tokens);
  const auto after = s.model.run(s.tokens, edits, record_modules()).cache;
  const auto& dictionary = *dictionary_of(s.dictionaries, id.module, id.layer);
  INFO(id);
  const auto output = [&](const auto& cache) {
    if (id.module == Module::mlp) return cache.template get<hook::mlp_out>(id.layer);
    return input_of(s.dictionaries, cache, id.module, id.layer);
  };
  REQUIRE(change.abs().max().item<double>() > 1e-3);
  REQUIRE_CLOSE(output(after), with_written(output(before), dictionary, id.feature, change), 1e-12);
}

}  // namespace

TEST_CASE("ablation subtracts what the feature writes at that position, at every site") {
  const EditSetting s;
  for (const auto& [module, layer] : {std::pair{Module::attn, Layer{0}}, std::pair{Module::attn, Layer{1}},
                                      std::pair{Module::mlp, Layer{0}}, std::pair{Module::mlp, Layer{1}}}) {
    const auto [id, acts] = s.busiest(module, layer, at_two);
    const auto act = acts.select(-1, id.feature.value);
    auto change = act.mul(0);
    change.select(1, 2).copy_(act.select(1, 2).neg());
    requires_written(s, id, ablate(s.dictionaries, {id}, on(at_two)), change);
    requires_written(s, id, ablate(s.dictionaries, {id}, everywhere), act.neg());
  }
}

TEST_CASE("features are set to a value, scaled, and patched from another run, per prompt") {
  const EditSetting s;
  for (const auto& [module, layer] : {std::pair{Module::attn, Layer{1}}, std::pair{Module::mlp, Layer{0}}}) {
    const auto [id, acts] = s.busiest(module, layer, at_two);
    const auto act = acts.select(-1, id.feature.value);
    requires_written(s, id, set_to(1.5, s.dictionaries, {id}, everywhere), act.neg().add(1.5));
    requires_written(s, id, scale_by(3.0, s.dictionaries, {id}, everywhere), act.mul(2));
    const auto other = s.cache(s.others);
    const auto index = at::full({1}, id.feature.value, at::kLong);
    const auto there =
        encode(s.dictionaries, module, layer, input_of(s.dictionaries, other, module, layer), index).squeeze(-1);
    auto change = act.mul(0);
    for (const int position : {2, 5}) change.select(1, position).copy_(there.sub(act).select(1, position));
    requires_written(s, id, patch_from(other, s.dictionaries, {id}, on(at_two, Position{5})), change);
  }
}

TEST_CASE("an edit at a position of each prompt's own is what the prompt alone has") {
  const EditSetting s;
  const std::vector<Position> of_each{Position{4}, Position{2}, Position{5}};
  const auto attn = s.busiest(Module::attn, Layer{0}, at_two).first;
  const auto mlp = s.busiest(Module::mlp, Layer{1}, at_two).first;
  const auto edits = [&](const On& where, const auto& other) {
    return ablate(s.dictionaries, {attn}, where).with(patch_from(other, s.dictionaries, {mlp}, where));
  };
  const auto together = s.model.run(s.tokens, edits(on_each(of_each), s.cache(s.others))).logits;
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto where = on(of_each[static_cast<std::size_t>(b)]);
    const auto alone = s.model.run(s.tokens.narrow(0, b, 1), edits(where, s.cache(s.others.narrow(0, b, 1)))).logits;
    REQUIRE_CLOSE(together.narrow(0, b, 1), alone, 1e-12);
  }
  REQUIRE_FALSE(difference(together, s.model.run(s.tokens).logits, 1e-4).close);
}

TEST_CASE("scaling by one changes nothing, and by zero is ablation") {
  const EditSetting s;
  const auto id = s.busiest(Module::mlp, Layer{0}, at_two).first;
  const auto logits = s.model.run(s.tokens).logits;
  REQUIRE_CLOSE(s.model.run(s.tokens, scale_by(1.0, s.dictionaries, {id}, everywhere)).logits, logits, 1e-12);
  REQUIRE_CLOSE(s.model.run(s.tokens, scale_by(0.0, s.dictionaries, {id}, everywhere)).logits,
                s.model.run(s.tokens, ablate(s.dictionaries, {id}, everywhere)).logits, 1e-12);
}

TEST_CASE("edits of several features are one attachment, and each sees the run that the earlier ones made") {
  const EditSetting s;
  const auto first = s.busiest(Module::attn, Layer{0}, at_two).first;
  const auto second = s.busiest(Module::mlp, Layer{1}, Position{5}).first;
  const auto first_edit = ablate(s.dictionaries, {first}, on(at_two));
  const auto second_edit = ablate(s.dictionaries, {second}, on(Position{5}));
  // Different modules: attached one after the other they meet the same streams.
  auto a = first_edit;
  auto b = second_edit;
  REQUIRE_CLOSE(s.model.run(s.tokens, first_edit.with(second_edit)).logits, s.model.run(s.tokens, a, b).logits, 1e-12);
  // One module: two features at once are both encoded from the unchanged input.
  const FeatureId neighbour{first.module, first.layer, Feature{(first.feature.value + 1) % 20}};
  const auto before = s.cache(s.tokens);
  const auto after =
      s.model.run(s.tokens, ablate(s.dictionaries, {first, neighbour}, everywhere), record_modules()).cache;
  const auto z = before.get<hook::attn::z>(Layer{0}).flatten(2);
  const auto acts = s.dictionaries.encode_attn(Layer{0}, z);
  const auto& dictionary = *s.dictionaries.attn(Layer{0});
  auto expected = with_written(z, dictionary, first.feature, acts.select(-1, first.feature.value).neg());
  expected = with_written(expected, dictionary, neighbour.feature, acts.select(-1, neighbour.feature.value).neg());
  REQUIRE_CLOSE(after.get<hook::attn::z>(Layer{0}).flatten(2), expected, 1e-12);
}

TEST_CASE("with frozen errors every module gives its reconstruction, and the numbers are others") {
  const EditSetting s;
  const auto id = s.busiest(Module::mlp, Layer{0}, at_two).first;
  const error::Frozen frozen{error_terms(s.dictionaries, s.cache(s.tokens))};
  auto edits = ablate(s.dictionaries, {id}, on(at_two), frozen);
  // The same, densely: a replacement model whose one activation is set to 0.
  const auto dense = [&](const at::Tensor& output, Module module, Layer layer, const at::Tensor& input) {
    auto acts =
        module == Module::attn ? s.dictionaries.encode_attn(layer, input) : s.dictionaries.encode_mlp(layer, input);
    if (module == id.module && layer == id.layer) acts.select(1, 2).select(1, id.feature.value).zero_();
    return dictionary_of(s.dictionaries, module, layer)
        ->decode(acts)
        .add(frozen.errors.get(module, layer))
        .view(output.sizes());
  };
  at::Tensor normalized;
  const auto by_hand =
      s.model
          .run(
              s.tokens,
              edit<hook::attn::z>([&](const at::Tensor& z, Layer l) { return dense(z, Module::attn, l, z.flatten(2)); },
                                  {.layers = {Layer{0}}}),
              edit<hook::attn_out>([&](const at::Tensor& out, Layer l) { return dense(out, Module::attn, l, out); },
                                   {.layers = {Layer{1}}}),
              edit<hook::ln2::normalized>([&](const at::Tensor& x, Layer) { return normalized = x; }),
              edit<hook::mlp_out>(
                  [&](const at::Tensor& out, Layer l) { return dense(out, Module::mlp, l, normalized); }))
          .logits;
  const auto logits = s.model.run(s.tokens, edits).logits;
  REQUIRE_CLOSE(logits, by_hand, 1e-10);
  REQUIRE_FALSE(difference(logits, s.model.run(s.tokens, ablate(s.dictionaries, {id}, on(at_two))).logits, 1e-4).close);
}

TEST_CASE("edits are differentiable and change no recorded tensor in place") {
  const EditSetting s;
  const auto id = s.busiest(Module::attn, Layer{0}, at_two).first;
  const auto& dictionary = *s.dictionaries.attn(Layer{0});
  const auto densely = edit<hook::attn::z>(
      [&](const at::Tensor& z, Layer) {
        const auto act = s.dictionaries.encode_attn(Layer{0}, z.flatten(2)).select(-1, id.feature.value);
        return with_written(z.flatten(2), dictionary, id.feature, act.neg()).view(z.sizes());
      },
      {.layers = {Layer{0}}, .positions = {at_two}});
  const auto plain = s.model.run(s.tokens, record<hook::attn::z>()).cache.get<hook::attn::z>(Layer{0});
  const c10::AutoGradMode gradient{true};
  const auto gradient_with = [&](auto edits) {
    LeafAtEmbedding leaf;
    auto before = record<hook::embed, hook::attn::z>();
    const auto logits = s.model.forward(s.tokens, leaf, before, edits);
    REQUIRE_CLOSE(before.cache().get<hook::attn::z>(Layer{0}), plain, 0.0);
    return gradient_of(logits.select(1, -1).select(1, 0).sum(), {before.cache().get<hook::embed>()}).front();
  };
  const auto edited = gradient_with(ablate(s.dictionaries, {id}, on(at_two)));
  REQUIRE_CLOSE(edited, gradient_with(densely), 1e-12);
  REQUIRE_FALSE(difference(edited, gradient_with(scale_by(1.0, s.dictionaries, {id}, on(at_two))), 1e-4).close);
}

TEST_CASE("features, layers, positions and values that are not there are refused") {
  const EditSetting s;
  const auto& d = s.dictionaries;
  REQUIRE_THROWS_AS(ablate(d, {attn_feature(Layer{2}, Feature{0})}, everywhere), NameError);
  REQUIRE_THROWS_AS(ablate(d, {attn_feature(Layer{-1}, Feature{0})}, everywhere), NameError);
  REQUIRE_THROWS_AS(ablate(d, {mlp_feature(Layer{0}, Feature{20})}, everywhere), IndexError);
  REQUIRE_THROWS_AS(ablate(d, {mlp_feature(Layer{0}, Feature{-1})}, everywhere), IndexError);
  REQUIRE_THROWS_AS(ablate(d, {}, everywhere), ValueError);
  REQUIRE_THROWS_AS(on(std::vector<Position>{}), ValueError);
  const auto id = mlp_feature(Layer{0}, Feature{3});
  REQUIRE_THROWS_AS(ablate(d, {id, id}, on(at_two)), ValueError);
  REQUIRE_THROWS_AS(ablate(d, {id}, on(at_two, at_two)), ValueError);
  REQUIRE_THROWS_AS(ablate(d, {id}, on(at_two)).with(ablate(d, {id}, everywhere)), ValueError);
  REQUIRE_THROWS_AS(ablate(d, {id}, everywhere).with(ablate(d, {id}, on(at_two))), ValueError);
  REQUIRE_NOTHROW(ablate(d, {id}, on(at_two)).with(ablate(d, {id}, on(Position{3}))));
  const auto each = [&](std::vector<Position> of_each) { return ablate(d, {id}, on_each(std::move(of_each))); };
  const Position three{3};
  REQUIRE_THROWS_AS(on_each({}), ValueError);
  REQUIRE_THROWS_AS(s.model.run(s.tokens, each({at_two, three})), ValueError);
  REQUIRE_THROWS_AS(s.model.run(s.tokens, each({at_two, three, Position{6}})), IndexError);
  REQUIRE_THROWS_AS(each({at_two, three, three}).with(ablate(d, {id}, on(three))), ValueError);
  REQUIRE_THROWS_AS(ablate(d, {id}, on(three)).with(each({at_two, three, three})), ValueError);
  REQUIRE_THROWS_AS(each({at_two, three, three}).with(each({three, three, at_two})), ValueError);
  REQUIRE_THROWS_AS(each({at_two, three, three}).with(ablate(d, {id}, everywhere)), ValueError);
  REQUIRE_NOTHROW(each({at_two, three, three}).with(each({three, at_two, at_two})));
  REQUIRE_NOTHROW(each({at_two, three, three}).with(ablate(d, {id}, on(Position{1}))));
  REQUIRE_THROWS_AS(set_to(std::numeric_limits<double>::quiet_NaN(), d, {id}, everywhere), ValueError);
  REQUIRE_THROWS_AS(scale_by(std::numeric_limits<double>::infinity(), d, {id}, everywhere), ValueError);
  for (const int position : {6, -1}) {
    REQUIRE_THROWS_AS(s.model.run(s.tokens, ablate(d, {id}, on(Position{position}))), IndexError);
  }
  const auto two = s.cache(s.others.narrow(0, 0, 2));
  REQUIRE_THROWS_AS(s.model.run(s.tokens, patch_from(two, d, {id}, everywhere)), ShapeError);
  const auto upper = s.model.run(s.others, record_modules({.layers = {Layer{1}}})).cache;
  REQUIRE_THROWS_AS(patch_from(upper, d, {id}, everywhere), NameError);
}
