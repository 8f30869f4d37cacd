#include "circuit/search/edge_pruning.hpp"

#include <ATen/ops/zeros.h>

#include "circuit/model/known/induction.hpp"
#include "circuit/search/divergence/divergence.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct PruningSetup {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(57);
  PromptPair prompts{random_model::Source{58}.tokens(2, 4, model.config().d_vocab),
                     random_model::Source{59}.tokens(2, 4, model.config().d_vocab)};
  Components c = Components::of(model);
  at::Tensor other = sender_writes(model, prompts.corrupt);
  at::Tensor whole = model.run(prompts.clean).logits.select(1, -1).log_softmax(-1);
};

}  // namespace

TEST_CASE("gates are stretched and clamped, and their chance of being open is a sigmoid") {
  const auto theta = at::zeros({3}, at::kDouble);
  theta[0].fill_(-6.0);
  theta[2].fill_(6.0);
  const auto z = EdgePruning::gate(theta);
  REQUIRE(z[0].item<double>() == 0);
  REQUIRE(z[1].item<double>() == Approx(0.5));
  REQUIRE(z[2].item<double>() == 1);
  // P(z > 0) by counting: z > 0 where sigmoid((log u - log(1 - u) + theta) / (2/3)) 1.2 > 0.1
  int open = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double u = (i + 0.5) / n;
    open += 1.2 / (1 + std::exp(-(std::log(u) - std::log(1 - u) + 0.7) / (2.0 / 3.0))) > 0.1 ? 1 : 0;
  }
  const auto p = EdgePruning::open_probability(at::zeros({1}, at::kDouble).add(0.7)).item<double>();
  REQUIRE(p == Approx(static_cast<double>(open) / n).margin(2e-5));
}

TEST_CASE("gates of 0 and 1 are edges cut and kept; between them the loss has their gradient") {
  const PruningSetup s;
  const auto kept = random_model::Source{60}({s.c.senders(), s.c.receivers()}, 1.0).gt(0).logical_and(s.c.edge_mask());
  const auto loss = [&](const at::Tensor& gates) {
    return EdgePruning::divergence(s.model, s.prompts, gates, s.other, s.whole);
  };
  const auto logits = s.model.run(s.prompts.clean, keep_only_edges(s.model, kept, s.other)).logits;
  const auto expected = divergence::Kl{}.distance(s.model.run(s.prompts.clean).logits, logits);
  REQUIRE(loss(kept.to(at::kDouble)).item<double>() == Approx(expected).epsilon(1e-10));
  REQUIRE(loss(s.c.edge_mask().to(at::kDouble)).item<double>() == Approx(0).margin(1e-12));

  const c10::AutoGradMode with_gradient{true};
  const auto gates = at::zeros({s.c.senders(), s.c.receivers()}, at::kDouble).add(0.6).requires_grad_(true);
  const auto g = gradient_of(loss(gates), {gates}).front();
  int checked = 0;
  for (std::int64_t r = 0; r < s.c.receivers(); r += 3) {
    for (std::int64_t from = 0; from < s.c.before(r); from += 2) {
      auto up = gates.detach().clone();
      auto down = up.clone();
      up[from][r] += 1e-5;
      down[from][r] -= 1e-5;
      const auto slope = loss(up).sub(loss(down)).item<double>() / 2e-5;
      REQUIRE(g[from][r].item<double>() == Approx(slope).epsilon(1e-5).margin(1e-8));
      ++checked;
    }
  }
  REQUIRE(checked > 10);
}

TEST_CASE("on a model whose circuit is known exactly the true edges stay open") {
  const auto task = induction_circuit();
  const auto c = Components::of(task.model);
  std::size_t rounds = 0;
  const auto scores =
      EdgePruning{}.scores(task.model, {task.clean, task.corrupt}, [&](const RoundDone& e) { rounds = e.targets; });
  REQUIRE(rounds == 300);
  REQUIRE(EdgePruning::gate(scores).gt(0.5).logical_and(c.edge_mask()).equal(task.edges));
  REQUIRE(scores.mul(c.edge_mask().logical_not()).abs().max().item<double>() == 0);
}

TEST_CASE("a seed decides the gates' noise") {
  const PruningSetup s;
  const auto once = EdgePruning{.steps = 2}.scores(s.model, s.prompts);
  REQUIRE(once.equal(EdgePruning{.steps = 2}.scores(s.model, s.prompts)));
  REQUIRE_FALSE(once.equal(EdgePruning{.steps = 2, .seed = 1}.scores(s.model, s.prompts)));
  REQUIRE(EdgePruning{.steps = 2}(s.model, s.prompts).edge_count() > 0);
}

TEST_CASE("bad settings of edge pruning are one clear error") {
  const PruningSetup s;
  REQUIRE_THROWS_AS(EdgePruning{.steps = 0}.scores(s.model, s.prompts), ValueError);
  REQUIRE_THROWS_AS(EdgePruning{}.scores(s.model, {s.prompts.clean, s.prompts.corrupt.narrow(1, 0, 2)}), ShapeError);
  std::stop_source stop;
  stop.request_stop();
  REQUIRE_THROWS_AS(EdgePruning{.stop = stop.get_token()}.scores(s.model, s.prompts), Cancelled);
}
