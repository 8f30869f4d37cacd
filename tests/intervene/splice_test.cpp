#include "circuit/intervene/splice.hpp"

#include "circuit/model/gradient.hpp"
#include "intervene/golden_dictionaries.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

/// A model, dictionaries on hook_z in layer 0 and on hook_attn_out in layer 1, and two batches.
struct Setting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  DictionarySet dictionaries = random_model::dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(3, 6, model.config().d_vocab);
  at::Tensor others = random_model::Source{4}.tokens(3, 6, model.config().d_vocab);
};

}  // namespace

TEST_CASE("with its errors, recomputed or frozen at the same run, the replacement model is the model") {
  const auto model = golden::model(weights::folded_and_centered);
  const auto dictionaries = golden::dictionaries();
  for (const std::string which : {"clean", "corrupt"}) {
    const auto tokens = golden::tokens(which);
    const auto [logits, cache] = model.run(tokens, record_modules());
    const error::Frozen frozen{error_terms(dictionaries, cache)};
    REQUIRE_CLOSE(model.run(tokens, splice(dictionaries)).logits, golden::fact("folded/" + which + "/logits"), 1e-10);
    REQUIRE_CLOSE(model.run(tokens, splice(dictionaries, frozen)).logits, golden::fact("folded/" + which + "/logits"),
                  1e-10);
    REQUIRE_FALSE(difference(model.run(tokens, splice(dictionaries, error::Dropped{})).logits, logits, 1e-2).close);
  }
  const Setting s;
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries)).logits, logits, 1e-10);
  const error::Frozen frozen{error_terms(s.dictionaries, cache)};
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries, frozen)).logits, logits, 1e-10);
  REQUIRE_FALSE(
      difference(s.model.run(s.others, splice(s.dictionaries, frozen)).logits, s.model.run(s.others).logits, 1e-3)
          .close);
}

TEST_CASE("errors are what a module computes minus what its dictionary makes of its input, at each site") {
  const Setting s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto errors = error_terms(s.dictionaries, cache);
  const auto z = cache.get<hook::attn::z>(Layer{0}).flatten(2);
  REQUIRE_CLOSE(errors.get(Module::attn, Layer{0}),
                z.sub(s.dictionaries.attn(Layer{0})->decode(s.dictionaries.encode_attn(Layer{0}, z))), 1e-12);
  const auto out = cache.get<hook::attn_out>(Layer{1});
  REQUIRE_CLOSE(errors.get(Module::attn, Layer{1}),
                out.sub(s.dictionaries.attn(Layer{1})->decode(s.dictionaries.encode_attn(Layer{1}, out))), 1e-12);
  const auto acts = s.dictionaries.encode_mlp(Layer{1}, cache.get<hook::ln2::normalized>(Layer{1}));
  REQUIRE_CLOSE(errors.get(Module::mlp, Layer{1}),
                cache.get<hook::mlp_out>(Layer{1}).sub(s.dictionaries.mlp(Layer{1})->decode(acts)), 1e-12);
  REQUIRE_THROWS_AS(errors.get(Module::mlp, Layer{2}), NameError);
}

TEST_CASE("a skip path is no error: what a module computes is features, bias, skip and error, each once") {
  Setting s;
  s.dictionaries = random_model::mixed_dictionaries(s.model.config(), 2);
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  const auto errors = error_terms(s.dictionaries, cache);
  const auto& d = *s.dictionaries.mlp(Layer{1});
  const auto x = cache.get<hook::ln2::normalized>(Layer{1});
  const auto without_skip = cache.get<hook::mlp_out>(Layer{1}).sub(d.decode(s.dictionaries.encode_mlp(Layer{1}, x)));
  REQUIRE_CLOSE(errors.get(Module::mlp, Layer{1}), without_skip.sub(x.matmul(d.W_skip)), 1e-12);
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries, error::Frozen{errors})).logits, logits, 1e-10);
}

TEST_CASE("dropped errors leave the reconstruction at every site") {
  const Setting s;
  const auto cache = s.model.run(s.tokens, splice(s.dictionaries, error::Dropped{}), record_modules()).cache;
  const auto before = s.model.run(s.tokens, record_modules()).cache;  // layer 0's attention input is the same
  const auto z = before.get<hook::attn::z>(Layer{0}).flatten(2);
  const auto& attn = *s.dictionaries.attn(Layer{0});
  REQUIRE_CLOSE(cache.get<hook::attn::z>(Layer{0}).flatten(2), attn.decode(s.dictionaries.encode_attn(Layer{0}, z)),
                1e-12);
  for (const Layer l : {Layer{0}, Layer{1}}) {
    const auto acts = s.dictionaries.encode_mlp(l, cache.get<hook::ln2::normalized>(l));
    REQUIRE_CLOSE(cache.get<hook::mlp_out>(l), s.dictionaries.mlp(l)->decode(acts), 1e-12);
  }
}

TEST_CASE("layers without a dictionary keep their own output") {
  const Setting s;
  DictionarySet upper;
  upper.set_mlp(Layer{1}, SparseDictionary<>{*s.dictionaries.mlp(Layer{1}), {}});
  const auto own = s.model.run(s.tokens, record<hook::attn_out, hook::mlp_out>()).cache;
  const auto spliced =
      s.model.run(s.tokens, splice(upper, error::Dropped{}), record<hook::attn_out, hook::mlp_out>()).cache;
  REQUIRE_CLOSE(spliced.get<hook::mlp_out>(Layer{0}), own.get<hook::mlp_out>(Layer{0}), 0.0);
  REQUIRE_CLOSE(spliced.get<hook::attn_out>(Layer{1}), own.get<hook::attn_out>(Layer{1}), 0.0);
  REQUIRE_FALSE(difference(spliced.get<hook::mlp_out>(Layer{1}), own.get<hook::mlp_out>(Layer{1}), 1e-3).close);
}

TEST_CASE("gradients pass through the dictionaries alone: recomputed errors and frozen ones give the same") {
  const Setting s;
  const c10::AutoGradMode gradient{true};
  const auto of = [&](auto errors) {
    LeafAtEmbedding leaf;
    auto replacement = splice(s.dictionaries, std::move(errors));
    auto recorder = record<hook::embed>();
    const auto logits = s.model.forward(s.tokens, leaf, replacement, recorder);
    return gradient_of(logits.select(1, -1).select(1, 0).sum(), {recorder.cache().get<hook::embed>()}).front();
  };
  const error::Frozen frozen{error_terms(s.dictionaries, s.model.run(s.tokens, record_modules()).cache)};
  REQUIRE_CLOSE(of(error::Recomputed{}), of(frozen), 1e-10);
  REQUIRE_FALSE(difference(of(error::Recomputed{}), of(error::Dropped{}), 1e-4).close);
}

TEST_CASE("errors of another batch or of unrecorded modules are refused") {
  const Setting s;
  const auto shorter = s.tokens.narrow(0, 0, 2);
  const error::Frozen frozen{error_terms(s.dictionaries, s.model.run(shorter, record_modules()).cache)};
  REQUIRE_THROWS_AS(s.model.run(s.tokens, splice(s.dictionaries, frozen)), ShapeError);
  const error::Frozen partly{
      error_terms(s.dictionaries, s.model.run(s.tokens, record_modules({.layers = {Layer{0}}})).cache)};
  REQUIRE_THROWS_AS(s.model.run(s.tokens, splice(s.dictionaries, partly)), NameError);
}
