#include "circuit/intervene/keep_circuit.hpp"

#include <ATen/ops/zeros.h>

#include <functional>

#include "circuit/model/edit.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

/// The same with a skip path at layer 0.
DictionarySet with_skip(DictionarySet set) {
  auto mlp = SparseDictionary<>{*set.mlp(Layer{0}), {}};
  mlp.W_skip = random_model::Source{6}({mlp.d_in(), mlp.d_out()}, 0.3);
  set.set_mlp(Layer{0}, mlp);
  return set;
}

struct KeepSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(1);
  DictionarySet dictionaries = with_skip(random_model::dictionaries(model.config(), 2));
  at::Tensor tokens = random_model::Source{3}.tokens(3, 6, model.config().d_vocab);
  at::Tensor others = random_model::Source{4}.tokens(5, 6, model.config().d_vocab);
  at::Tensor partners = random_model::Source{5}.tokens(3, 6, model.config().d_vocab);  // one for each of `tokens`

  [[nodiscard]] auto reference() const { return model.run(others, record_modules()).cache; }
  [[nodiscard]] auto reference_by_prompt() const { return model.run(partners, record_modules()).cache; }
};

KeptNodes some_nodes() {
  KeptNodes kept;
  for (std::int32_t f = 0; f < 20; f += 3) {
    for (const Layer l : {Layer{0}, Layer{1}}) {
      kept.features.push_back({attn_feature(l, Feature{f}), Position{(f + 1) % 6}});
      kept.features.push_back({mlp_feature(l, Feature{f}), Position{5}});
    }
  }
  kept.errors = {{Module::attn, Layer{0}, Position{3}}, {Module::mlp, Layer{1}, Position{5}}};
  return kept;
}

/// The definition, densely: every feature and error is chosen one by one.
struct Dense {
  const KeepSetting& s;
  const KeptNodes& kept;
  KeepCircuitOptions options;
  decltype(s.reference()) reference = s.reference();

  at::Tensor operator()(Module module, Layer layer, const at::Tensor& input, const at::Tensor& output) const {
    if (layer < options.first_layer) return output;
    const auto& dictionary = *dictionary_of(s.dictionaries, module, layer);
    const auto dense = [&](const at::Tensor& x) {
      return module == Module::attn ? s.dictionaries.encode_attn(layer, x) : s.dictionaries.encode_mlp(layer, x);
    };
    const auto other_input = input_of(s.dictionaries, reference, module, layer);
    const auto other_output = module == Module::attn ? other_input : reference.get<hook::mlp_out>(layer);
    const auto skipped = [&](const at::Tensor& x) {
      return dictionary.has_skip() ? x.matmul(dictionary.W_skip) : x.mul(0);
    };
    const auto acts = dense(input);
    const auto& norm = dictionary.input_norm;
    const auto missed = [&](const at::Tensor& out, const at::Tensor& own, const at::Tensor& x) {
      return out.sub(norm.undo(dictionary.decode(own), x)).sub(skipped(x));
    };
    const auto written = [&](const at::Tensor& own, const at::Tensor& x) {  // in decoder rows
      const auto zero = x.mul(0);
      return own.mul(norm.undo(zero.add(1), x).sub(norm.undo(zero, x)).narrow(-1, 0, 1));
    };
    const auto error = options.kept_errors ? options.kept_errors->get(module, layer) : missed(output, acts, input);
    const auto choose = [](Outside outside, const at::Tensor& own, const at::Tensor& others, const at::Tensor& mask) {
      if (outside == Outside::left) return own;
      const auto base = outside == Outside::zero        ? own.mul(0)
                        : outside == Outside::reference ? others
                                                        : others.mean(0, true).expand_as(own);
      return at::Tensor{own.mul(mask).add(base.mul(mask.neg().add(1)))};
    };
    auto feature_mask = at::zeros({6, 20}, at::kDouble);
    for (const auto& node : kept.features) {
      if (node.feature.module == module && node.feature.layer == layer) {
        feature_mask[node.position.value][node.feature.feature.value].fill_(1);
      }
    }
    auto error_mask = at::zeros({6, 1}, at::kDouble);
    for (const auto& node : kept.errors) {
      if (node.module == module && node.layer == layer) error_mask[node.position.value].fill_(1);
    }
    const auto other_acts = dense(other_input);
    const auto other_error = missed(other_output, other_acts, other_input);
    return choose(options.features, written(acts, input), written(other_acts, other_input), feature_mask)
        .matmul(dictionary.W_dec)
        .add(norm.undo(output.mul(0).add(dictionary.b_out), input))
        .add(skipped(input))
        .add(choose(options.errors, error, other_error, error_mask));
  }
};

at::Tensor run_densely(const KeepSetting& s, const Dense& dense) {
  at::Tensor normalized;
  return s.model
      .run(s.tokens,
           edit<hook::attn::z>(
               [&](const at::Tensor& z, Layer l) {
                 const auto flat = z.flatten(2);
                 return dense(Module::attn, l, flat, flat).view(z.sizes());
               },
               {.layers = {Layer{0}}}),
           edit<hook::attn_out>([&](const at::Tensor& out, Layer l) { return dense(Module::attn, l, out, out); },
                                {.layers = {Layer{1}}}),
           edit<hook::ln2::normalized>([&](const at::Tensor& x, Layer) { return normalized = x; }),
           edit<hook::mlp_out>([&](const at::Tensor& out, Layer l) { return dense(Module::mlp, l, normalized, out); }))
      .logits;
}

}  // namespace

TEST_CASE("a circuit alone equals its dense definition, for every choice of what is outside, kept errors too") {
  KeepSetting s;
  if (GENERATE(false, true)) s.dictionaries = random_model::normalizing_dictionaries(s.model.config(), 2);
  const auto reference = s.reference();
  for (const auto& kept : {some_nodes(), KeptNodes{}}) {
    for (const auto features : {Outside::reference_mean, Outside::zero, Outside::left}) {
      for (const auto errors : {Outside::reference_mean, Outside::zero, Outside::left}) {
        for (const Layer first : {Layer{0}, Layer{1}}) {
          const KeepCircuitOptions options{.features = features, .errors = errors, .first_layer = first};
          INFO(static_cast<int>(features)
               << ' ' << static_cast<int>(errors) << ' ' << first << ' ' << kept.features.size());
          REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, kept, reference, options)).logits,
                        run_densely(s, {s, kept, options}), 1e-10);
        }
      }
    }
  }
}

TEST_CASE("outside a circuit stand each prompt's own reference values, and kept errors may be another run's") {
  KeepSetting s;
  if (GENERATE(false, true)) s.dictionaries = random_model::normalizing_dictionaries(s.model.config(), 2);
  const auto reference = s.reference_by_prompt();
  const auto errors = error_terms(s.dictionaries, s.model.run(s.tokens, record_modules()).cache);
  for (const auto& kept : {some_nodes(), KeptNodes{}}) {
    for (const auto& kept_errors : {std::optional<ErrorTerms>{}, std::optional{errors}}) {
      const KeepCircuitOptions options{
          .features = Outside::reference, .errors = Outside::reference, .kept_errors = kept_errors};
      REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, kept, reference, options)).logits,
                    run_densely(s, {s, kept, options, reference}), 1e-10);
    }
  }
  const KeepCircuitOptions by_prompt{.features = Outside::reference};
  REQUIRE_THROWS_AS(s.model.run(s.tokens, keep_circuit(s.dictionaries, {}, s.reference(), by_prompt)), ShapeError);
}

TEST_CASE("the circuit of all nodes is the model, and that of none the reference's means") {
  const KeepSetting s;
  KeptNodes all;
  for (const Layer l : {Layer{0}, Layer{1}}) {
    for (std::int32_t p = 0; p < 6; ++p) {
      for (const auto module : {Module::attn, Module::mlp}) {
        all.errors.push_back({module, l, Position{p}});
        for (std::int32_t f = 0; f < 20; ++f) all.features.push_back({{module, l, Feature{f}}, Position{p}});
      }
    }
  }
  REQUIRE_CLOSE(s.model.run(s.tokens, keep_circuit(s.dictionaries, all, s.reference())).logits,
                s.model.run(s.tokens).logits, 1e-10);
  const auto cache =
      s.model.run(s.tokens, keep_circuit(s.dictionaries, {}, s.reference()), record<hook::mlp_out>()).cache;
  const auto expected =
      s.reference().get<hook::mlp_out>(Layer{1}).mean(0, true).expand({3, 6, s.model.config().d_model});
  REQUIRE_CLOSE(cache.get<hook::mlp_out>(Layer{1}), expected, 1e-10);
}

TEST_CASE("nodes and references that do not fit are refused") {
  const KeepSetting s;
  const auto reference = s.reference();
  const auto keep = [&](const KeptNodes& kept) { (void)keep_circuit(s.dictionaries, kept, reference); };
  REQUIRE_THROWS_AS(keep({.features = {{attn_feature(Layer{2}, Feature{0}), Position{0}}}}), NameError);
  REQUIRE_THROWS_AS(keep({.features = {{attn_feature(Layer{0}, Feature{20}), Position{0}}}}), IndexError);
  REQUIRE_THROWS_AS(keep({.features = {{attn_feature(Layer{0}, Feature{0}), Position{6}}}}), IndexError);
  REQUIRE_THROWS_AS(keep({.errors = {{Module::mlp, Layer{2}, Position{0}}}}), NameError);
  REQUIRE_THROWS_AS(keep({.errors = {{Module::mlp, Layer{0}, Position{-1}}}}), IndexError);
  const auto shorter = s.model.run(s.others.narrow(1, 0, 5), record_modules()).cache;
  REQUIRE_THROWS_AS(s.model.run(s.tokens, keep_circuit(s.dictionaries, {}, shorter)), ShapeError);
  const auto lower = s.model.run(s.others, record_modules({.layers = {Layer{0}}})).cache;
  REQUIRE_THROWS_AS(s.model.run(s.tokens, keep_circuit(s.dictionaries, {}, lower)), NameError);
}
