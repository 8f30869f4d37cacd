#include "circuit/evaluate/direct_logit_attribution.hpp"

#include <ATen/ops/zeros_like.h>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

template <class A>
struct Setup {
  HookedTransformer<A> model = random_model::make<A>(21);
  DictionarySet set = random_model::dictionaries(model.config(), 22);
  at::Tensor tokens = random_model::Source{23}.tokens(3, 6, model.config().d_vocab);
  LogitDifference metric{std::vector<std::int64_t>{3, 5, 7}, std::vector<std::int64_t>{4, 1, 2}};
  Linearization lin = linearize<final_norm::Frozen>(model, set, tokens, {}, metric);
  DirectLogitAttribution direct = direct_logit_attribution(model, set, lin);

  /// Of the logits before any soft cap, as a linearization reads them.
  template <class... Attached>
  double value(Attached... attached) const {
    const c10::AutoGradMode no_gradient{false};
    return mean(metric, model.uncapped_logits(tokens, attached...)).template item<double>();
  }
};

double of(const DirectLogitAttribution& direct, const Component& part) {
  for (const auto& d : direct.components) {
    if (d.part == part) return d.value;
  }
  FAIL("no such component");
  return 0;
}

/// The metric when one head writes nothing and all else stays as it was, the final scale too.
template <class A>
double without_head(const Setup<A>& s, Layer layer, Head head) {
  const auto clean = s.model.run(s.tokens, record<hook::ln1_post::scale, hook::attn_out, hook::mlp_out,
                                                  hook::ln_final::scale>()).cache;
  const auto silence = edit<hook::attn::z>([](const at::Tensor& z, Layer) { return at::zeros_like(z); },
                                           {.layers = {layer}, .heads = {head}});
  const auto later = edit<hook::attn_out>(
      [&](const at::Tensor& out, Layer l) { return l > layer ? clean.template get<hook::attn_out>(l) : out; });
  const auto mlps = edit<hook::mlp_out>(
      [&](const at::Tensor& out, Layer l) { return l >= layer ? clean.template get<hook::mlp_out>(l) : out; });
  const auto scale = edit<hook::ln_final::scale>(
      [&](const at::Tensor&, Layer) { return clean.template get<hook::ln_final::scale>(); });
  const auto post_scale = edit<hook::ln1_post::scale>(
      [&](const at::Tensor&, Layer l) { return clean.template get<hook::ln1_post::scale>(l); });
  return s.value(silence, post_scale, later, mlps, scale);
}

}  // namespace

TEMPLATE_TEST_CASE("heads, MLPs, embeddings and biases sum to the metric", "", Gpt2, Llama, Gemma2,
                   random_model::MixedParts, AttentionOnly) {
  const Setup<TestType> s;
  REQUIRE(s.direct.metric == Approx(s.value()).epsilon(1e-12));
  REQUIRE(s.direct.component_sum() == Approx(s.value()).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("features, errors, embeddings and constants sum to the metric", "", Gpt2, Llama, Gemma2,
                   random_model::MixedParts, AttentionOnly) {
  const Setup<TestType> s;
  REQUIRE(s.direct.node_sum() == Approx(s.value()).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("so they do where dictionaries scale what they write to what they read", "", Gpt2, Gemma2) {
  const Setup<TestType> s;
  const auto set = random_model::normalizing_dictionaries(s.model.config(), 22, /*skips=*/false);
  const auto lin = linearize<final_norm::Frozen>(s.model, set, s.tokens, {}, s.metric);
  REQUIRE(direct_logit_attribution(s.model, set, lin).node_sum() == Approx(s.value()).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("a head's attribution is what the metric loses when that head alone writes nothing", "", Gpt2,
                   Llama, Gemma2, random_model::MixedParts, AttentionOnly) {
  const Setup<TestType> s;
  for (const auto layer : {Layer{0}, Layer{1}}) {
    for (std::int32_t h = 0; h < s.model.config().n_heads; ++h) {
      const auto lost = s.value() - without_head(s, layer, Head{h});
      INFO(layer << ' ' << Head{h});
      REQUIRE(of(s.direct, {ComponentKind::head, layer, Head{h}}) == Approx(lost).epsilon(1e-9).margin(1e-11));
    }
  }
}

TEST_CASE("the nodes are the search's metric edges over everything") {
  const Setup<Gpt2> s;
  const Leap search{.keep = keep::All{}, .contrast = contrast::None{}, .sources = {.split_embedding = true}};
  const auto found = search(s.model, s.set, {s.tokens, {}}, s.metric);
  std::map<Node, double> edges;
  for (const auto& e : found.incoming(Node::metric())) edges[e.up] = e.edge.em_attrib;
  std::size_t compared = 0;
  for (const auto& [node, value] : s.direct.nodes) {
    INFO(node);
    REQUIRE(edges.contains(node));
    REQUIRE(edges.at(node) == Approx(value).epsilon(1e-9).margin(1e-12));
    ++compared;
  }
  REQUIRE(compared > 20);
  for (const auto& [node, value] : s.direct.nodes) edges.erase(node);
  for (const auto& [node, value] : edges)
    REQUIRE(value == Approx(0.0).margin(1e-12));  // positions the metric does not read
}
