#include "circuit/evaluate/direct_logit_attribution.hpp"

#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

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

  /// The same with other dictionaries.
  DirectLogitAttribution with(const DictionarySet& other) const {
    return direct_logit_attribution(model, other, linearize<final_norm::Frozen>(model, other, tokens, {}, metric));
  }
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
  const auto clean =
      s.model.run(s.tokens, record<hook::ln1_post::scale, hook::attn_out, hook::mlp_out, hook::ln_final::scale>())
          .cache;
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
  REQUIRE(s.with(set).node_sum() == Approx(s.value()).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("what passes skip paths is a share of its own, beside the nodes", "", Gpt2, Llama, Gemma2, GptNeox) {
  const Setup<TestType> s;
  const auto& config = s.model.config();
  REQUIRE(s.direct.skip_paths.empty());
  const auto check = [&](const DictionarySet& set, std::size_t skips) {
    const auto direct = s.with(set);
    REQUIRE(direct.node_sum() == Approx(s.value()).epsilon(1e-10));
    REQUIRE(direct.component_sum() == Approx(s.value()).epsilon(1e-10));
    REQUIRE(direct.skip_paths.size() == skips);
    for (const auto& [layer, value] : direct.skip_paths) {
      REQUIRE(set.mlp(layer)->has_skip());
      REQUIRE(std::abs(value) > 1e-3);
    }
  };
  check(random_model::normalizing_dictionaries(config, 22, /*skips=*/true),
        static_cast<std::size_t>((config.n_layers + 1) / 2));
  auto set = random_model::dictionaries(config, 22);
  SparseDictionary<> transcoder{*set.mlp(Layer{1}), {}};
  transcoder.W_skip = random_model::Source{24}({config.d_model, config.d_model}, 0.4);
  set.set_mlp(Layer{1}, transcoder);
  check(set, 1);
  if constexpr (!TestType::Wiring::parallel) {
    set.set_mlp(Layer{1}, transcoder, MlpSite::resid_mid);
    check(set, 1);
  }
  // By hand, at the position that the metric reads: the last.
  const auto run = record_frozen_run(s.model, s.tokens);
  const auto direct = s.with(set);
  const auto site = set.mlp_site(Layer{1});
  const auto x = mlp_input<TestType>(run, site, Layer{1});
  const auto& bias = s.model.weights().blocks[1].ln2.bias;
  const auto read = site == MlpSite::normalized && bias.defined() ? x.sub(bias) : x;
  const auto grad = s.lin.gradients.last;
  REQUIRE(direct.skip_paths[0].value ==
          Approx(grad.mul(read.matmul(transcoder.W_skip)).sum().template item<double>() / 3).epsilon(1e-10));
}

TEST_CASE("attention that a search passes through counts as a whole") {
  const Setup<Gpt2> s;
  const modules::TransparentAttention rule;
  const DictionariesByRole set{s.set, rule};
  const auto direct =
      direct_logit_attribution(s.model, set, linearize<final_norm::Frozen>(s.model, set, s.tokens, {}, s.metric));
  REQUIRE(direct.node_sum() == Approx(s.value()).epsilon(1e-10));
  REQUIRE(std::count_if(direct.nodes.begin(), direct.nodes.end(),
                        [](const auto& d) { return d.part.kind == NodeKind::attn_output; }) == 2);
}

TEMPLATE_TEST_CASE("features of cross-layer transcoders count for all that they write", "", Gpt2, Llama, GptNeox) {
  const Setup<TestType> s;
  const auto set = random_model::cross_layer_dictionaries(s.model.config(), 22);
  REQUIRE(s.with(set).node_sum() == Approx(s.value()).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("a head's attribution is what the metric loses when that head alone writes nothing", "", Gpt2, Llama,
                   Gemma2, random_model::MixedParts, AttentionOnly) {
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
  const auto& config = s.model.config();
  const auto last = static_cast<std::int32_t>(config.n_layers);
  const Leap search{.keep = keep::All{}, .contrast = contrast::None{}, .sources = {.split_embedding = true}};
  const auto check = [&](const DictionarySet& set) {
    const auto direct = s.with(set);
    REQUIRE(direct.node_sum() == Approx(s.value()).epsilon(1e-10));
    const auto found = search(s.model, set, {s.tokens, {}}, s.metric);
    std::map<Node, double> edges;
    for (const auto& e : found.incoming(Node::metric())) edges[e.up] = e.edge.em_attrib;
    std::size_t compared = 0;
    for (const auto& [node, value] : direct.nodes) {
      INFO(node);
      REQUIRE(edges.contains(node));
      REQUIRE(edges.at(node) == Approx(value).epsilon(1e-9).margin(1e-12));
      ++compared;
    }
    for (const auto& [node, value] : direct.nodes) edges.erase(node);
    for (const auto& [node, value] : edges)
      REQUIRE(value == Approx(0.0).margin(1e-12));  // positions the metric does not read
    return compared;
  };
  REQUIRE(check(s.set) > 20);
  auto across = random_model::cross_layer_dictionaries(config, 22);
  SparseDictionary<> first{*across.mlp(Layer{0}), {}};
  first.W_skip = at::Tensor{};  // through which a search's gradients pass
  across.set_mlp(Layer{0}, std::move(first));
  REQUIRE(check(across) > 20);
  // A dictionary of the stream stands for what lies before it.
  REQUIRE(check(random_model::with_stream(s.set, config, 22, {1})) > 10);
  REQUIRE(check(random_model::with_stream(s.set, config, 22, {1, last})) > 3);
  REQUIRE(check(random_model::crosscoder_dictionaries(config, 22)) > 3);
  const auto behind = s.with(random_model::with_stream(s.set, config, 22, {last}));
  for (const auto& [node, value] : behind.nodes) REQUIRE(is_stream(node.kind));
}
