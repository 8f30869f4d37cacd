#include "circuit/intervene/replace.hpp"

#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/other_runs.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/model/generate.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

using Z = hook::attn::z;

const HookedTransformer<Gpt2>& model() {
  static const auto made = random_model::make<Gpt2>(5);
  return made;
}
at::Tensor tokens(std::uint64_t seed = 7) { return random_model::Source{seed}.tokens(3, 5, 23); }

/// What passes a point under an attachment, [batch, pos, head, d_head].
template <class Attached>
at::Tensor seen(Attached attached, Layer layer = Layer{1}) {
  return model().run(tokens(), attached, record<Z>()).cache.template get<Z>(layer);
}
at::Tensor plain(Layer layer = Layer{1}, std::uint64_t seed = 7) {
  return model().run(tokens(seed), record<Z>()).cache.get<Z>(layer);
}
const Part in_last{.layers = {Layer{1}}};

}  // namespace

TEST_CASE("zero, value, scale and plus do what they say, element by element") {
  const auto z = plain();
  const auto vector = random_model::Source{2}({4, 4});
  REQUIRE_CLOSE(seen(replace<Z>(with::Zero{}, in_last)), z.mul(0), 0.0);
  REQUIRE_CLOSE(seen(replace<Z>(with::Value{vector}, in_last)), vector.expand({3, 5, 4, 4}), 0.0);
  REQUIRE_CLOSE(seen(replace<Z>(with::Scale{-0.5}, in_last)), z.mul(-0.5), 0.0);
  REQUIRE_CLOSE(seen(replace<Z>(with::Plus{vector}, in_last)), z.add(vector), 0.0);
}

TEST_CASE("a part is chosen by layer, position, prompt's own position, head and unit") {
  const auto z = plain();
  const auto check = [&](const Part& part, auto&& touched) {
    const auto found = seen(replace<Z>(with::Zero{}, part));
    for (std::int64_t b = 0; b < 3; ++b) {
      for (std::int64_t p = 0; p < 5; ++p) {
        for (std::int64_t h = 0; h < 4; ++h) {
          for (std::int64_t d = 0; d < 4; ++d) {
            const auto expected = touched(b, p, h, d) ? 0.0 : z[b][p][h][d].item<double>();
            REQUIRE(found[b][p][h][d].item<double>() == expected);
          }
        }
      }
    }
  };
  const std::vector<Layer> last{Layer{1}};
  using I = std::int64_t;
  check({.layers = last, .positions = {Position{1}, Position{4}}}, [](I, I p, I, I) { return p == 1 || p == 4; });
  check({.layers = last, .position_of = {Position{0}, Position{3}, Position{2}}}, [](I b, I p, I, I) {
    return p == std::vector<I>{0, 3, 2}[static_cast<std::size_t>(b)];
  });
  check({.layers = last, .heads = {Head{2}}}, [](I, I, I h, I) { return h == 2; });
  check({.layers = last, .units = {Feature{0}, Feature{3}}}, [](I, I, I, I d) { return d == 0 || d == 3; });
  check({.layers = last, .positions = {Position{1}}, .heads = {Head{2}}, .units = {Feature{3}}},
        [](I, I p, I h, I d) { return p == 1 && h == 2 && d == 3; });
  check({.layers = last, .positions = {Position{3}}, .position_of = {Position{0}, Position{3}, Position{2}}},
        [](I b, I p, I, I) { return b == 1 && p == 3; });
  REQUIRE_CLOSE(seen(replace<Z>(with::Zero{}, {.layers = {Layer{1}}}), Layer{0}), plain(Layer{0}), 0.0);
}

TEST_CASE("another run's values, and any part of the way to them") {
  const auto other = model().run(tokens(8), record<Z>()).cache;
  const auto clean = plain();
  const auto corrupt = plain(Layer{1}, 8);
  REQUIRE_CLOSE(seen(replace<Z>(with::Run{other}, in_last)), corrupt, 0.0);
  const auto blend = [&](double share) { return seen(replace<Z>(with::Blend{share, with::Run{other}}, in_last)); };
  REQUIRE_CLOSE(blend(0.0), clean, 1e-15);
  REQUIRE_CLOSE(blend(1.0), corrupt, 1e-15);
  REQUIRE_CLOSE(blend(0.25), clean.mul(0.75).add(corrupt.mul(0.25)), 1e-15);
}

TEST_CASE("noising all of the stream from clean ends at the corrupt run, denoising at the clean one") {
  using Stream = hook::resid_pre;
  const Part start{.layers = {Layer{0}}};
  const auto clean = model().run(tokens(), record<Stream>());
  const auto corrupt = model().run(tokens(8), record<Stream>());
  const auto noised = [&](double share) {
    return model().run(tokens(), replace<Stream>(with::Blend{share, with::Run{corrupt.cache}}, start)).logits;
  };
  const auto denoised = [&](double share) {
    return model().run(tokens(8), replace<Stream>(with::Blend{share, with::Run{clean.cache}}, start)).logits;
  };
  REQUIRE_CLOSE(noised(1.0), corrupt.logits, 1e-12);
  REQUIRE_CLOSE(denoised(1.0), clean.logits, 1e-12);
  REQUIRE_CLOSE(noised(0.3), denoised(0.7), 1e-12);
  REQUIRE_FALSE(difference(noised(0.3), clean.logits, 1e-3).close);
}

TEST_CASE("means over a data set are by position or pooled, over batches of any size") {
  random_model::Source random{4};
  const std::vector<at::Tensor> batches{random.tokens(3, 5, 23), random.tokens(1, 5, 23)};
  const auto z = [&](const at::Tensor& t) { return model().run(t, record<Z>()).cache.get<Z>(Layer{1}); };
  const auto all = make::cat({z(batches[0]), z(batches[1])}, 0);
  const auto by_position = mean_activations<Z>(model(), batches);
  const auto pooled = mean_activations<Z>(model(), batches, MeanOver::positions);
  REQUIRE_CLOSE(by_position.get<Z>(Layer{1}), all.mean(0, true), 1e-14);
  REQUIRE_CLOSE(pooled.get<Z>(Layer{1}), all.flatten(0, 1).mean(0).unsqueeze(0).unsqueeze(0), 1e-14);
  REQUIRE_CLOSE(seen(replace<Z>(with::Run{by_position}, in_last)), all.mean(0, true).expand({3, 5, 4, 4}), 1e-14);
  REQUIRE_CLOSE(seen(replace<Z>(with::Run{pooled}, in_last)), all.flatten(0, 1).mean(0).expand({3, 5, 4, 4}), 1e-14);

  const std::vector<at::Tensor> uneven{random.tokens(3, 5, 23), random.tokens(1, 4, 23)};
  CHECK_THROWS_AS(mean_activations<Z>(model(), uneven), ShapeError);
  const auto any_length = mean_activations<Z>(model(), uneven, MeanOver::positions);
  const auto rows = make::cat({z(uneven[0]).flatten(0, 1), z(uneven[1]).flatten(0, 1)}, 0);
  REQUIRE_CLOSE(any_length.get<Z>(Layer{1})[0][0], rows.mean(0), 1e-14);
  CHECK_THROWS_AS(mean_activations<Z>(model(), std::vector<at::Tensor>{}), ValueError);
}

TEST_CASE("resampling puts other prompts' values in place") {
  data::Random random{3};
  const auto drawn = draw_prompts(3, 3, random);
  const auto other = pick_prompts(model().run(tokens(8), record<Z>()).cache, drawn);
  const auto found = seen(replace<Z>(with::Run{other}, in_last));
  for (std::int64_t b = 0; b < 3; ++b) {
    REQUIRE_CLOSE(found[b], plain(Layer{1}, 8)[drawn[static_cast<std::size_t>(b)].value], 0.0);
  }
  const auto cache = model().run(tokens(8), record<Z>()).cache;
  CHECK_THROWS_AS(pick_prompts(cache, {Prompt{3}}), IndexError);
  CHECK_THROWS_AS(pick_prompts(cache, {}), ValueError);
  CHECK_THROWS_AS(draw_prompts(1, 0, random), ValueError);
}

TEST_CASE("steering with a vector goes on while the model generates") {
  const auto vector = random_model::Source{2}({16}, 0.7);
  const auto steer = replace<hook::resid_post>(with::Plus{vector}, {.layers = {Layer{0}}});
  const auto found = generate(model(), tokens(), 4, choose::Greedy{}, steer);
  const auto again = model().run(found.tokens, steer).logits;  // without a cache, over the whole text
  REQUIRE_CLOSE(found.logits, again.narrow(1, 4, 4), 1e-9);
  CHECK(again.narrow(1, 4, 4).argmax(-1).equal(found.tokens.narrow(1, 5, 4)));
  CHECK_FALSE(difference(found.logits, model().run(found.tokens).logits.narrow(1, 4, 4), 1e-3).close);
}

TEST_CASE("features set and dictionaries spliced in act on every generated token too") {
  const auto dictionaries = random_model::dictionaries(model().config(), 6);
  const auto set =
      set_to(2.0, dictionaries, {attn_feature(Layer{0}, Feature{3}), mlp_feature(Layer{1}, Feature{5})}, everywhere);
  const auto spliced = splice(dictionaries, error::Dropped{});
  const auto check = [](auto attached) {
    const auto found = generate(model(), tokens(), 4, choose::Greedy{}, attached);
    const auto again = model().run(found.tokens, attached).logits.narrow(1, 4, 4);
    REQUIRE_CLOSE(found.logits, again, 1e-9);
    CHECK_FALSE(difference(again, model().run(found.tokens).logits.narrow(1, 4, 4), 1e-3).close);
  };
  check(set);
  check(spliced);
}

TEST_CASE("parts that are not there, and replacements that do not fit, are refused") {
  const auto run = [](auto attached) { return model().run(tokens(), attached).logits; };
  CHECK_THROWS_AS(run(replace<Z>(with::Zero{}, {.positions = {Position{5}}})), IndexError);
  CHECK_THROWS_AS(run(replace<Z>(with::Zero{}, {.heads = {Head{4}}})), IndexError);
  CHECK_THROWS_AS(run(replace<Z>(with::Zero{}, {.units = {Feature{4}}})), IndexError);
  CHECK_THROWS_AS(run(replace<Z>(with::Zero{}, {.position_of = {Position{1}}})), ValueError);
  CHECK_THROWS_AS(run(replace<hook::mlp_out>(with::Zero{}, {.heads = {Head{0}}})), NameError);
  CHECK_THROWS_AS(run(replace<Z>(with::Value{random_model::Source{2}({5})})), ShapeError);
  CHECK_THROWS_AS(run(replace<Z>(with::Run{model().run(tokens(), record<Z>({{Layer{0}}})).cache})), NameError);
  CHECK_THROWS_AS(run(replace<Z>(with::Run{model().run(tokens().narrow(0, 0, 2), record<Z>()).cache})), ShapeError);
}
