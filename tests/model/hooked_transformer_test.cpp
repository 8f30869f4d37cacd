#include "circuit/model/hooked_transformer.hpp"

#include "circuit/model/edit.hpp"
#include "golden.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

auto everything() {
  return record<hook::embed, hook::pos_embed, hook::resid_pre, hook::ln1::scale, hook::ln1::normalized, hook::attn::q,
                hook::attn::k, hook::attn::v, hook::attn::pattern, hook::attn::z, hook::attn_out, hook::resid_mid,
                hook::ln2::scale, hook::ln2::normalized, hook::mlp_out, hook::resid_post, hook::ln_final::scale>();
}

template <class Cache>
void compare_with_reference(const Cache& cache, const std::string& prefix, double tolerance) {
  const auto layer_point = [&]<class P>(P, Layer layer, const std::string& name) {
    INFO(prefix << ' ' << layer << ' ' << name);
    REQUIRE_CLOSE(cache.template get<P>(layer), golden::fact(prefix + std::to_string(layer.value) + '/' + name),
                  tolerance);
  };
  // The reference's "embed" node is the token and the position embedding together.
  REQUIRE_CLOSE(cache.template get<hook::embed>().add(cache.template get<hook::pos_embed>()),
                golden::fact(prefix + "embed"), tolerance);
  REQUIRE_CLOSE(cache.template get<hook::ln_final::scale>(), golden::fact(prefix + "ln_final.scale"), tolerance);
  for (const Layer l : {Layer{0}, Layer{1}, Layer{2}}) {
    layer_point(hook::resid_pre{}, l, "resid_pre");
    layer_point(hook::ln1::scale{}, l, "ln1.scale");
    layer_point(hook::ln1::normalized{}, l, "ln1.normalized");
    layer_point(hook::attn::q{}, l, "q");
    layer_point(hook::attn::k{}, l, "k");
    layer_point(hook::attn::v{}, l, "v");
    layer_point(hook::attn::pattern{}, l, "pattern");
    layer_point(hook::attn::z{}, l, "z");
    layer_point(hook::attn_out{}, l, "attn_out");
    layer_point(hook::resid_mid{}, l, "resid_mid");
    layer_point(hook::ln2::scale{}, l, "ln2.scale");
    layer_point(hook::ln2::normalized{}, l, "ln2.normalized");
    layer_point(hook::mlp_out{}, l, "mlp_out");
    layer_point(hook::resid_post{}, l, "resid_post");
  }
}

}  // namespace

TEST_CASE("every hook point equals TransformerLens', folded and unfolded, in double and float") {
  for (const auto& [name, processing] :
       {std::pair{"folded", weights::folded_and_centered}, std::pair{"unfolded", weights::unprocessed}}) {
    for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-10}, std::pair{at::kFloat, 1e-4}}) {
      const auto model = golden::model(processing, dtype);
      for (const std::string which : {"clean", "corrupt"}) {
        const auto [logits, cache] = model.run(golden::tokens(which), everything());
        const auto prefix = std::string{name} + '/' + which + '/';
        REQUIRE_CLOSE(logits, golden::fact(prefix + "logits"), tolerance);
        compare_with_reference(cache, prefix, tolerance);
      }
    }
  }
}

TEST_CASE("unprocessed logits equal transformers', folded ones up to each position's mean") {
  const auto reference = golden::fact("hf/clean/logits");
  const auto tokens = golden::tokens("clean");
  REQUIRE_CLOSE(golden::model(weights::unprocessed).run(tokens).logits, reference, 1e-10);
  const auto folded = golden::model(weights::folded_and_centered).run(tokens).logits;
  REQUIRE_CLOSE(folded, reference.sub(reference.mean(-1, true)), 1e-10);
}

TEST_CASE("an edit acts on the chosen layers, positions and heads alone, and a recording after it sees it") {
  const auto model = golden::model(weights::unprocessed);
  const auto tokens = golden::tokens("clean");
  const auto before = model.run(tokens, record<hook::attn::z>()).cache;
  const auto zero = [](const at::Tensor& z, Layer) { return z.mul(0.0); };
  const auto cache =
      model
          .run(tokens,
               edit<hook::attn::z>(zero, {.layers = {Layer{2}}, .positions = {Position{4}}, .heads = {Head{1}}}),
               record<hook::attn::z>())
          .cache;
  REQUIRE_CLOSE(cache.get<hook::attn::z>(Layer{1}), before.get<hook::attn::z>(Layer{1}), 0.0);
  auto expected = before.get<hook::attn::z>(Layer{2}).clone();
  expected.select(1, 4).select(1, 1).zero_();
  REQUIRE_CLOSE(cache.get<hook::attn::z>(Layer{2}), expected, 0.0);
}

TEST_CASE("freezing every pattern and scale at another run's values is an edit like any other") {
  const auto model = golden::model(weights::unprocessed);
  const auto corrupt = model.run(golden::tokens("corrupt"), record<hook::attn::pattern>()).cache;
  const auto [logits, cache] = model.run(
      golden::tokens("clean"),
      edit<hook::attn::pattern>([&](const at::Tensor&, Layer l) { return corrupt.get<hook::attn::pattern>(l); }),
      record<hook::attn::pattern>());
  REQUIRE_CLOSE(cache.get<hook::attn::pattern>(Layer{2}), corrupt.get<hook::attn::pattern>(Layer{2}), 0.0);
  REQUIRE_FALSE(difference(logits, golden::fact("unfolded/clean/logits"), 1e-6).close);
}

TEST_CASE("bad tokens and bad edits end in one clear exception") {
  const auto model = golden::model(weights::unprocessed);
  const auto tokens = golden::tokens("clean");
  REQUIRE_THROWS_AS(model.run(tokens.to(at::kInt)), DTypeError);
  REQUIRE_THROWS_AS(model.run(tokens.add(100)), IndexError);
  REQUIRE_THROWS_AS(model.run(tokens.narrow(0, 0, 0)), ValueError);
  REQUIRE_THROWS_AS(model.run(tokens.repeat({1, 4})), ValueError);
  REQUIRE_THROWS_AS(model.run(tokens.select(0, 0)), ShapeError);
  const auto halve = [](const at::Tensor& x, Layer) { return x.narrow(-1, 0, 16); };
  REQUIRE_THROWS_AS(model.run(tokens, edit<hook::resid_pre>(halve)), ShapeError);
  const auto keep = [](const at::Tensor& x, Layer) { return x; };
  REQUIRE_THROWS_AS(model.run(tokens, edit<hook::resid_pre>(keep, {.positions = {Position{9}}})), IndexError);
  const auto cache = model.run(tokens, record<hook::attn::z>({.layers = {Layer{1}}})).cache;
  REQUIRE_THROWS_AS(cache.get<hook::attn::z>(Layer{0}), NameError);
}

TEST_CASE("a tensor outlives its model and its file") {
  const auto embedding = golden::model(weights::unprocessed, at::kFloat).weights().W_E;
  REQUIRE(embedding.isfinite().all().item<bool>());
}
