#include "circuit/intervene/edges_around.hpp"

#include "random_model.hpp"

using namespace circuit;

namespace {

/// Most edges, all of those into the logits among them.
at::Tensor most_edges(const Components& c, std::uint64_t seed) {
  auto kept = random_model::Source{seed}({c.senders(), c.receivers()}).gt(-0.7).logical_and(c.edge_mask());
  kept.select(1, c.logits()).fill_(true);
  return kept;
}

}  // namespace

TEMPLATE_TEST_CASE("edges around others give the logits of a run of their own, from every layer on", "", Gpt2, Llama,
                   GptNeox, Gemma2) {
  const auto model = random_model::make<TestType>(5);
  const auto tokens = random_model::Source{7}.tokens(2, 5, 23);
  const auto other = sender_writes(model, random_model::Source{8}.tokens(2, 5, 23));
  const auto c = Components::of(model);
  const auto kept = most_edges(c, 9);
  const EdgesAround around{model, tokens, kept, other};
  const auto alone = [&](const at::Tensor& edges) {
    return model.run(tokens, keep_only_edges(model, edges, other)).logits;
  };
  REQUIRE_CLOSE(around.logits(), alone(kept), 1e-12);
  REQUIRE(around.logits(kept).equal(around.logits()));
  const Layer last{1};
  for (const auto receiver : {c.first_query(Layer{0}), c.mlp_in(Layer{0}), c.first_key(last), c.first_value(last) + 1,
                              c.mlp_in(last), c.logits()}) {
    auto edges = kept.clone();
    edges[0][receiver].logical_not_();
    CAPTURE(receiver);
    REQUIRE_CLOSE(around.logits(edges), alone(edges), 1e-12);
    REQUIRE_FALSE(difference(around.logits(edges), around.logits(), 1e-9).close);
  }
  REQUIRE_CLOSE(around.logits(c.edge_mask()), model.run(tokens).logits, 1e-12);
}

TEST_CASE("an edge that no receiver can have changes nothing, and another shape is refused") {
  const auto model = random_model::make<Gpt2>(5);
  const auto tokens = random_model::Source{7}.tokens(2, 5, 23);
  const auto c = Components::of(model);
  const EdgesAround around{model, tokens, c.edge_mask(), sender_writes(model, tokens)};
  auto more = c.edge_mask();
  more[c.mlp(Layer{1})][c.first_query(Layer{0})].fill_(true);  // a later layer's writes
  REQUIRE(around.logits(more).equal(around.logits()));
  REQUIRE_THROWS_AS(around.logits(more.narrow(0, 0, 2)), ShapeError);
}
