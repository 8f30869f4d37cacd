#include "circuit/evaluate/bootstrap.hpp"

#include <cmath>
#include <limits>
#include <numeric>

#include "catch.hpp"
#include "circuit/evaluate/stability.hpp"

using namespace circuit;

namespace {

Circuit heads_from(const std::vector<int>& from) {
  Circuit circuit;
  circuit.add_node({.node = Node::metric()});
  for (const int head : from) {
    circuit.add_node({.node = Node::head(Layer{0}, Head{head})});
    circuit.add_edge(Node::head(Layer{0}, Head{head}), Node::metric(), {.type = EdgeType::metric, .em_attrib = 1});
  }
  return circuit;
}

}  // namespace

TEST_CASE("the bootstrap of a mean is as wide as the normal interval says") {
  std::vector<double> values;
  data::Random random{5};
  for (int i = 0; i < 400; ++i) values.push_back(static_cast<double>(random.below(1000)) / 1000);
  const auto mean = std::accumulate(values.begin(), values.end(), 0.0) / 400;
  double squares = 0;
  for (const auto v : values) squares += (v - mean) * (v - mean);
  const auto error = std::sqrt(squares / 400 / 400);
  const auto found = bootstrap_mean(values, {.draws = 4000, .seed = 2});
  CHECK(found.estimate == Approx(mean));
  CHECK(found.low == Approx(mean - 1.96 * error).margin(0.1 * error));
  CHECK(found.high == Approx(mean + 1.96 * error).margin(0.1 * error));
  const auto narrow = bootstrap_mean(values, {.draws = 4000, .level = 0.5, .seed = 2});
  CHECK(narrow.high - narrow.low == Approx(2 * 0.6745 * error).epsilon(0.1));
  CHECK(bootstrap_mean(values, {.seed = 2}).low == bootstrap_mean(values, {.seed = 2}).low);
}

TEST_CASE("a mean of two values takes the three values it can, with their shares") {
  // Samples of {0, 1}: means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
  const std::vector<double> values{0, 1};
  CHECK(bootstrap_mean(values, {.draws = 999, .level = 0.9}).low == 0.0);
  CHECK(bootstrap_mean(values, {.draws = 999, .level = 0.9}).high == 1.0);
  CHECK(bootstrap_mean(values, {.draws = 999, .level = 0.3}).low == 0.5);
  CHECK(bootstrap_mean(values, {.draws = 999, .level = 0.3}).high == 0.5);
}

TEST_CASE("faithfulness of drawn prompts is the share of their means") {
  const std::vector<double> full{3, 5};
  const std::vector<double> empty{1, 1};
  const std::vector<double> circuit{2, 5};
  const auto found = bootstrap_faithfulness(full, empty, circuit, {.draws = 999, .level = 0.9});
  CHECK(found.estimate == Approx(5.0 / 6));  // (1 + 4) / (2 + 4)
  CHECK(found.low == Approx(0.5));           // the first prompt twice
  CHECK(found.high == Approx(1.0));          // the second twice
  CHECK_THROWS_AS(bootstrap_faithfulness(full, empty, std::vector<double>{1}), ValueError);
  CHECK_THROWS_AS(bootstrap_faithfulness(full, full, circuit), ValueError);
}

TEST_CASE("no sample, no draws, a level that is none, and a statistic that is no number are refused") {
  const std::vector<double> values{0, 1};
  CHECK_THROWS_AS(bootstrap_mean({}), ValueError);
  CHECK_THROWS_AS(bootstrap_mean(values, {.draws = 0}), ValueError);
  CHECK_THROWS_AS(bootstrap_mean(values, {.level = 1.0}), ValueError);
  CHECK_THROWS_AS(bootstrap_mean(std::vector{1.0, std::numeric_limits<double>::quiet_NaN()}), ValueError);
}

TEST_CASE("stability is the mean Jaccard over pairs of searches, with an interval") {
  // Edges: {0,1} {0,1} {0,2}: Jaccard 1, 1/3, 1/3. Nodes count the metric too: 1, 1/2, 1/2.
  const std::vector<Circuit> circuits{heads_from({0, 1}), heads_from({0, 1}), heads_from({0, 2})};
  const auto found = stability(circuits);
  CHECK(found.edges.estimate == Approx(5.0 / 9));
  CHECK(found.nodes.estimate == Approx(2.0 / 3));
  CHECK(found.edges.low == Approx(1.0 / 3));
  CHECK(found.edges.high == 1.0);
  const std::vector<Circuit> same{heads_from({0, 1}), heads_from({0, 1}), heads_from({0, 1})};
  CHECK(stability(same).edges.low == 1.0);
  const std::vector<Circuit> apart{heads_from({0}), heads_from({1}), heads_from({2})};
  CHECK(stability(apart).edges.high == 0.0);  // a draw of one circuit alone says nothing
  CHECK_THROWS_AS(stability(std::vector<Circuit>{heads_from({0}), heads_from({1})}), ValueError);
}

TEST_CASE("edges are counted over searches, the most frequent first") {
  const auto found = edge_frequencies(std::vector<Circuit>{heads_from({0, 1}), heads_from({0, 1}), heads_from({0, 2})});
  REQUIRE(found.size() == 3);
  CHECK(found[0].up == Node::head(Layer{0}, Head{0}));
  CHECK(found[0].share == 1.0);
  CHECK(found[1].share == Approx(2.0 / 3));
  CHECK(found[2].up == Node::head(Layer{0}, Head{2}));
}

TEST_CASE("a search is repeated on prompts drawn with replacement, the same for one seed") {
  std::vector<std::vector<std::size_t>> seen;
  const auto search = [&](const std::vector<std::size_t>& prompts) {
    seen.push_back(prompts);
    return heads_from({static_cast<int>(prompts.front())});
  };
  const auto found = search_on_draws(5, 20, 3, search);
  CHECK(found.size() == 20);
  for (const auto& prompts : seen) {
    CHECK(prompts.size() == 5);
    for (const auto p : prompts) CHECK(p < 5);
  }
  CHECK(seen[0] != seen[1]);
  const auto first = seen;
  seen.clear();
  static_cast<void>(search_on_draws(5, 20, 3, search));
  CHECK(seen == first);
  CHECK_THROWS_AS(search_on_draws(0, 1, 3, search), ValueError);
}
