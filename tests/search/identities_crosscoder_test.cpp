// The identities beside a crosscoder, whose features are sources at every layer that they write into.
#include "random_model.hpp"

namespace {
using CrosscodedSequential = circuit::Llama;
using CrosscodedParallel = circuit::GptNeox;
}  // namespace

#define CIRCUIT_IDENTITIES_OF CrosscodedSequential, CrosscodedParallel
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::crosscoder_dictionaries

#include "circuit/intervene/splice_crosscoder.hpp"
#include "search/identities.hpp"

TEST_CASE("a crosscoder's features are sources where they write, and targets if they read upstream of that") {
  const Setup<Llama> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  std::map<Layer, int> out, in;
  for (const auto& e : found.edges()) {
    INFO(e.up << " -> " << e.down);
    if (e.down.kind == NodeKind::resid_feature) {
      REQUIRE_FALSE(source_only(s.set, e.down));
      const auto part = Replacement<Llama>::part_of(*s.set.crosscoder(e.down.layer), e.down.feature.value).first;
      ++in[part->reads.back()];
      REQUIRE(depth(e.up) < depth(Node::resid_error(part->reads.back(), Position{0})));
      if (part->reads.size() == 1) continue;  // its feature of layer 2 reads the stream before layer 1
    }
    if (e.up.kind == NodeKind::resid_feature) ++out[e.up.layer];
    for (const Layer at : {Layer{1}, Layer{2}}) {
      if (is_stream(e.down.kind)) break;
      const auto stream = depth(Node::resid_error(at, Position{0}));
      if (depth(e.down) > stream) REQUIRE(depth(e.up) >= stream);
    }
  }
  REQUIRE(out[Layer{1}] > 20);
  REQUIRE(out[Layer{2}] > 10);
  REQUIRE(in[Layer{1}] > 10);  // of a part that reads it alone
  REQUIRE(in[Layer{2}] > 10);
}

TEST_CASE("metric edges of a crosscoder's features are the gradient through the model with it spliced in") {
  const Setup<Llama> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const auto& across = *s.set.crosscoder(Layer{1});
  const auto run = s.model.run(s.prompt(0), record<hook::resid_pre, hook::resid_post, hook::ln_final::scale>());
  const auto described = describe_run(across, run.cache);
  const auto freeze =
      edit<hook::ln_final::scale>([&](const at::Tensor&, Layer) { return run.cache.get<hook::ln_final::scale>(); });
  const c10::AutoGradMode with_gradient{true};
  const auto acts = described.activations.detach().requires_grad_(true);
  auto spliced = splice_crosscoder(across, acts, described.errors);
  const auto logits = s.model.uncapped_logits(s.prompt(0), spliced, freeze);
  const auto grads = gradient_of(s.metric(0).per_prompt(logits).sum(), {acts})[0];
  int compared = 0;
  for (const auto& e : found.incoming(Node::metric())) {
    if (e.up.kind != NodeKind::resid_feature) continue;
    INFO(e.up);
    REQUIRE(e.up.layer == Layer{2});  // whose stream stands for all before it
    REQUIRE(e.edge.nn_grad ==
            Approx(grads[0][e.up.position.value][e.up.feature.value].item<double>()).epsilon(1e-9).margin(1e-12));
    ++compared;
  }
  REQUIRE(compared > 10);
}
