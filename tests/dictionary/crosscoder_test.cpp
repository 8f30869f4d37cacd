#include "circuit/dictionary/crosscoder.hpp"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "circuit/dictionary/dictionary_set.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

ModelConfig config() { return random_model::make<Gpt2>(1).config(); }

Crosscoder three_layers() { return random_model::crosscoder(config(), 3, {Layer{0}, Layer{1}, Layer{2}}); }

}  // namespace

TEST_CASE("a crosscoder's features read all layers together and write into each by a row of its own") {
  const auto across = three_layers();
  REQUIRE_NOTHROW(across.check());
  const auto d = across.d_model();
  const auto x = random_model::Source{4}({2, 5, 3, d}, 1.0);
  const auto acts = across.encode(x);
  REQUIRE(across.d_sae() == 31);
  const auto& both = across.parts[0].dictionary;
  auto pre = at::zeros({2, 5, 14}, at::kDouble);
  for (std::int64_t l = 0; l < 3; ++l) pre = pre.add(x.select(2, l).matmul(both.W_enc.narrow(0, l * d, d)));
  REQUIRE_CLOSE(acts.narrow(-1, 0, 14), pre.add(both.b_enc).relu(), 1e-12);
  const auto& first = across.parts[1].dictionary;
  REQUIRE_CLOSE(acts.narrow(-1, 14, 9), x.select(2, 0).matmul(first.W_enc).add(first.b_enc).relu(), 1e-12);

  const auto out = across.decode(acts);
  const auto of_both = acts.narrow(-1, 0, 14);
  const auto of_first = acts.narrow(-1, 14, 9);
  REQUIRE_CLOSE(out.select(2, 0), of_both.matmul(both.W_dec).add(across.b_out[0]), 1e-12);
  REQUIRE_CLOSE(out.select(2, 1),
                of_both.matmul(both.W_later.select(1, 0)).add(of_first.matmul(first.W_dec)).add(across.b_out[1]),
                1e-12);
  REQUIRE_CLOSE(out.select(2, 2),
                of_both.matmul(both.W_later.select(1, 1))
                    .add(of_first.matmul(first.W_later.select(1, 0)))
                    .add(acts.narrow(-1, 23, 8).matmul(across.parts[2].dictionary.W_dec))
                    .add(across.b_out[2]),
                1e-12);
  REQUIRE_FALSE(across.parts[0].causal());
  REQUIRE(across.parts[1].causal());
  REQUIRE(across.parts[2].causal());
  REQUIRE_CLOSE(across.reconstruct(x), out, 0.0);
  REQUIRE_CLOSE(acts.matmul(across.decoder(Layer{0})).add(across.b_out[0]), out.select(2, 0), 1e-12);

  const auto active = encode_active(across, x, Layer{1});  // into which the last part does not write
  auto dense = at::zeros({10, 31}, at::kDouble);
  for (std::int64_t row = 0; row < active.rows(); ++row) {
    for (auto i = active.begin(row); i < active.end(row); ++i) {
      const auto f = active.feature[static_cast<std::size_t>(i)];
      if (i > active.begin(row)) REQUIRE(f > active.feature[static_cast<std::size_t>(i - 1)]);
      REQUIRE(active.slope[i].item<double>() == 1);
      dense[row][f] = active.activation[i];
    }
  }
  REQUIRE_CLOSE(dense.view(acts.sizes()).narrow(-1, 0, 23), acts.narrow(-1, 0, 23), 1e-12);
  REQUIRE(dense.narrow(-1, 23, 8).ne(0).sum().item<std::int64_t>() == 0);
  REQUIRE(active.size() > 30);
  REQUIRE(encode_active(across, x, Layer{2}).size() == acts.ne(0).sum().item<std::int64_t>());

  const auto parts = encode_parts(across, x);  // once for all layers
  REQUIRE(parts.size() == 3);
  for (const Layer layer : across.layers) {
    const auto here = writing_into(across, parts, layer);
    const auto alone = encode_active(across, x, layer);
    REQUIRE(here.row_begin == alone.row_begin);
    REQUIRE(here.feature == alone.feature);
    REQUIRE_CLOSE(here.activation, alone.activation, 0.0);
    REQUIRE_CLOSE(here.slope, alone.slope, 0.0);
  }
  REQUIRE_THROWS_AS(writing_into(across, parts, Layer{7}), NameError);
  REQUIRE_THROWS_AS(encode_active(across, x, Layer{7}), NameError);
}

TEST_CASE("a crosscoder whose parts disagree is refused by name") {
  const auto refused = [](auto change) {
    auto across = three_layers();
    change(across);
    across.check();
  };
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.layers = {Layer{0}, Layer{2}, Layer{1}}; }), ConfigError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.layers.pop_back(); }), ShapeError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts.clear(); }), ConfigError);
  REQUIRE_THROWS_WITH(refused([](Crosscoder& c) {
                        c.layers.push_back(Layer{9});
                        c.b_out = at::cat({c.b_out, c.b_out.narrow(0, 0, 1)}, 0);
                      }),
                      circuit_test::ContainsSubstring("none writes into the stream before layer 9"));
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[1].reads = {Layer{5}}; }), NameError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[1].reads.clear(); }), ConfigError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[0].reads.pop_back(); }), ShapeError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[0].writes.pop_back(); }), ShapeError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[0].dictionary.b_out = c.b_out[0]; }), ConfigError);
  REQUIRE_THROWS_AS(refused([](Crosscoder& c) { c.parts[0].dictionary.input_norm.kind = InputNorm::Kind::layer_norm; }),
                    ConfigError);
  REQUIRE_THROWS_AS(three_layers().encode(at::zeros({2, 5, 2, 12}, at::kDouble)), ShapeError);
  REQUIRE_THROWS_AS(three_layers().decoder(Layer{7}), NameError);
}

TEST_CASE("a set has a crosscoder where no other dictionary describes the stream") {
  const auto across = three_layers();
  DictionarySet set;
  set.set_crosscoder(across);
  REQUIRE(set.crosscoder(Layer{1}) != nullptr);
  REQUIRE(set.crosscoder(Layer{3}) == nullptr);
  REQUIRE(set.stream(Layer{2})->d_sae() == 31);
  REQUIRE_CLOSE(set.stream(Layer{2})->W_dec, across.decoder(Layer{2}), 0.0);
  REQUIRE_THROWS_AS(set.set_crosscoder(across), ConfigError);
  const auto sae = random_model::with_stream({}, config(), 5, {1});
  REQUIRE_THROWS_AS(set.set_stream(Layer{1}, SparseDictionary<>{*sae.stream(Layer{1}), {}}), ConfigError);
  REQUIRE_NOTHROW(set.check(config(), weights::unprocessed, at::kDouble));
  REQUIRE_THROWS_AS(set.check(config(), weights::unprocessed, at::kFloat), DTypeError);
  auto small = config();
  small.n_layers = 1;
  REQUIRE_THROWS_AS(set.check(small, weights::unprocessed, at::kDouble), ConfigError);
  const auto copied = set;  // sees its own crosscoder
  REQUIRE(copied.crosscoder(Layer{0}) != set.crosscoder(Layer{0}));
  const auto x = random_model::Source{4}({1, 2, 3, across.d_model()}, 1.0);
  REQUIRE_CLOSE(copied.encode_stream(Layer{1}, x), across.encode(x), 0.0);
}
