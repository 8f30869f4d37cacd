// Interventions on features of cross-layer transcoders, which write into the outputs of several layers.
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros_like.h>

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/model/gradient.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct CrossLayerSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1, at::kDouble, 3);
  DictionarySet dictionaries = random_model::cross_layer_dictionaries(model.config(), 2);
  at::Tensor tokens = random_model::Source{3}.tokens(2, 6, model.config().d_vocab);
  at::Tensor others = random_model::Source{4}.tokens(2, 6, model.config().d_vocab);

  /// By the definition, from what every layer's transcoder read in one run: sum over layers l <= m of acts_l W_l->m.
  [[nodiscard]] at::Tensor reconstruction(Layer m, const auto& cache) const {
    const auto& own = *dictionaries.mlp(m);
    const auto read = cache.template get<hook::ln2::normalized>(m);
    auto out = at::zeros_like(read).add(own.b_out);
    if (own.has_skip()) out = out.add(read.matmul(own.W_skip));
    for (std::int32_t l = 0; l <= m.value; ++l) {
      const auto& d = *dictionaries.mlp(Layer{l});
      const auto acts = dictionaries.encode_mlp(Layer{l}, cache.template get<hook::ln2::normalized>(Layer{l}));
      out = out.add(acts.matmul(l == m.value ? d.W_dec : d.W_later.select(1, m.value - l - 1)));
    }
    return out;
  }
  [[nodiscard]] double activation(Layer layer, Position p, Feature f, const auto& cache) const {
    const auto acts = dictionaries.encode_mlp(layer, cache.template get<hook::ln2::normalized>(layer));
    return acts[0][p.value][f.value].template item<double>();
  }
};

constexpr Position here{4};

/// A feature of layer 0 that is active at `here` of the first prompt.
Feature active_feature(const CrossLayerSetting& s, const auto& cache) {
  for (std::int32_t f = 0; f < 20; ++f) {
    if (s.activation(Layer{0}, here, Feature{f}, cache) > 0.1) return Feature{f};
  }
  FAIL("no feature is active");
  return Feature{0};
}

}  // namespace

TEST_CASE("a spliced cross-layer transcoder gives every layer what all layers before it write there") {
  const CrossLayerSetting s;
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries)).logits, logits, 1e-10);
  const auto errors = error_terms(s.dictionaries, cache);
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    REQUIRE_CLOSE(errors.get(Module::mlp, l), cache.get<hook::mlp_out>(l).sub(s.reconstruction(l, cache)), 1e-12);
  }
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(s.dictionaries, error::Frozen{errors})).logits, logits, 1e-10);

  auto dropped = splice(s.dictionaries, error::Dropped{});
  for (const auto& tokens : {s.tokens, s.others}) {  // one attachment, two runs
    const auto alone = s.model.run(tokens, dropped, record_modules()).cache;
    for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
      REQUIRE_CLOSE(alone.get<hook::mlp_out>(l), s.reconstruction(l, alone), 1e-12);
    }
  }
}

TEST_CASE("with a gradient a spliced cross-layer transcoder is the same function, and errors carry none") {
  const CrossLayerSetting s;
  const auto errors = error_terms(s.dictionaries, s.model.run(s.tokens, record_modules()).cache);
  const auto of = [&](auto policy, at::Tensor& gradient) {
    const c10::AutoGradMode with_gradient{true};
    LeafAtEmbedding leaf;
    auto replacement = splice(s.dictionaries, std::move(policy));
    auto recorder = record<hook::embed>();
    const auto logits = s.model.forward(s.tokens, leaf, replacement, recorder);
    gradient = gradient_of(logits.select(1, -1).select(1, 0).sum(), {recorder.cache().get<hook::embed>()}).front();
    return logits.detach();
  };
  at::Tensor recomputed;
  at::Tensor frozen;
  at::Tensor dropped;
  (void)of(error::Recomputed{}, recomputed);
  (void)of(error::Frozen{errors}, frozen);
  REQUIRE_CLOSE(recomputed, frozen, 1e-10);
  REQUIRE_CLOSE(of(error::Dropped{}, dropped), s.model.run(s.tokens, splice(s.dictionaries, error::Dropped{})).logits,
                1e-10);
  // Along one embedding, by finite differences.
  const auto moved = [&](double step) {
    const auto shift = edit<hook::embed>([&](const at::Tensor& x, Layer) { return x.add(recomputed.mul(step)); });
    return s.model.run(s.tokens, shift, splice(s.dictionaries, error::Dropped{}))
        .logits.select(1, -1)
        .select(1, 0)
        .sum()
        .template item<double>();
  };
  REQUIRE((moved(1e-6) - moved(-1e-6)) / 2e-6 == Approx(dropped.mul(recomputed).sum().item<double>()).epsilon(1e-5));
}

TEST_CASE("ablating a cross-layer feature takes what it wrote out of every layer") {
  const CrossLayerSetting s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto f = active_feature(s, cache);
  const auto& d = *s.dictionaries.mlp(Layer{0});
  const auto acts = s.dictionaries.encode_mlp(Layer{0}, cache.get<hook::ln2::normalized>(Layer{0}));
  const auto a = acts.select(1, here.value).select(1, f.value).unsqueeze(-1);  // [batch, 1]

  // Step by step: what the original model's later MLPs make of the stream, less what the feature wrote there.
  const auto without = [&](Layer layer, const at::Tensor& row) {
    return edit<hook::mlp_out>([&, row](const at::Tensor& out, Layer) { return out.sub(a.mul(row).unsqueeze(1)); },
                               {.layers = {layer}, .positions = {here}});
  };
  const auto expected = s.model.run(s.tokens, without(Layer{0}, d.W_dec[f.value]),
                                    without(Layer{1}, d.W_later[f.value][0]), without(Layer{2}, d.W_later[f.value][1]));
  const auto got = s.model.run(s.tokens, ablate(s.dictionaries, {mlp_feature(Layer{0}, f)}, on(here)));
  REQUIRE_CLOSE(got.logits, expected.logits, 1e-10);
  REQUIRE_FALSE(difference(got.logits, s.model.run(s.tokens).logits, 1e-4).close);

  // In the replacement model with errors frozen, later layers are the reconstruction of the changed stream.
  const auto errors = error_terms(s.dictionaries, cache);
  const auto replaced =
      s.model
          .run(s.tokens, ablate(s.dictionaries, {mlp_feature(Layer{0}, f)}, on(here), error::Frozen{errors}),
               record_modules())
          .cache;
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    auto want = s.reconstruction(l, replaced).add(errors.get(Module::mlp, l));
    const auto row = l.value == 0 ? d.W_dec[f.value] : d.W_later[f.value][l.value - 1];
    want.select(1, here.value).sub_(a.mul(row));
    REQUIRE_CLOSE(replaced.get<hook::mlp_out>(l), want, 1e-10);
  }
}

TEST_CASE("a circuit keeps what its cross-layer features write into every layer") {
  const CrossLayerSetting s;
  const auto cache = s.model.run(s.tokens, record_modules()).cache;
  const auto reference = s.model.run(s.others, record_modules()).cache;
  const auto f = active_feature(s, cache);
  const KeptNodes one{.features = {{mlp_feature(Layer{0}, f), here}}};
  const auto run = [&](const KeptNodes& kept, Outside outside) {
    auto attached = keep_circuit(s.dictionaries, kept, reference, {.features = outside, .errors = outside});
    (void)s.model.run(s.others, attached);  // one attachment, two runs
    return s.model.run(s.tokens, attached, record_modules());
  };
  const auto zero = run(one, Outside::zero).cache;
  const auto& d = *s.dictionaries.mlp(Layer{0});
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    auto want = at::zeros_like(zero.get<hook::mlp_out>(l)).add(s.dictionaries.mlp(l)->b_out);
    if (s.dictionaries.mlp(l)->has_skip()) {
      want = want.add(zero.get<hook::ln2::normalized>(l).matmul(s.dictionaries.mlp(l)->W_skip));
    }
    const auto acts = s.dictionaries.encode_mlp(Layer{0}, zero.get<hook::ln2::normalized>(Layer{0}));
    const auto a = acts.select(1, here.value).select(1, f.value).unsqueeze(-1);
    want.select(1, here.value).add_(a.mul(l.value == 0 ? d.W_dec[f.value] : d.W_later[f.value][l.value - 1]));
    REQUIRE_CLOSE(zero.get<hook::mlp_out>(l), want, 1e-10);
  }
  // Nothing kept is the reference's own modules, but for skip paths, which pass on this run's stream; every node kept
  // is the model.
  const auto nothing = run({}, Outside::reference).cache;
  const auto skipped = [&](const auto& of_run, Layer l) {
    const auto read = of_run.template get<hook::ln2::normalized>(l);
    const auto& of_layer = *s.dictionaries.mlp(l);
    return of_layer.has_skip() ? read.matmul(of_layer.W_skip) : read.mul(0);
  };
  KeptNodes all;
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    REQUIRE_CLOSE(nothing.get<hook::mlp_out>(l).sub(skipped(nothing, l)),
                  reference.get<hook::mlp_out>(l).sub(skipped(reference, l)), 1e-10);
    for (std::int32_t p = 0; p < 6; ++p) {
      for (const auto module : {Module::attn, Module::mlp}) {
        all.errors.push_back({module, l, Position{p}});
        for (std::int32_t i = 0; i < 20; ++i) all.features.push_back({{module, l, Feature{i}}, Position{p}});
      }
    }
  }
  REQUIRE_CLOSE(run(all, Outside::reference).logits, s.model.run(s.tokens).logits, 1e-10);
}

TEST_CASE("interventions that cross-layer features have no meaning for are refused") {
  const CrossLayerSetting s;
  const auto reference = s.model.run(s.others, record_modules()).cache;
  REQUIRE_THROWS_AS(keep_circuit(s.dictionaries, {}, reference, {.first_layer = Layer{1}}), ConfigError);
  REQUIRE_THROWS_AS(write_vectors(s.model, s.dictionaries, Module::mlp, Layer{0}, {Feature{0}}), ConfigError);
  DictionarySet incomplete;
  incomplete.set_mlp(Layer{0}, SparseDictionary<>{*s.dictionaries.mlp(Layer{0}), {}});
  REQUIRE_THROWS_AS(splice(incomplete), ConfigError);
  DictionarySet too_deep;
  too_deep.set_mlp(Layer{1}, SparseDictionary<>{*s.dictionaries.mlp(Layer{0}), {}});
  REQUIRE_THROWS_AS(too_deep.check(s.model.config(), s.model.processing(), at::kDouble), ConfigError);
}

TEST_CASE("a transcoder of hook_resid_mid is spliced and edited where it reads") {
  const CrossLayerSetting s;
  const auto set = random_model::stream_dictionaries(s.model.config(), 2);
  const auto [logits, cache] = s.model.run(s.tokens, record_modules());
  REQUIRE_CLOSE(s.model.run(s.tokens, splice(set)).logits, logits, 1e-10);
  const auto& d = *set.mlp(Layer{0});
  const auto read = cache.get<hook::resid_mid>(Layer{0});
  const auto acts = set.encode_mlp(Layer{0}, read);
  const auto expected = acts.matmul(d.W_dec).add(d.b_out).add(read.matmul(d.W_skip));
  REQUIRE_CLOSE(error_terms(set, cache).get(Module::mlp, Layer{0}), cache.get<hook::mlp_out>(Layer{0}).sub(expected),
                1e-12);
  const auto first =
      s.model.run(s.tokens, ablate(set, {mlp_feature(Layer{0}, Feature{3})}, everywhere), record_modules());
  REQUIRE_CLOSE(first.cache.get<hook::mlp_out>(Layer{0}),
                cache.get<hook::mlp_out>(Layer{0}).sub(acts.select(2, 3).unsqueeze(-1).mul(d.W_dec[3])), 1e-12);
}

TEST_CASE("a parallel block has no stream between attention and MLP to read") {
  const auto model = random_model::make<GptNeox>(1, at::kDouble, 3);
  const auto set = random_model::stream_dictionaries(model.config(), 2);
  const auto tokens = random_model::Source{3}.tokens(1, 6, model.config().d_vocab);
  REQUIRE_THROWS_AS(model.run(tokens, splice(set)), ConfigError);
}
