#include "circuit/dictionary/dictionary_set.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "tensors.hpp"

using namespace circuit;

namespace {

SparseDictionary<> random_dictionary(std::int64_t d_in, std::int64_t d_out, at::ScalarType dtype = at::kDouble) {
  SparseDictionary<> d;
  d.W_enc = at::randn({d_in, 20}, dtype);
  d.b_enc = at::randn({20}, dtype);
  d.W_dec = at::randn({20, d_out}, dtype);
  d.name = "random";
  return d;
}

/// Two layers, four heads of 2 on a stream of 6.
ModelConfig small_model() {
  ModelConfig c;
  c.n_layers = 2;
  c.n_heads = 4;
  c.n_key_value_heads = 4;
  c.d_head = 2;
  c.d_model = 6;
  c.d_mlp = 5;
  return c;
}

/// A user's kind of dictionary: absolute values.
struct Absolute {
  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const { return pre.abs(); }
  [[nodiscard]] at::Tensor slope(const at::Tensor& pre, const at::Tensor& /*act*/) const { return pre.sign(); }
};

}  // namespace

TEST_CASE("a set knows what sits where, and which layers have none") {
  DictionarySet set;
  set.set_attn(Layer{1}, random_dictionary(8, 8), AttentionSite::z);
  set.set_mlp(Layer{0}, random_dictionary(6, 6));
  REQUIRE(set.attn(Layer{1})->d_in() == 8);
  REQUIRE(set.attn_site(Layer{1}) == AttentionSite::z);
  REQUIRE(set.mlp(Layer{0})->name == "random");
  for (const Layer none : {Layer{0}, Layer{2}, Layer{-1}}) REQUIRE(set.attn(none) == nullptr);
  REQUIRE(set.mlp(Layer{1}) == nullptr);
  REQUIRE_THROWS_AS(set.encode_mlp(Layer{1}, at::zeros({1, 1, 6}, at::kDouble)), NameError);
  for (const Layer none : {Layer{-1}, Layer{65537}, Layer{2147483647}}) {
    REQUIRE_THROWS_AS(set.set_mlp(none, random_dictionary(6, 6)), IndexError);
    REQUIRE_THROWS_AS(set.set_attn(none, random_dictionary(6, 6), AttentionSite::z), IndexError);
    REQUIRE_THROWS_AS(set.set_stream(none, random_dictionary(6, 6)), IndexError);
  }
}

TEST_CASE("layers may mix kinds, a user's own among them") {
  BasicDictionarySet<SparseDictionary<>, SparseDictionary<Absolute>> set;
  const auto plain = random_dictionary(6, 6);
  SparseDictionary<Absolute> own;
  static_cast<DictionaryWeights&>(own) = plain;
  set.set_mlp(Layer{0}, plain);
  set.set_mlp(Layer{1}, own);
  const auto x = at::randn({2, 3, 6}, at::kDouble);
  const auto features = at::arange(5, at::kLong);
  REQUIRE_CLOSE(set.encode_mlp(Layer{0}, x), plain.pre_activations(x).clamp_min(0), 1e-14);
  REQUIRE_CLOSE(set.encode_mlp(Layer{1}, x), plain.pre_activations(x).abs(), 1e-14);
  REQUIRE_CLOSE(set.encode_mlp(Layer{1}, x, features), plain.pre_activations(x).abs().narrow(-1, 0, 5), 1e-14);
  const auto active = set.active_mlp(Layer{1}, x);
  REQUIRE(active.size() == 2 * 3 * 20);
  REQUIRE(active.slope.lt(0).any().item<bool>());
}

TEST_CASE("a set is held to the model's sizes, layers and dtype") {
  const auto check = [](const DictionarySet& set) { set.check(small_model(), weights::unprocessed, at::kDouble); };
  DictionarySet fits;
  fits.set_attn(Layer{0}, random_dictionary(8, 8), AttentionSite::z);
  fits.set_attn(Layer{1}, random_dictionary(6, 6), AttentionSite::attn_out);
  fits.set_mlp(Layer{1}, random_dictionary(6, 6));
  REQUIRE_NOTHROW(check(fits));
  auto wrong_site = fits;
  wrong_site.set_attn(Layer{1}, random_dictionary(6, 6), AttentionSite::z);
  REQUIRE_THROWS_AS(check(wrong_site), ShapeError);
  auto wrong_output = fits;
  wrong_output.set_mlp(Layer{0}, random_dictionary(6, 8));
  REQUIRE_THROWS_AS(check(wrong_output), ShapeError);
  auto too_deep = fits;
  too_deep.set_mlp(Layer{2}, random_dictionary(6, 6));
  REQUIRE_THROWS_AS(check(too_deep), ConfigError);
  auto other_dtype = fits;
  other_dtype.set_mlp(Layer{0}, random_dictionary(6, 6, at::kFloat));
  REQUIRE_THROWS_AS(check(other_dtype), DTypeError);
  auto attention_only = small_model();
  attention_only.d_mlp = 0;
  REQUIRE_THROWS_AS(fits.check(attention_only, weights::unprocessed, at::kDouble), ConfigError);
  auto skip_of_attention = fits;
  auto skipping = random_dictionary(6, 6);
  skipping.W_skip = at::zeros({6, 6}, at::kDouble);
  skip_of_attention.set_attn(Layer{1}, skipping, AttentionSite::attn_out);
  REQUIRE_THROWS_AS(check(skip_of_attention), ConfigError);
  auto normalised = random_dictionary(6, 6);
  normalised.input_norm.kind = InputNorm::Kind::layer_norm;
  REQUIRE_NOTHROW(fits.set_mlp(Layer{0}, normalised));
  normalised.W_later = at::zeros({normalised.d_sae(), 1, 6}, at::kDouble);
  REQUIRE_THROWS_AS(fits.set_mlp(Layer{0}, normalised), ConfigError);
  normalised.input_norm.undone = false;
  REQUIRE_NOTHROW(fits.set_mlp(Layer{0}, normalised));
  auto other_weights = fits;
  other_weights.expect(weights::folded_and_centered);
  REQUIRE_THROWS_AS(check(other_weights), ConfigError);
}

TEST_CASE("an SAE on hook_mlp_out is held to what it describes") {
  const auto check = [](SparseDictionary<> d) {
    DictionarySet set;
    set.set_mlp(Layer{0}, std::move(d), MlpSite::mlp_out);
    REQUIRE(set.mlp_site(Layer{0}) == MlpSite::mlp_out);
    set.check(small_model(), weights::unprocessed, at::kDouble);
  };
  REQUIRE_NOTHROW(check(random_dictionary(6, 6)));
  REQUIRE_THROWS_AS(check(random_dictionary(8, 6)), ShapeError);
  REQUIRE_THROWS_AS(check(random_dictionary(6, 8)), ShapeError);
  auto skip = random_dictionary(6, 6);
  skip.W_skip = at::zeros({6, 6}, at::kDouble);
  REQUIRE_THROWS_AS(check(skip), ConfigError);
  auto across = random_dictionary(6, 6);
  across.W_later = at::zeros({20, 1, 6}, at::kDouble);
  REQUIRE_THROWS_AS(check(across), ConfigError);
}

TEST_CASE("an SAE of the residual stream has a place before each layer and behind the last") {
  const auto check = [](Layer layer, SparseDictionary<> d) {
    DictionarySet set;
    set.set_stream(layer, std::move(d));
    REQUIRE(set.stream(layer) != nullptr);
    REQUIRE(set.stream(Layer{7}) == nullptr);
    set.check(small_model(), weights::unprocessed, at::kDouble);
  };
  for (const Layer layer : {Layer{0}, Layer{2}}) REQUIRE_NOTHROW(check(layer, random_dictionary(6, 6)));
  REQUIRE_THROWS_AS(check(Layer{3}, random_dictionary(6, 6)), ConfigError);
  REQUIRE_THROWS_AS(check(Layer{1}, random_dictionary(8, 6)), ShapeError);
  REQUIRE_THROWS_AS(check(Layer{1}, random_dictionary(6, 8)), ShapeError);
  auto skip = random_dictionary(6, 6);
  skip.W_skip = at::zeros({6, 6}, at::kDouble);
  REQUIRE_THROWS_AS(check(Layer{1}, skip), ConfigError);

  DictionarySet across;  // features that write past the stream's dictionary
  auto transcoder = random_dictionary(6, 6);
  transcoder.W_later = at::zeros({20, 1, 6}, at::kDouble);
  across.set_mlp(Layer{0}, transcoder);
  REQUIRE_NOTHROW(across.check(small_model(), weights::unprocessed, at::kDouble));
  across.set_stream(Layer{1}, random_dictionary(6, 6));
  REQUIRE_THROWS_AS(across.check(small_model(), weights::unprocessed, at::kDouble), ConfigError);
}
