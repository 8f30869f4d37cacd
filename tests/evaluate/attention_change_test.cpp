#include "circuit/evaluate/attention_change.hpp"

#include <limits>

#include "circuit/model/edit.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

struct Runs {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(31);
  at::Tensor tokens = random_model::Source{32}.tokens(2, 5, model.config().d_vocab);

  auto run() const { return model.run(tokens, record<hook::attn::attn_scores, hook::attn::pattern>()).cache; }
  /// Head 2 of layer 1 scores key 1 higher.
  auto raised() const {
    const auto raise = edit<hook::attn::attn_scores>(
        [](const at::Tensor& scores, Layer) {
          auto more = scores.clone();
          more.select(-1, 1).add_(2.0);
          return more;
        },
        {.layers = {Layer{1}}, .heads = {Head{2}}});
    return model.run(tokens, raise, record<hook::attn::attn_scores, hook::attn::pattern>()).cache;
  }
};

}  // namespace

TEST_CASE("a raised score shows at its head and key, and its pattern takes from the other keys") {
  const Runs runs;
  const auto changes = attention_changes(runs.run(), runs.raised(), Position{4}, {Position{1}, Position{3}});
  REQUIRE(changes.size() == 2U * 4U * 2U);
  for (const auto& c : changes) {
    const bool edited = c.layer == Layer{1} && c.head == Head{2};
    INFO(c.layer << ' ' << c.head << ' ' << c.key);
    REQUIRE(c.score_change() == Approx(edited && c.key == Position{1} ? 2.0 : 0.0).margin(1e-12));
    if (!edited) REQUIRE(c.pattern_change() == 0.0);
    if (edited && c.key == Position{1}) REQUIRE(c.pattern_change() > 0.01);
    if (edited && c.key == Position{3}) REQUIRE(c.pattern_change() < 0.0);
  }
  const auto pattern = runs.run().get<hook::attn::pattern>(Layer{0});
  REQUIRE(changes[0].pattern_before == Approx(pattern.select(2, 4).select(2, 1).select(1, 0).mean().item<double>()));
}

TEST_CASE("the score of a key that no run sees does not change") {
  constexpr auto outside = -std::numeric_limits<double>::infinity();
  const AttentionChange change{.score_before = outside, .score_after = outside};
  REQUIRE(change.score_change() == 0.0);
  REQUIRE(AttentionChange{.score_before = 1.5, .score_after = 1.0}.score_change() == -0.5);
}

TEST_CASE("positions that the runs do not have, and keys behind the query, are refused") {
  const Runs runs;
  const auto cache = runs.run();
  REQUIRE_THROWS_AS(attention_changes(cache, cache, Position{5}, {Position{0}}), IndexError);
  REQUIRE_THROWS_AS(attention_changes(cache, cache, Position{2}, {Position{3}}), IndexError);
  REQUIRE_THROWS_AS(attention_changes(cache, cache, Position{2}, {Position{-1}}), IndexError);
}
