#include <ATen/ops/randint.h>

#include "by_hand.hpp"
#include "circuit/metric/accuracy.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/metric/probability.hpp"
#include "circuit/metric/sequence.hpp"
#include "circuit/metric/to_clean.hpp"
#include "circuit/metric/weighted_sum.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"

using namespace circuit;
using Ids = std::vector<std::vector<std::int64_t>>;

namespace {

const Ids right{{1, 4}, {0}};
const Ids wrong{{2}, {3, 5}};

struct Setting {
  HookedTransformer<Llama> model = random_model::make<Llama>(3);
  PromptPair prompts{};
  at::Tensor other_logits{};

  Setting() {
    random_model::Source random{4};
    prompts = {random.tokens(2, 5, 23), random.tokens(2, 5, 23)};
    other_logits = model.run(random.tokens(2, 5, 23)).logits;
  }
};

/// What EAP gives all edges into the logits together is the metric's slope along the last stream's change, which
/// central differences give too.
template <Metric M>
void check_into_logits(const Setting& s, const M& metric) {
  const auto scores = EdgeAttributionPatching<>{}.scores(s.model, s.prompts, metric);
  const auto found = scores.select(1, Components::of(s.model).logits()).sum().template item<double>();
  const auto last = [&](const at::Tensor& tokens) {
    return s.model.run(tokens, record<hook::resid_post>()).cache.template get<hook::resid_post>(Layer{1});
  };
  const auto clean = last(s.prompts.clean);
  const auto change = clean.sub(last(s.prompts.corrupt));
  const auto moved = [&](double by) {
    const auto logits = soft_cap(s.model.unembed(clean.add(change, by)), s.model.config().logit_soft_cap);
    return mean(metric, logits).template item<double>();
  };
  constexpr double h = 1e-5;
  const auto expected = (moved(h) - moved(-h)) / (2 * h);
  REQUIRE(std::abs(expected) > 1e-3);
  CHECK(std::abs(found - expected) < 1e-7 * std::max(1.0, std::abs(expected)));
}

}  // namespace

TEST_CASE("edge attribution patching takes every metric that has a gradient") {
  const Setting s;
  check_into_logits(s, LogitDifference{right, wrong});
  check_into_logits(s, Probability{right});
  check_into_logits(s, LogProbability{right});
  check_into_logits(s, ProbabilityDifference{right, wrong});
  check_into_logits(s, KlToClean{s.other_logits, Reading::every()});
  check_into_logits(s, JsToClean{s.other_logits});
  check_into_logits(s, Loss{s.prompts.clean});
  check_into_logits(s, SequenceLogProbability{s.prompts.clean, {.first = {Position{3}}}});
  check_into_logits(s, WeightedSum{Weighted{2.0, Probability{right}}, Weighted{-1.0, TokenLogit{wrong}}});
  check_into_logits(s, metric_by([](const at::Tensor& logits) { return logits.select(1, -1).logsumexp(-1); }));
}

TEST_CASE("LEAP's metric node holds the metric's mean and its gradient reaches the features") {
  const Setting s;
  const auto dictionaries = random_model::dictionaries(s.model.config(), 5);
  const ProbabilityDifference metric{right, wrong};
  const auto found = Leap<>{.keep = {.threshold = 0.0}}(s.model, dictionaries, s.prompts, metric);
  const auto expected = mean(metric, s.model.run(s.prompts.clean).logits).item<double>();
  for (const auto& bundle : found.nodes()) {
    if (bundle.node == Node::metric()) CHECK(bundle.activation == Approx(expected));
  }
  std::size_t into_metric = 0;
  for (const auto& [up, down, edge] : found.edges()) into_metric += down == Node::metric() ? 1U : 0U;
  CHECK(into_metric > 20);
}

TEST_CASE("a search that needs a gradient refuses a metric without one") {
  const Setting s;
  CHECK_THROWS_AS(EdgeAttributionPatching<>{}.scores(s.model, s.prompts, Accuracy{right}), ValueError);
}
