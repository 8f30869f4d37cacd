#include <map>
#include <tuple>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

using Ids = std::vector<std::vector<std::int64_t>>;

const std::vector<std::int64_t> lengths{6, 4};
const std::vector<Position> last{Position{5}, Position{3}};
const Ids padded_right{{3}, {5}};
const Ids padded_wrong{{4}, {1}};

/// Two prompts of unequal lengths, the shorter filled up on the right, clean and corrupt with different tokens.
PromptPair padded() {
  PromptPair pair{random_model::Source{13}.tokens(2, 6, 23), random_model::Source{14}.tokens(2, 6, 23)};
  pair.clean[1].narrow(0, 4, 2).fill_(9);
  pair.corrupt[1].narrow(0, 4, 2).fill_(2);
  return pair;
}
PromptPair alone(std::int64_t b) {
  const auto n = lengths[static_cast<std::size_t>(b)];
  return {padded().clean.narrow(0, b, 1).narrow(1, 0, n), padded().corrupt.narrow(0, b, 1).narrow(1, 0, n)};
}
LogitDifference metric_at(std::int64_t b) {
  const auto slot = static_cast<std::size_t>(b);
  return {Ids{padded_right[slot]}, Ids{padded_wrong[slot]}};
}

}  // namespace

TEMPLATE_TEST_CASE("edge attribution patching of filled-up prompts is the mean of each prompt's own", "", Gpt2, Llama) {
  const auto model = random_model::make<TestType>(11);
  const EdgeAttributionPatching<> search;
  const auto together = search.scores(model, padded(), LogitDifference{padded_right, padded_wrong, last});
  const auto mean_alone =
      search.scores(model, alone(0), metric_at(0)).add(search.scores(model, alone(1), metric_at(1))).div(2);
  REQUIRE_CLOSE(together, mean_alone, 1e-9);
}

TEMPLATE_TEST_CASE("LEAP's edges on filled-up prompts are the mean of each prompt's own, and none leaves the filling",
                   "", Gpt2, Llama) {
  const auto model = random_model::make<TestType>(11);
  const auto dictionaries = random_model::dictionaries(model.config(), 12);
  using Key = std::tuple<Node, Node, EdgeType>;
  const auto search = [&](const PromptPair& prompts, const LogitDifference& metric) {
    const Leap<keep::Above, chain::ModelGradient, contrast::Signed, batching::Exact, score::Chained, targets::AllActive>
        leap{.keep = {.threshold = 0.0}};
    std::map<Key, double> edges;
    const auto found = leap(model, dictionaries, prompts, metric);
    for (const auto& [up, down, edge] : found.edges()) {
      if (std::abs(edge.em_attrib) > 1e-12) edges[{up, down, edge.type}] = edge.em_attrib;
    }
    return edges;
  };
  const auto together = search(padded(), LogitDifference{padded_right, padded_wrong, last});
  std::map<Key, double> mean_alone;
  for (const std::int64_t b : {0, 1}) {
    for (const auto& [key, attribution] : search(alone(b), metric_at(b))) mean_alone[key] += attribution / 2;
  }
  REQUIRE(together.size() > 200);
  double worst = 0;
  for (const auto& [key, attribution] : mean_alone) {
    const auto found = together.find(key);
    worst = std::max(worst, std::abs(attribution - (found == together.end() ? 0.0 : found->second)));
  }
  for (const auto& [key, attribution] : together) {
    if (mean_alone.count(key) == 0) worst = std::max(worst, std::abs(attribution));
  }
  CHECK(worst < 1e-9);
}
