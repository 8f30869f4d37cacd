#include "circuit/evaluate/dictionary_quality.hpp"

#include <ATen/ops/eye.h>

#include "circuit/intervene/splice.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/model/record.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

const std::vector<std::vector<std::int32_t>> rows{{1, 2, 3, 4, 5, 6}, {7, 8, 9}, {2, 2, 4, 11, 20}};

SparseDictionary<> random_dictionary(random_model::Source& random, std::int64_t d_in, std::int64_t d_out, bool sae) {
  SparseDictionary<> d{{.W_enc = random({d_in, 40}, 0.3),
                        .b_enc = random({40}, 0.2, -0.5),
                        .W_dec = random({40, d_out}, 0.3),
                        .b_in = {},
                        .b_out = random({d_out}, 0.3)},
                       {}};
  if (sae) d.b_in = d.b_out;
  d.b_enc[7] = -1e6;  // dead
  return d;
}

/// A dictionary that gives back what it reads: every unit twice, as it is and negated.
SparseDictionary<> perfect(std::int64_t width) {
  const auto unit = at::eye(width, at::TensorOptions{}.dtype(at::kDouble));
  return {{.W_enc = make::cat({unit, unit.neg()}, 1),
           .b_enc = at::zeros({2 * width}, at::kDouble),
           .W_dec = make::cat({unit, unit.neg()}, 0),
           .b_in = {},
           .b_out = {}},
          {}};
}

/// Cross-entropy row by row, token by token.
template <class... Attached>
double loss_of(const HookedTransformer<Gpt2>& model, Attached... attached) {
  double sum = 0;
  int count = 0;
  for (const auto& row : rows) {
    const std::vector<std::vector<std::int32_t>> one{row};
    const auto logits = model.forward(to_tokens(one), attached...)[0];
    for (std::size_t i = 0; i + 1 < row.size(); ++i, ++count) {
      const auto said = logits[static_cast<std::int64_t>(i)].log_softmax(-1);
      sum -= said[row[i + 1]].template item<double>();
    }
  }
  return sum / count;
}

}  // namespace

TEST_CASE("dictionaries that miss nothing recover all of the loss, with every token explained") {
  const auto model = random_model::make<Gpt2>(51);
  const std::vector<PlacedDictionary> placed{{{"blocks.0.attn.hook_z", "blocks.0.attn.hook_z"}, perfect(16)},
                                             {{"blocks.1.hook_mlp_out", "blocks.1.hook_mlp_out"}, perfect(16)}};
  const auto quality = measure_quality(model, placed, rows, {.rows_per_run = 2, .each_alone = true});
  CHECK(quality.tokens == 14);
  CHECK(quality.loss.clean == Approx(loss_of(model)).epsilon(1e-10));
  CHECK(quality.loss.spliced == Approx(quality.loss.clean).epsilon(1e-10));
  CHECK(quality.loss.recovered() == Approx(1.0));
  for (const auto& site : quality.sites) {
    CHECK(site.explained == Approx(1.0));
    CHECK(site.active == Approx(16.0));
    CHECK(site.features == 32);
    CHECK(site.alone.recovered() == Approx(1.0));
  }
}

TEST_CASE("the figures are those of dictionaries put in place by hand") {
  const auto model = random_model::make<Gpt2>(52);
  random_model::Source random{53};
  const auto sae = random_dictionary(random, 16, 16, true);
  const auto transcoder = random_dictionary(random, 16, 16, false);
  const std::vector<PlacedDictionary> placed{{{"blocks.0.attn.hook_z", "blocks.0.attn.hook_z"}, sae},
                                             {{"blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"}, transcoder}};
  const auto quality = measure_quality(model, placed, rows, {.rows_per_run = 2});

  at::Tensor read;
  const auto z = edit<hook::attn::z>(
      [&](const at::Tensor& value, Layer) { return sae.reconstruct(value.flatten(2)).view(value.sizes()); },
      {.layers = {Layer{0}}});
  const auto keep =
      edit<hook::ln2::normalized>([&](const at::Tensor& value, Layer) { return read = value; }, {.layers = {Layer{1}}});
  const auto out = edit<hook::mlp_out>([&](const at::Tensor&, Layer) { return transcoder.reconstruct(read); },
                                       {.layers = {Layer{1}}});
  CHECK(quality.loss.spliced == Approx(loss_of(model, z, keep, out)).epsilon(1e-10));
  const auto zero = [](const at::Tensor& value, Layer) { return value.mul(0.0); };
  CHECK(quality.loss.zero == Approx(loss_of(model, edit<hook::attn::z>(zero, {.layers = {Layer{0}}}),
                                            edit<hook::mlp_out>(zero, {.layers = {Layer{1}}})))
                                 .epsilon(1e-10));

  std::vector<at::Tensor> inputs, outputs;
  for (const auto& row : rows) {
    const std::vector<std::vector<std::int32_t>> one{row};
    const auto cache = model.run(to_tokens(one), record<hook::ln2::normalized, hook::mlp_out>()).cache;
    inputs.push_back(cache.get<hook::ln2::normalized>(Layer{1})[0]);
    outputs.push_back(cache.get<hook::mlp_out>(Layer{1})[0]);
  }
  const auto x = make::cat(inputs);
  const auto y = make::cat(outputs);
  const auto fires = transcoder.encode(x).ne(0).to(at::kDouble);
  const auto& site = quality.sites[1];
  CHECK(site.active == Approx(fires.sum(-1).mean().item<double>()));
  CHECK(site.dead == Approx(fires.sum(0).eq(0).to(at::kDouble).mean().item<double>()));
  CHECK(site.dead >= 1.0 / 40);
  CHECK(site.frequency[7] == 0.0);
  CHECK(site.frequency[3] == Approx(fires.mean(0)[3].item<double>()));
  const auto error = y.sub(transcoder.reconstruct(x)).square().sum().item<double>();
  CHECK(site.explained == Approx(1.0 - error / y.sub(y.mean(0)).square().sum().item<double>()));
}

namespace {

/// A cross-layer transcoder of a model's two layers.
std::vector<PlacedDictionary> cross_layer(random_model::Source& random) {
  auto first = random_dictionary(random, 16, 16, false);
  first.W_later = random({40, 1, 16}, 0.3);
  return {{{"blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"}, first},
          {{"blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"}, random_dictionary(random, 16, 16, false)}};
}

}  // namespace

TEST_CASE("what a cross-layer transcoder writes into later layers counts there") {
  const auto model = random_model::make<Gpt2>(57);
  random_model::Source random{58};
  const auto placed = cross_layer(random);
  const auto quality = measure_quality(model, placed, rows, {.rows_per_run = 2, .each_alone = true});

  DictionarySet set;
  set.set_mlp(Layer{0}, placed[0].dictionary);
  set.set_mlp(Layer{1}, placed[1].dictionary);
  CHECK(quality.loss.spliced == Approx(loss_of(model, splice(set, error::Dropped{}))).epsilon(1e-10));
  auto within = placed;
  within[0].dictionary.W_later = at::Tensor{};
  const auto cut = measure_quality(model, within, rows);
  CHECK(std::abs(cut.loss.spliced - quality.loss.spliced) > 1e-3);

  at::Tensor read;
  at::Tensor written;
  const auto& first = placed[0].dictionary;
  const auto keep = edit<hook::ln2::normalized>([&](const at::Tensor& value, Layer) { return read = value; });
  const auto second_alone = edit<hook::mlp_out>([&](const at::Tensor& value, Layer layer) {
    if (layer == Layer{0}) {
      written = first.encode(read).matmul(first.W_later.select(1, 0));
      return value;
    }
    return placed[1].dictionary.reconstruct(read).add(written);
  });
  CHECK(quality.sites[1].alone.spliced == Approx(loss_of(model, keep, second_alone)).epsilon(1e-10));
  const auto zero =
      edit<hook::mlp_out>([](const at::Tensor& value, Layer) { return value.mul(0.0); }, {.layers = {Layer{1}}});
  CHECK(quality.sites[1].alone.zero == Approx(loss_of(model, zero)).epsilon(1e-10));

  double error = 0.0;
  std::vector<at::Tensor> outputs;
  for (const auto& row : rows) {
    const std::vector<std::vector<std::int32_t>> one{row};
    const auto cache = model.run(to_tokens(one), record<hook::ln2::normalized, hook::mlp_out>()).cache;
    const auto x = [&](int layer) { return cache.get<hook::ln2::normalized>(Layer{layer})[0]; };
    outputs.push_back(cache.get<hook::mlp_out>(Layer{1})[0]);
    const auto y_hat =
        placed[1].dictionary.reconstruct(x(1)).add(first.encode(x(0)).matmul(first.W_later.select(1, 0)));
    error += outputs.back().sub(y_hat).square().sum().item<double>();
  }
  const auto y = make::cat(outputs);
  CHECK(quality.sites[1].explained == Approx(1.0 - error / y.sub(y.mean(0)).square().sum().item<double>()));
  CHECK(quality.sites[0].explained == Approx(cut.sites[0].explained));

  CHECK_THROWS_WITH(measure_quality(model, std::span{placed}.subspan(0, 1), rows),
                    circuit_test::ContainsSubstring("blocks.1.hook_mlp_out, which has no dictionary"));
}

TEST_CASE("positions that are skipped stay as they are") {
  const auto model = random_model::make<Gpt2>(54);
  random_model::Source random{55};
  const std::vector<PlacedDictionary> placed{
      {{"blocks.0.attn.hook_z", "blocks.0.attn.hook_z"}, random_dictionary(random, 16, 16, true)}};
  CHECK(measure_quality(model, placed, rows).tokens == 14);
  const auto skipped = measure_quality(model, placed, rows, {.skip = 1});
  CHECK(skipped.tokens == 11);
  const auto all = measure_quality(model, placed, rows, {.skip = 6});
  CHECK(all.loss.spliced == Approx(all.loss.clean));
  CHECK(all.loss.zero == Approx(all.loss.clean));
  CHECK(skipped.loss.spliced != Approx(skipped.loss.clean));
}

TEST_CASE("dictionaries that do not fit are one clear error") {
  const auto model = random_model::make<Gpt2>(56);
  const auto check = [&](const char* in, const char* out, std::int64_t width) {
    const std::vector<PlacedDictionary> placed{{{in, out}, perfect(width)}};
    return measure_quality(model, placed, rows);
  };
  CHECK_THROWS_AS(check("blocks.0.attn.hook_z", "blocks.0.attn.hook_z", 12), ShapeError);
  CHECK_THROWS_AS(check("blocks.9.attn.hook_z", "blocks.9.attn.hook_z", 16), IndexError);
  CHECK_THROWS_AS(check("blocks.0.hook", "blocks.0.hook", 16), NameError);
  CHECK_THROWS_AS(measure_quality(model, {}, {}), ValueError);
}
