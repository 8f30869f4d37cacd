#include "circuit/evaluate/graph_run.hpp"

#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/attribution_graph.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

template <class A>
struct Setting {
  HookedTransformer<A> model = random_model::make<A>(11);
  DictionarySet dictionaries{};
  at::Tensor tokens = random_model::Source{13}.tokens(1, 4, 23);
  std::vector<Node> all{};  ///< every node that is there on the prompt

  Setting() : Setting{MlpSite::normalized} {}
  /// first  where the first layer's dictionary reads
  explicit Setting(MlpSite first) {
    const auto both = random_model::dictionaries(model.config(), 12);
    for (std::int32_t p = 0; p < 4; ++p) all.push_back(Node::embedding(Position{p}));
    const auto cache = model.run(tokens, record_modules()).cache;
    for (std::int32_t l = 0; l < 2; ++l) {
      dictionaries.set_mlp(Layer{l}, SparseDictionary<>{*both.mlp(Layer{l})}, l == 0 ? first : MlpSite::normalized);
      const auto acts = dictionaries.encode_mlp(Layer{l}, input_of(dictionaries, cache, Module::mlp, Layer{l}));
      for (std::int32_t p = 0; p < 4; ++p) {
        all.push_back(Node::mlp_error(Layer{l}, Position{p}));
        for (std::int32_t f = 0; f < 20; ++f) {
          if (acts[0][p][f].template item<double>() > 0)
            all.push_back(Node::mlp_feature(Layer{l}, Position{p}, Feature{f}));
        }
      }
    }
  }
};

std::vector<ReadEdge> every_edge(std::span<const Node> nodes) {
  std::vector<ReadEdge> edges;
  for (const auto& up : nodes) {
    edges.push_back({up, Node::metric(), EdgeType::metric});
    for (const auto& down : nodes) {
      const bool earlier = up.kind == NodeKind::embedding || up.layer < down.layer;
      if (is_feature(down.kind) && earlier && up.position <= down.position) edges.push_back({up, down, EdgeType::mlp});
    }
  }
  return edges;
}

/// The nodes kept and all else zero, by interventions that know nothing of edges.
template <class A>
auto by_nodes(const Setting<A>& s, std::span<const Node> nodes) {
  KeptNodes kept;
  std::vector<Position> dark{Position{0}, Position{1}, Position{2}, Position{3}};
  for (const auto& n : nodes) {
    if (is_feature(n.kind)) kept.features.push_back({{Module::mlp, n.layer, n.feature}, n.position});
    if (is_error(n.kind)) kept.errors.push_back({Module::mlp, n.layer, n.position});
    if (n.kind == NodeKind::embedding) std::erase(dark, n.position);
  }
  const auto clean = s.model.run(s.tokens, record_modules()).cache;
  const auto held = s.model.run(s.tokens, record_norms()).cache;
  const auto patterns = s.model.run(s.tokens, record<hook::attn::pattern>()).cache;
  const auto zero = [&](const at::Tensor& x, Layer) {
    auto out = x.clone();
    for (const auto p : dark) out.select(1, p.value).zero_();
    return out;
  };
  return s.model.run(
      s.tokens, edit<hook::embed, hook::pos_embed>(zero), freeze_at<hook::attn::pattern>(patterns), freeze_norms(held),
      keep_circuit(
          s.dictionaries, kept, clean,
          {.features = Outside::zero, .errors = Outside::zero, .kept_errors = error_terms(s.dictionaries, clean)}),
      record<hook::ln2::normalized>());
}

}  // namespace

TEMPLATE_TEST_CASE("dictionaries of hook_resid_mid and hook_mlp_out read what edges bring there", "", Gpt2, Gemma2) {
  for (const auto site : {MlpSite::resid_mid, MlpSite::mlp_out}) {
    const Setting<TestType> s{site};
    const GraphRun run{s.model, s.dictionaries, s.tokens};
    const auto logits = [&](std::span<const Node> nodes) {
      return run.run(every_edge(nodes)).logits.at(Node::metric());
    };
    REQUIRE_CLOSE(logits(s.all).unsqueeze(0), s.model.uncapped_logits(s.tokens), 1e-9);
    std::vector<Node> some;
    for (std::size_t i = 0; i < s.all.size(); i += 2) some.push_back(s.all[i]);
    const auto cap = s.model.config().logit_soft_cap;
    REQUIRE_CLOSE(soft_cap(logits(some), cap).unsqueeze(0), by_nodes(s, some).logits, 1e-9);
  }
}

TEMPLATE_TEST_CASE("all edges between all nodes give the prompt's own activations and logits", "", Gpt2, Llama, Gemma2,
                   GptNeox) {
  const Setting<TestType> s;
  const auto found = GraphRun{s.model, s.dictionaries, s.tokens}.run(every_edge(s.all));
  const auto whole = s.model.run(s.tokens, record<hook::ln2::normalized>());
  const auto cap = s.model.config().logit_soft_cap;
  REQUIRE_CLOSE(soft_cap(found.logits.at(Node::metric()), cap), whole.logits[0], 1e-9);
  CHECK(found.activations.size() > 20);
  for (const auto& [node, activation] : found.activations) {
    const auto acts =
        s.dictionaries.encode_mlp(node.layer, whole.cache.template get<hook::ln2::normalized>(node.layer));
    CHECK(activation == Approx(acts[0][node.position.value][node.feature.value].template item<double>()).margin(1e-9));
  }
}

TEMPLATE_TEST_CASE("all edges among some nodes are those nodes kept and all else zero", "", Gpt2, Llama, GptNeox) {
  const Setting<TestType> s;
  std::vector<Node> some;
  for (std::size_t i = 0; i < s.all.size(); ++i) {
    if (i % 3 != 1) some.push_back(s.all[i]);
  }
  const auto found = GraphRun{s.model, s.dictionaries, s.tokens}.run(every_edge(some));
  const auto expected = by_nodes(s, some);
  REQUIRE_CLOSE(found.logits.at(Node::metric()), expected.logits[0], 1e-9);
  for (const auto& [node, activation] : found.activations) {
    const auto acts =
        s.dictionaries.encode_mlp(node.layer, expected.cache.template get<hook::ln2::normalized>(node.layer));
    CHECK(activation == Approx(acts[0][node.position.value][node.feature.value].template item<double>()).margin(1e-9));
  }
  CHECK_FALSE(difference(expected.logits, s.model.run(s.tokens).logits, 1e-2).close);
}

TEST_CASE("an edge left out takes its source from its target alone") {
  const Setting<Llama> s;
  const GraphRun run{s.model, s.dictionaries, s.tokens};
  auto edges = every_edge(s.all);
  const auto whole = run.run(edges);
  // The edge from an embedding to one feature of layer 1: others, and layer 0, keep theirs.
  const auto cut = std::find_if(edges.begin(), edges.end(), [&](const ReadEdge& e) {
    return e.up == Node::embedding(Position{1}) && e.down.layer == Layer{1} && e.down.position == Position{3};
  });
  REQUIRE(cut != edges.end());
  const auto target = cut->down;
  edges.erase(cut);
  const auto found = run.run(edges);
  for (const auto& [node, activation] : found.activations) {
    const auto before = whole.activations.at(node);
    if (node == target) {
      CHECK(std::abs(activation - before) > 1e-4);
    } else {
      CHECK(activation == before);
    }
  }
}

TEST_CASE("an attribution graph of every edge gives the prompt's own logits") {
  const Setting<Gpt2> s;
  const auto graph =
      AttributionGraph<keep::Above>{.keep = {.threshold = 0.0}, .budget = 0}(s.model, s.dictionaries, s.tokens);
  const auto found = GraphRun{s.model, s.dictionaries, s.tokens}.run(read_edges(graph));
  REQUIRE_FALSE(found.logits.empty());
  const auto whole = s.model.run(s.tokens).logits[0][3];
  for (const auto& [output, logits] : found.logits) {
    REQUIRE(output.kind == NodeKind::logit);
    const auto token = output.feature.value;
    const auto centred = [&](const at::Tensor& x) { return x[token].item<double>() - x.mean().item<double>(); };
    CHECK(centred(logits[3]) == Approx(centred(whole)).margin(1e-9));
  }
}

TEST_CASE("nodes that have no part in a graph run, and more than one prompt, are refused") {
  const Setting<Gpt2> s;
  const GraphRun run{s.model, s.dictionaries, s.tokens};
  const auto one = [&](const ReadEdge& edge) { return run.run(std::span{&edge, 1}); };
  const Node feature = Node::mlp_feature(Layer{1}, Position{2}, Feature{1});
  const Node source = Node::embedding(Position{2});
  CHECK_THROWS_AS(one({Node::attn_feature(Layer{0}, Position{2}, Feature{1}), feature, EdgeType::mlp}), NameError);
  CHECK_THROWS_AS(one({source, Node::attn_feature(Layer{0}, Position{2}, Feature{1}), EdgeType::ov}), NameError);
  CHECK_THROWS_AS(one({source, feature, EdgeType::metric}), NameError);
  CHECK_THROWS_AS(one({Node::embedding(Position{4}), feature, EdgeType::mlp}), IndexError);
  CHECK_THROWS_AS(one({source, Node::mlp_feature(Layer{1}, Position{2}, Feature{20}), EdgeType::mlp}), IndexError);
  CHECK_THROWS_AS(one({source, Node::mlp_feature(Layer{2}, Position{2}, Feature{1}), EdgeType::mlp}), IndexError);
  CHECK_THROWS_AS((GraphRun{s.model, s.dictionaries, s.tokens.repeat({2, 1})}), ShapeError);
  const auto skips = random_model::mixed_dictionaries(s.model.config(), 12);
  CHECK_THROWS_AS((GraphRun{s.model, skips, s.tokens}), ConfigError);
  const auto across = random_model::cross_layer_dictionaries(s.model.config(), 12);
  CHECK_THROWS_WITH((GraphRun{s.model, across, s.tokens}), circuit_test::ContainsSubstring("cross-layer"));
}
