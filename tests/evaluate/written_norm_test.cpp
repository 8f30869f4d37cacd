#include "circuit/evaluate/written_norm.hpp"

#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"

using namespace circuit;

TEST_CASE("a feature's written norm is the mean length of what it adds to the residual stream") {
  const auto model = random_model::make<Gpt2>(51);
  const auto set = GENERATE(false, true) ? random_model::normalizing_dictionaries(model.config(), 52)
                                         : random_model::dictionaries(model.config(), 52);
  const auto tokens = random_model::Source{53}.tokens(3, 5, model.config().d_vocab);
  const LogitDifference metric{std::vector<std::int64_t>{3, 5, 7}, std::vector<std::int64_t>{4, 1, 2}};
  const auto lin = linearize<final_norm::Frozen>(model, set, tokens, {}, metric);
  const auto found = written_attention_features(model, set, lin, Position{3});
  const auto cache = model.run(tokens, record<hook::attn::z, hook::attn_out>()).cache;

  std::map<Node, double> expected;
  for (const auto layer : {Layer{0}, Layer{1}}) {
    const bool z = set.attn_site(layer) == AttentionSite::z;
    const auto input = z ? cache.get<hook::attn::z>(layer).flatten(2) : cache.get<hook::attn_out>(layer);
    const auto& d = *set.attn(layer);
    const auto unit = d.input_norm.undo(input.mul(0).add(1), input).sub(d.input_norm.undo(input.mul(0), input));
    const auto acts = set.encode_attn(layer, input).mul(unit.narrow(-1, 0, 1)).select(1, 3);  // [batch, d_sae]
    const auto writes = z ? d.W_dec.matmul(model.weights().blocks[0].attn.W_O) : d.W_dec;
    const auto lengths = acts.unsqueeze(-1).mul(writes).norm(2, -1).mean(0);
    for (std::int32_t f = 0; f < d.d_sae(); ++f) {
      const auto length = lengths[f].item<double>();
      if (length > 0) expected[Node::attn_feature(layer, Position{3}, Feature{f})] = length;
    }
  }
  REQUIRE(found.size() == expected.size());
  REQUIRE(found.size() > 5);
  for (const auto& [node, norm] : found) {
    INFO(node);
    REQUIRE(norm == Approx(expected.at(node)).epsilon(1e-10));
  }
  REQUIRE_THROWS_AS(written_attention_features(model, set, lin, Position{5}), IndexError);
}
