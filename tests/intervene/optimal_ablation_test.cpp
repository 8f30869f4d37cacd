#include "circuit/intervene/optimal_ablation.hpp"

#include "circuit/metric/to_clean.hpp"
#include "circuit/metric/weighted_sum.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

at::Tensor six_prompts() { return random_model::Source{7}.tokens(6, 5, 23); }

/// Squared distance from given logits at the last position.
auto distance_to(const at::Tensor& logits) {
  return metric_by(
      [aim = logits.select(1, -1)](const at::Tensor& x) { return x.select(1, -1).sub(aim).pow(2).sum(-1); });
}

}  // namespace

TEST_CASE("where the rest of the model is linear, the best constant is the mean over what is read") {
  const auto model = random_model::make<Plain>(5);  // no norm stands behind the last MLP
  const auto clean = model.run(six_prompts(), record<hook::mlp_out>());
  const auto mean_at_end = clean.cache.get<hook::mlp_out>(Layer{1}).select(1, -1).mean(0);
  const Part last{.layers = {Layer{1}}};
  const auto found = optimal_ablation<hook::mlp_out>(model, six_prompts(), distance_to(clean.logits), last,
                                                     {.steps = 600, .rate = 0.05});
  REQUIRE_CLOSE(found.value, mean_at_end, 1e-4);
  const auto at_mean = replace<hook::mlp_out>(with::Value{mean_at_end}, last);
  CHECK(found.losses.back() ==
        Approx(mean(distance_to(clean.logits), model.run(six_prompts(), at_mean).logits).item<double>()).epsilon(1e-6));
}

TEST_CASE("the optimal constant costs less than the mean and than zero, and what it costs can be run again") {
  const auto model = random_model::make<Llama>(5);
  const KlToClean loss{model.run(six_prompts()).logits};
  const Part head{.layers = {Layer{0}}, .heads = {Head{1}}};
  const auto found = optimal_ablation<hook::attn::z>(model, six_prompts(), loss, head, {.steps = 150, .rate = 0.03});
  const auto cost = [&](const at::Tensor& value) {
    return mean(loss, model.run(six_prompts(), replace<hook::attn::z>(with::Value{value}, head)).logits).item<double>();
  };
  CHECK(found.losses.size() == 151);
  CHECK(found.losses.back() == Approx(cost(found.value)).epsilon(1e-12));
  CHECK(found.losses.back() < 0.9 * found.losses.front());
  CHECK(found.losses.back() < cost(found.value.mul(0)));
  // At the optimum no small move of the head's own value is better.
  for (std::int64_t d = 0; d < 4; ++d) {
    for (const double by : {-0.2, 0.2}) {
      auto moved = found.value.clone();
      moved[1][d].add_(by);
      CHECK(cost(moved) > found.losses.back());
    }
  }
}

TEST_CASE("a descent without steps, a rate or one layer is refused") {
  const auto model = random_model::make<Plain>(5);
  const auto loss = distance_to(model.run(six_prompts()).logits);
  const Part last{.layers = {Layer{1}}};
  CHECK_THROWS_AS(optimal_ablation<hook::mlp_out>(model, six_prompts(), loss, last, {.steps = 0}), ValueError);
  CHECK_THROWS_AS(optimal_ablation<hook::mlp_out>(model, six_prompts(), loss, last, {.rate = 0}), ValueError);
  CHECK_THROWS_AS(optimal_ablation<hook::mlp_out>(model, six_prompts(), loss, Part{}), ValueError);
  const auto flat = metric_by([](const at::Tensor& x) { return x.detach().select(1, -1).amax(-1); });
  CHECK_THROWS_AS(optimal_ablation<hook::mlp_out>(model, six_prompts(), flat, last), ValueError);
}
