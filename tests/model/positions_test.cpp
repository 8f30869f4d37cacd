#include "circuit/model/positions.hpp"

#include <cmath>
#include <complex>

#include "circuit/model/architecture/llama.hpp"
#include "circuit/model/key_value_cache.hpp"
#include "circuit/model/run_from.hpp"
#include "random_model.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

int asked = 0;  // how often the angles below were asked for

struct CountedRotary : positions::Rotary {
  [[nodiscard]] static positions::Angles angles(const at::Tensor& places, const ModelConfig& config,
                                                const at::TensorOptions& options) {
    ++asked;
    return Rotary::angles(places, config, options);
  }
};

struct Counted : Llama {
  using Positions = CountedRotary;
};

/// How often, since the last time.
int times_asked() { return std::exchange(asked, 0); }

}  // namespace

TEST_CASE("rotary positions turn pairs as complex numbers, and what is behind them stays") {
  ModelConfig config;
  config.rotary_dims = 4;
  config.rotary_base = 100.0;
  config.rotary_gain = 1.25;
  const auto x = random_model::Source{5}({2, 3, 2, 6}, 1.0);  // [batch, n, head, d_head]
  const std::vector<std::int64_t> places{7, 0, 4};
  const auto angles = positions::Rotary::angles(detail::ids_tensor(places), config, x.options());
  REQUIRE(angles.cos.sizes() == at::IntArrayRef{3, 1, 2});
  const auto turned = positions::Rotary::rotate(x, angles);
  const auto back = positions::Rotary::rotate_back(turned, angles);
  for (std::int64_t n = 0; n < 3; ++n) {
    for (std::int64_t pair = 0; pair < 2; ++pair) {
      const auto speed = std::pow(100.0, -static_cast<double>(pair) / 2);
      const auto of = [&](const at::Tensor& t, std::int64_t dimension) { return t[1][n][1][dimension].item<double>(); };
      const auto expected = std::complex{of(x, pair), of(x, pair + 2)} *
                            std::polar(1.25, speed * static_cast<double>(places[static_cast<std::size_t>(n)]));
      CHECK(of(turned, pair) == Approx(expected.real()).margin(1e-12));
      CHECK(of(turned, pair + 2) == Approx(expected.imag()).margin(1e-12));
    }
  }
  CHECK(turned.narrow(-1, 4, 2).equal(x.narrow(-1, 4, 2)));
  REQUIRE_CLOSE(back.narrow(-1, 0, 4), x.narrow(-1, 0, 4).mul(1.25 * 1.25), 1e-12);
}

TEST_CASE("angles are made once in a run, whichever part of it, and continued runs have those of their places") {
  const auto plain = random_model::make<Llama>(6);
  const HookedTransformer<Counted> model{plain.config(), plain.weights()};
  REQUIRE(model.config().n_layers > 1);
  const auto tokens = random_model::Source{7}.tokens(2, 6, model.config().d_vocab);
  (void)times_asked();
  const auto run = model.run(tokens, record<hook::resid_pre>());
  CHECK(times_asked() == 1);
  CHECK(run.logits.equal(plain.run(tokens).logits));

  CHECK(run_from(model, Layer{1}, run.cache.get<hook::resid_pre>(Layer{1})).logits.equal(run.logits));
  CHECK(times_asked() == 1);

  KeyValueCache kept;
  (void)model.run(tokens.narrow(1, 0, 4), kept);
  const auto rest = model.run(tokens.narrow(1, 4, 2), kept).logits;
  CHECK(times_asked() == 2);
  REQUIRE_CLOSE(rest, run.logits.narrow(1, 4, 2), 1e-12);

  auto one_by_one = run.cache.get<hook::resid_pre>(Layer{0});
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) one_by_one = model.block(one_by_one, Layer{l});
  CHECK(times_asked() == model.config().n_layers);
  CHECK(model.unembed(one_by_one).equal(run.logits));
  REQUIRE_THROWS_AS(model.block(one_by_one, Layer{static_cast<std::int32_t>(model.config().n_layers)}), IndexError);
}
