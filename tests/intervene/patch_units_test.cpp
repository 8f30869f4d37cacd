#include "circuit/intervene/patch_units.hpp"

#include "circuit/model/record.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

struct UnitSetting {
  HookedTransformer<Llama> model = random_model::make<Llama>(1);
  at::Tensor clean = random_model::Source{3}.tokens(2, 5, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{4}.tokens(2, 5, model.config().d_vocab);
  UnitMask none{model.config(), 5};

  auto units(const at::Tensor& tokens) const {
    return model.run(tokens, record<hook::attn::z, hook::mlp::post>()).cache;
  }
};

}  // namespace

TEST_CASE("chosen units have the other run's values where they are chosen, and no others do") {
  const UnitSetting s;
  auto mask = s.none;
  mask.choose(/*attention=*/true, Layer{0}, Position{2}, Feature{6});
  mask.choose(/*attention=*/false, Layer{0}, Position{4}, Feature{9});
  REQUIRE(mask.count() == 2);
  REQUIRE(mask.has(true, Layer{0}, Position{2}, Feature{6}));
  REQUIRE_FALSE(mask.has(false, Layer{0}, Position{2}, Feature{6}));

  const auto clean = s.units(s.clean);
  const auto other = s.units(s.corrupt);
  const auto patched = s.model.run(s.clean, patch_units(mask, other), record<hook::attn::z, hook::mlp::post>()).cache;
  auto z = clean.get<hook::attn::z>(Layer{0}).clone();
  for (std::int64_t b = 0; b < 2; ++b) z[b][2][1][2] = other.get<hook::attn::z>(Layer{0})[b][2][1][2];
  REQUIRE_CLOSE(patched.get<hook::attn::z>(Layer{0}), z, 0.0);
  const auto& post = patched.get<hook::mlp::post>(Layer{0});
  for (std::int64_t b = 0; b < 2; ++b) {
    REQUIRE(post[b][4][9].item<double>() == other.get<hook::mlp::post>(Layer{0})[b][4][9].item<double>());
  }
  // Positions before the first change are untouched in every layer.
  REQUIRE_CLOSE(patched.get<hook::mlp::post>(Layer{1}).narrow(1, 0, 2),
                clean.get<hook::mlp::post>(Layer{1}).narrow(1, 0, 2), 1e-12);
}

TEST_CASE("with every unit of another run the last position's logits differ by its own embedding alone") {
  const UnitSetting s;
  // Two prompts that end in one token: then nothing is left of the first.
  auto clean = s.clean.clone();
  clean.select(1, 4).copy_(s.corrupt.select(1, 4));
  const auto logits = s.model.run(clean, patch_units(s.none.others(), s.units(s.corrupt))).logits;
  REQUIRE_CLOSE(logits.select(1, 4), s.model.run(s.corrupt).logits.select(1, 4), 1e-12);
  REQUIRE(s.none.others(1).count() == 2 * 4 * (16 + 24));
  REQUIRE(s.none.others(1).has(true, Layer{1}, Position{1}, Feature{0}));
  REQUIRE_FALSE(s.none.others(1).has(true, Layer{1}, Position{0}, Feature{0}));
}

TEST_CASE("one recorded prompt serves every prompt") {
  const UnitSetting s;
  const auto one = s.units(s.corrupt.narrow(0, 0, 1));
  const auto repeated = s.units(s.corrupt.narrow(0, 0, 1).repeat({2, 1}));
  const auto mask = s.none.others(3);
  REQUIRE_CLOSE(s.model.run(s.clean, patch_units(mask, one)).logits,
                s.model.run(s.clean, patch_units(mask, repeated)).logits, 1e-12);
}

TEST_CASE("masks and runs that do not fit are refused") {
  const UnitSetting s;
  auto mask = s.none;
  REQUIRE_THROWS_AS(mask.choose(true, Layer{2}, Position{0}, Feature{0}), IndexError);
  REQUIRE_THROWS_AS(mask.choose(true, Layer{0}, Position{5}, Feature{0}), IndexError);
  REQUIRE_THROWS_AS(mask.choose(false, Layer{0}, Position{0}, Feature{24}), IndexError);
  const auto other = s.units(s.corrupt);
  REQUIRE_THROWS_AS(s.model.run(s.clean.narrow(1, 0, 4), patch_units(mask, other)), ShapeError);
  REQUIRE_THROWS_AS(s.model.run(s.clean.repeat({2, 1}), patch_units(mask, other)), ShapeError);
}
