// The identities on SAEs of the residual stream, which stand for all that lies before them.
#include "random_model.hpp"

namespace {
using ResidualSequential = circuit::Llama;
using ResidualParallel = circuit::GptNeox;
}  // namespace

#define CIRCUIT_IDENTITIES_OF ResidualSequential, ResidualParallel
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::residual_dictionaries

#include "search/identities.hpp"

TEST_CASE("no edge goes past a dictionary of the residual stream") {
  const Setup<Llama> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  std::map<NodeKind, int> into_stream;
  for (const auto& e : found.edges()) {
    INFO(e.up << " -> " << e.down);
    if (e.down == Node::metric()) REQUIRE((is_stream(e.up.kind) && e.up.layer == Layer{2}));
    for (const Layer at : {Layer{1}, Layer{2}}) {
      const auto stream = depth(Node::resid_error(at, Position{0}));
      if (depth(e.down) > stream) REQUIRE(depth(e.up) >= stream);
    }
    if (e.down.kind == NodeKind::resid_feature) {
      REQUIRE(e.edge.type == EdgeType::resid);
      ++into_stream[e.up.kind];
    }
  }
  for (const auto kind : {NodeKind::embedding, NodeKind::attn_feature, NodeKind::attn_error, NodeKind::mlp_feature,
                          NodeKind::mlp_error, NodeKind::resid_feature, NodeKind::resid_error}) {
    REQUIRE(into_stream[kind] > 0);
  }
}
