#include "circuit/dictionary/behind_gain.hpp"

#include "circuit/dictionary/active_features.hpp"
#include "circuit/model/process_weights.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

SparseDictionary<> reads_mlp_input() {
  random_model::Source random{5};
  SparseDictionary<> d;
  d.W_enc = random({16, 30}, 0.5);
  d.b_enc = random({30}, 0.3);
  d.W_dec = random({30, 16}, 0.5);
  d.b_in = random({16}, 0.3);
  d.b_out = random({16}, 0.3);
  d.W_skip = random({16, 16}, 0.3);
  d.activation = {activation::TopK{.k = 5}};
  d.name = "of the MLP's input";
  return d;
}

/// What the MLP of layer 1 reads in a run, and what hook_normalized holds.
template <class A>
std::pair<at::Tensor, at::Tensor> mlp_input(const HookedTransformer<A>& model) {
  const auto tokens = random_model::Source{6}.tokens(2, 5, model.config().d_vocab);
  const auto cache = model.run(tokens, record<hook::ln2::normalized>()).cache;
  const auto normalized = cache.template get<hook::ln2::normalized>(Layer{1});
  return {A::Norm::output(normalized, model.weights().blocks[1].ln2), normalized};
}

}  // namespace

TEMPLATE_TEST_CASE("a transcoder of the MLP's input is one of hook_normalized, gain, bias and skip path included", "",
                   Gpt2, Llama, Gemma2) {
  const auto model = random_model::make<TestType>(7);
  const auto d = reads_mlp_input();
  const auto [read, normalized] = mlp_input(model);
  const auto moved = read_before_gain(d, model, Layer{1});
  REQUIRE_CLOSE(moved.encode(normalized), d.encode(read), 1e-12);
  REQUIRE_CLOSE(moved.reconstruct(normalized), d.reconstruct(read), 1e-12);
  REQUIRE(d.encode(read).ne(0).sum().template item<std::int64_t>() > 10);
  if (!TestType::Norm::centers) REQUIRE_FALSE(difference(d.encode(normalized), d.encode(read), 1e-2).close);
}

TEST_CASE("a gain that is gone, or a dictionary that does not fit, is refused") {
  const auto model = random_model::make<Llama>(7);
  auto d = reads_mlp_input();
  const HookedTransformer<Llama> folded{model.config(),
                                        process_weights<Llama>(model.weights(), model.config(), {.fold_norms = true}),
                                        {.fold_norms = true}};
  REQUIRE_THROWS_AS(read_before_gain(d, folded, Layer{1}), ConfigError);
  REQUIRE_THROWS_AS(read_before_gain(d, model, Layer{2}), IndexError);
  d.input_norm.kind = InputNorm::Kind::layer_norm;
  REQUIRE_THROWS_AS(read_before_gain(d, model, Layer{1}), ConfigError);
  d = reads_mlp_input();
  d.W_enc = d.W_enc.narrow(0, 0, 8);
  REQUIRE_THROWS_AS(read_before_gain(d, model, Layer{1}), ShapeError);
  REQUIRE_THROWS_AS(read_before_gain(reads_mlp_input(), random_model::make<AttentionOnly>(7), Layer{1}), ConfigError);
}
