// Interventions on features of dictionaries that normalise what they read.
#include <ATen/ops/zeros_like.h>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/intervene/splice_at.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct Normalizing {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  DictionarySet dictionaries = random_model::normalizing_dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(2, 6, model.config().d_vocab);
  at::Tensor others = random_model::Source{4}.tokens(2, 6, model.config().d_vocab);
};

/// What a unit of activation writes, in decoder rows: undoing is linear in what is undone. [batch, pos, 1]
at::Tensor unit(const DictionaryWeights& d, const at::Tensor& x) {
  const auto none = at::zeros_like(x).narrow(-1, 0, 1);
  return d.input_norm.undo(none.add(1), x).sub(d.input_norm.undo(none, x));
}

}  // namespace

TEST_CASE("a dictionary that normalises is spliced with the scale of the run at hand") {
  const Normalizing s;
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  const auto errors = error_terms(s.dictionaries, cache);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries)).logits, logits, 1e-12);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries, error::Frozen{errors})).logits, logits, 1e-12);
  const Layer layer{1};
  DictionarySet one;
  const SparseDictionary<> sae{*s.dictionaries.attn(layer), {}};
  one.set_attn(layer, sae, AttentionSite::attn_out);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(one, error::Dropped{})).logits,
                s.model.run(s.tokens, splice_at<hook::attn_out>(layer, sae, StreamError::dropped)).logits, 1e-12);
  const auto& out = cache.get<hook::attn_out>(layer);
  REQUIRE_CLOSE(errors.get(Module::attn, layer), out.sub(sae.reconstruct(out)), 1e-12);
}

TEST_CASE("what an ablated feature wrote is scaled to its input") {
  const Normalizing s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  for (const auto module : {Module::attn, Module::mlp}) {
    const Layer layer{1};
    const auto& d = *dictionary_of(s.dictionaries, module, layer);
    const auto input = input_of(s.dictionaries, cache, module, layer);
    const auto acts = encode(s.dictionaries, module, layer, input);
    const auto feature = acts[0][4].argmax().item<std::int32_t>();
    REQUIRE(acts[0][4][feature].item<double>() > 0.1);
    auto written = at::zeros_like(input);
    const auto amount = acts.mul(unit(d, input)).select(1, 4).select(1, feature);
    written.select(1, 4).copy_(amount.unsqueeze(1).mul(d.W_dec[feature]));
    const auto take = [&](const at::Tensor& x, Layer) { return x.sub(written); };
    const Where here{.layers = {layer}};
    const auto without = module == Module::attn ? s.model.run(s.tokens, edit<hook::attn_out>(take, here)).logits
                                                : s.model.run(s.tokens, edit<hook::mlp_out>(take, here)).logits;
    const FeatureId id{module, layer, Feature{feature}};
    REQUIRE_CLOSE(s.model.run(s.tokens, ablate(s.dictionaries, {id}, on(Position{4}))).logits, without, 1e-12);
  }
}

TEST_CASE("with frozen errors an edited run normalises anew behind the edit") {
  const Normalizing s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto errors = error_terms(s.dictionaries, cache);
  const auto& z = cache.get<hook::attn::z>(Layer{0});
  const auto feature = s.dictionaries.encode_attn(Layer{0}, z.flatten(2))[0][4].argmax().item<std::int32_t>();
  const auto id = attn_feature(Layer{0}, Feature{feature});
  auto edited = set_to(2.0, s.dictionaries, {id}, everywhere, error::Frozen{errors});
  // By hand: every module gives its dictionary's reconstruction and the stored error, the edited one its own.
  at::Tensor read;
  const auto by_hand = s.model.run(
      s.tokens,
      edit<hook::attn::z>(
          [&](const at::Tensor& value, Layer l) {
            const SparseDictionary<> d{*s.dictionaries.attn(l), {}};
            const auto x = value.flatten(2);
            auto acts = d.encode(x);
            acts.select(2, feature).fill_(2.0);
            return d.output(d.decode(acts), x).add(errors.get(Module::attn, l)).view(value.sizes());
          },
          {.layers = {Layer{0}}}),
      edit<hook::attn_out>(
          [&](const at::Tensor& x, Layer l) {
            return SparseDictionary<>{*s.dictionaries.attn(l), {}}.reconstruct(x).add(errors.get(Module::attn, l));
          },
          {.layers = {Layer{1}}}),
      edit<hook::ln2::normalized>([&](const at::Tensor& x, Layer) { return read = x; }),
      edit<hook::mlp_out>([&](const at::Tensor&, Layer l) {
        return SparseDictionary<>{*s.dictionaries.mlp(l), {}}.reconstruct(read).add(errors.get(Module::mlp, l));
      }));
  REQUIRE_CLOSE(s.model.run(s.tokens, edited).logits, by_hand.logits, 1e-12);
}

TEST_CASE("what differs by prompt and position is no one vector to delete") {
  const Normalizing s;
  REQUIRE_THROWS_WITH(delete_at<hook::resid_post>(Layer{1}, s.model, s.dictionaries,
                                                  {attn_feature(Layer{0}, Feature{1})}, on(Position{4})),
                      circuit_test::ContainsSubstring("scaled to their input"));
  // One that is not undone writes the same everywhere.
  const auto id = mlp_feature(Layer{0}, Feature{1});
  const auto without = s.model.run(s.tokens, ablate(s.dictionaries, {id}, on(Position{4}))).logits;
  auto deleted = delete_at<hook::resid_post>(Layer{0}, s.model, s.dictionaries, {id}, on(Position{4}));
  REQUIRE_CLOSE(s.model.run(s.tokens, deleted).logits, without, 1e-12);
}
