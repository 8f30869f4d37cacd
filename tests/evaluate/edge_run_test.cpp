#include "circuit/evaluate/edge_run.hpp"

#include "circuit/evaluate/node_faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

template <class A>
struct EdgeSetting {
  HookedTransformer<A> model = random_model::make<A>(11);
  DictionarySet dictionaries = random_model::dictionaries(model.config(), 12);
  PromptPair prompts{random_model::Source{13}.tokens(2, 4, 23), random_model::Source{14}.tokens(2, 4, 23)};
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}}, {{4}, {1}}};
  std::vector<Node> all{};

  EdgeSetting() { find_nodes(); }
  void find_nodes() { all = ranked_by_change(NodeEvaluation{model, dictionaries, prompts, metric}.changes()); }
};

/// Whether a target of this kind can see a node: earlier in the model, and not at a later position.
template <class A>
bool sees(const Node& up, const Node& down, const std::vector<Layer>& streams) {
  const auto depth = [](const Node& n) {
    if (n.kind == NodeKind::embedding) return -1;
    if (is_stream(n.kind)) return 3 * n.layer.value;
    if (n.kind == NodeKind::metric) return 1000;
    return 3 * n.layer.value + (is_attention(n.kind) || A::Wiring::parallel ? 1 : 2);
  };
  for (const auto layer : streams) {  // no edge goes around a dictionary of the stream
    if (depth(up) < 3 * layer.value && 3 * layer.value < depth(down)) return false;
  }
  return depth(up) < depth(down) && (down.kind == NodeKind::metric || up.position <= down.position);
}

/// Every edge among some nodes and into the metric.
template <class A>
std::vector<ReadEdge> every_read_edge(std::span<const Node> nodes, const std::vector<Layer>& streams = {}) {
  std::vector<ReadEdge> edges;
  for (const auto& up : nodes) {
    if (sees<A>(up, Node::metric(), streams)) edges.push_back({up, Node::metric(), EdgeType::metric});
    for (const auto& down : nodes) {
      if (!is_feature(down.kind) || !sees<A>(up, down, streams)) continue;
      if (down.kind == NodeKind::resid_feature) {
        if (up.position == down.position) edges.push_back({up, down, EdgeType::resid});
        continue;
      }
      if (down.kind == NodeKind::mlp_feature) {
        if (up.position == down.position) edges.push_back({up, down, EdgeType::mlp});
        continue;
      }
      edges.push_back({up, down, EdgeType::ov});
      edges.push_back({up, down, EdgeType::k});
      if (up.position == down.position) edges.push_back({up, down, EdgeType::q});
    }
  }
  return edges;
}

/// The same nodes kept by `keep_circuit`, which knows nothing of edges.
template <class A, class... Attached>
at::Tensor run_by_nodes(const EdgeSetting<A>& s, std::span<const Node> nodes, Attached... attached) {
  KeptNodes kept;
  auto tokens = s.prompts.corrupt.clone();
  for (const auto& node : nodes) {
    const auto module = detail::module_of(node);
    if (is_feature(node.kind)) kept.features.push_back({{module, node.layer, node.feature}, node.position});
    if (is_error(node.kind)) kept.errors.push_back({module, node.layer, node.position});
    if (node.kind == NodeKind::embedding) {
      tokens.select(1, node.position.value).copy_(s.prompts.clean.select(1, node.position.value));
    }
  }
  const auto errors = error_terms(s.dictionaries, s.model.run(s.prompts.clean, record_modules()).cache);
  const auto corrupt = s.model.run(s.prompts.corrupt, record_modules()).cache;
  const KeepCircuitOptions options{.features = Outside::reference, .errors = Outside::reference, .kept_errors = errors};
  return s.model.run(tokens, attached..., keep_circuit(s.dictionaries, kept, corrupt, options)).logits;
}

}  // namespace

TEMPLATE_TEST_CASE("no edge is the corrupt run, all edges between all nodes the clean one", "", Gpt2, GptNeox) {
  const EdgeSetting<TestType> s;
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  REQUIRE_CLOSE(run.logits({}), s.model.run(s.prompts.corrupt).logits, 1e-10);
  REQUIRE_CLOSE(run.logits(every_read_edge<TestType>(s.all)), s.model.run(s.prompts.clean).logits, 1e-9);
}

TEST_CASE("dictionaries of streams and of MLP outputs read what an edge brings there") {
  EdgeSetting<Gpt2> s;
  const auto places = GENERATE(0, 1);
  const std::vector<Layer> streams = places == 0 ? std::vector{Layer{1}} : std::vector{Layer{1}, Layer{2}};
  s.dictionaries = places == 0 ? random_model::other_sites(s.model.config(), 12)
                               : random_model::residual_dictionaries(s.model.config(), 12);
  s.find_nodes();
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  REQUIRE_CLOSE(run.logits({}), s.model.run(s.prompts.corrupt).logits, 1e-10);
  REQUIRE_CLOSE(run.logits(every_read_edge<Gpt2>(s.all, streams)), s.model.run(s.prompts.clean).logits, 1e-9);
  std::vector<Node> some;
  for (std::size_t i = 0; i < s.all.size(); i += 3) some.push_back(s.all[i]);
  const auto edges = every_read_edge<Gpt2>(some, streams);
  REQUIRE_CLOSE(run.logits(edges), run_by_nodes(s, some), 1e-9);
  const auto norms = freeze_norms(s.model.run(s.prompts.clean, record_norms()).cache);
  REQUIRE_CLOSE(EdgeRun(s.model, s.dictionaries, s.prompts, {.norms = Paths::clean}).logits(edges),
                run_by_nodes(s, some, norms), 1e-9);
}

TEST_CASE("transcoders that normalise what they read do so on the stream that reaches them") {
  EdgeSetting<Gpt2> s;
  for (const auto& [layer, kind] :
       {std::pair{Layer{0}, InputNorm::Kind::layer_norm}, std::pair{Layer{1}, InputNorm::Kind::constant_norm}}) {
    s.dictionaries.set_mlp(layer, random_model::normalizing(*s.dictionaries.mlp(layer), {kind, false}));
  }
  s.find_nodes();
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  REQUIRE_CLOSE(run.logits({}), s.model.run(s.prompts.corrupt).logits, 1e-10);
  REQUIRE_CLOSE(run.logits(every_read_edge<Gpt2>(s.all)), s.model.run(s.prompts.clean).logits, 1e-9);
  std::vector<Node> some;
  for (std::size_t i = 0; i < s.all.size(); i += 3) some.push_back(s.all[i]);
  REQUIRE_CLOSE(run.logits(every_read_edge<Gpt2>(some)), run_by_nodes(s, some), 1e-9);
  CHECK_THROWS_WITH((EdgeRun{s.model, s.dictionaries, s.prompts, {.norms = Paths::clean}}),
                    circuit_test::ContainsSubstring("normalise"));
  const auto undone = random_model::normalizing_dictionaries(s.model.config(), 12);
  CHECK_THROWS_AS((EdgeRun{s.model, undone, s.prompts}), ConfigError);
}

TEMPLATE_TEST_CASE("all edges among some nodes are those nodes kept, through live or held patterns and norms", "", Gpt2,
                   Llama, GptNeox, Gemma2) {
  EdgeSetting<TestType> s;
  if constexpr (TestType::Wiring::post_norms) {  // what z's features write passes a norm, so they are of the output
    DictionarySet of_outputs;
    for (std::int32_t l = 0; l < s.model.config().n_layers; ++l) {
      const SparseDictionary<> both{*s.dictionaries.mlp(Layer{l})};
      of_outputs.set_attn(Layer{l}, both, AttentionSite::attn_out);
      of_outputs.set_mlp(Layer{l}, both);
    }
    s.dictionaries = of_outputs;
    s.find_nodes();
  }
  std::vector<Node> some;
  for (std::size_t i = 0; i < s.all.size(); i += 3) some.push_back(s.all[i]);
  const auto edges = every_read_edge<TestType>(some);
  const auto live = run_by_nodes(s, some);
  REQUIRE_CLOSE(EdgeRun(s.model, s.dictionaries, s.prompts).logits(edges), live, 1e-9);

  const auto patterns =
      freeze_at<hook::attn::pattern>(s.model.run(s.prompts.clean, record<hook::attn::pattern>()).cache);
  const auto norms = freeze_norms(s.model.run(s.prompts.clean, record_norms()).cache);
  const auto with = [&](EdgeRunOptions options) {
    return EdgeRun(s.model, s.dictionaries, s.prompts, options).logits(edges);
  };
  REQUIRE_CLOSE(with({.patterns = Paths::clean}), run_by_nodes(s, some, patterns), 1e-9);
  REQUIRE_CLOSE(with({.norms = Paths::clean}), run_by_nodes(s, some, norms), 1e-9);
  REQUIRE_CLOSE(with({.patterns = Paths::clean, .norms = Paths::clean}), run_by_nodes(s, some, patterns, norms), 1e-9);
  CHECK_FALSE(difference(live, run_by_nodes(s, some, patterns), 1e-4).close);
  CHECK_FALSE(difference(live, run_by_nodes(s, some, norms), 1e-4).close);
}

TEST_CASE("an edge brings its target the change of its source, and nobody else") {
  const EdgeSetting<Gpt2> s;
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  const auto place = Position{2};
  // The feature that reads the embedding most.
  const auto run_of = [&](const at::Tensor& tokens) {
    return s.model.run(tokens, record<hook::embed, hook::resid_mid, hook::resid_post>()).cache;
  };
  const auto clean = run_of(s.prompts.clean);
  const auto corrupt = run_of(s.prompts.corrupt);
  const auto embedding = clean.get<hook::embed>().sub(corrupt.get<hook::embed>()).select(1, 2);
  const auto& w = s.model.weights().blocks[0];
  const auto acts = [&](const at::Tensor& x) {
    const auto normed = norm::LayerNorm::normalized(x, norm::LayerNorm::scale(x, 1e-5), w.ln2);
    return s.dictionaries.encode_mlp(Layer{0}, normed);
  };
  const auto mid = corrupt.get<hook::resid_mid>(Layer{0}).select(1, 2);
  const auto change = acts(mid.add(embedding)).sub(acts(mid));
  const auto f = change.abs().amax(0).argmax().item<std::int64_t>();
  const Node feature = Node::mlp_feature(Layer{0}, place, Feature{static_cast<std::int32_t>(f)});
  auto last = corrupt.get<hook::resid_post>(Layer{1}).clone();
  last.select(1, 2).add_(change.select(1, f).unsqueeze(1).mul(s.dictionaries.mlp(Layer{0})->W_dec[f]));
  const std::vector<ReadEdge> chain{{Node::embedding(place), feature, EdgeType::mlp},
                                    {feature, Node::metric(), EdgeType::metric}};
  REQUIRE_CLOSE(run.logits(chain), s.model.unembed(last), 1e-11);
  const std::vector<ReadEdge> cut{chain[1]};  // nothing reaches the feature
  REQUIRE_CLOSE(run.logits(cut), s.model.run(s.prompts.corrupt).logits, 1e-11);
  CHECK_FALSE(difference(run.logits(chain), run.logits(cut), 1e-4).close);
}

TEST_CASE("edges of nodes that have no part in it, and skip paths, are refused") {
  const EdgeSetting<Gpt2> s;
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  const auto logits = [&](const ReadEdge& edge) { return run.logits(std::span{&edge, 1}); };
  const Node feature = Node::mlp_feature(Layer{0}, Position{2}, Feature{1});
  CHECK_THROWS_AS(logits({Node::head(Layer{0}, Head{1}), feature, EdgeType::mlp}), NameError);
  CHECK_THROWS_AS(logits({Node::embedding(Position{2}), feature, EdgeType::ov}), NameError);
  CHECK_THROWS_AS(logits({feature, Node::mlp_error(Layer{1}, Position{2}), EdgeType::mlp}), NameError);
  CHECK_THROWS_AS(logits({Node::embedding(Position{4}), feature, EdgeType::mlp}), IndexError);
  CHECK_THROWS_AS(
      logits({Node::embedding(Position{2}), Node::mlp_feature(Layer{0}, Position{2}, Feature{20}), EdgeType::mlp}),
      IndexError);
  CHECK_THROWS_AS(
      logits({Node::embedding(Position{2}), Node::mlp_feature(Layer{2}, Position{2}, Feature{1}), EdgeType::mlp}),
      IndexError);
  const auto skips = random_model::mixed_dictionaries(s.model.config(), 12);
  CHECK_THROWS_AS((EdgeRun{s.model, skips, s.prompts}), ConfigError);
  const auto across = random_model::cross_layer_dictionaries(s.model.config(), 8);
  CHECK_THROWS_WITH((EdgeRun{s.model, across, s.prompts}), circuit_test::ContainsSubstring("cross-layer"));
}

TEST_CASE("edges into several logits bring a node's change to the last stream once") {
  const EdgeSetting<Gpt2> s;
  const EdgeRun run{s.model, s.dictionaries, s.prompts};
  const auto up = Node::embedding(Position{2});
  const auto logit = [](std::int32_t token) {
    return Node{.kind = NodeKind::logit, .position = Position{3}, .feature = Feature{token}};
  };
  const ReadEdge to_metric{up, Node::metric(), EdgeType::metric};
  const ReadEdge to_one{up, logit(5), EdgeType::metric};
  const ReadEdge to_other{up, logit(6), EdgeType::metric};
  const auto expected = run.logits(std::vector{to_metric});
  REQUIRE_FALSE(expected.allclose(run.logits({}), 1e-3, 1e-3));
  REQUIRE(run.logits(std::vector{to_one}).equal(expected));
  REQUIRE(run.logits(std::vector{to_one, to_other}).equal(expected));
  REQUIRE(run.logits(std::vector{to_metric, to_metric}).equal(expected));
}

TEST_CASE("a module without a dictionary is a node whose whole output changes") {
  const EdgeSetting<Gpt2> s;
  DictionarySet some;  // layer 0's MLP and layer 1's attention have none
  some.set_attn(Layer{0}, SparseDictionary<>{*s.dictionaries.attn(Layer{0})}, s.dictionaries.attn_site(Layer{0}));
  some.set_mlp(Layer{1}, SparseDictionary<>{*s.dictionaries.mlp(Layer{1})});
  auto nodes = ranked_by_change(NodeEvaluation{s.model, some, s.prompts, s.metric}.changes());
  for (std::int32_t p = 0; p < 4; ++p) {
    nodes.push_back(Node::mlp_output(Layer{0}, Position{p}));
    nodes.push_back(Node::attn_output(Layer{1}, Position{p}));
  }
  const EdgeRun run{s.model, some, s.prompts};
  REQUIRE_CLOSE(run.logits(every_read_edge<Gpt2>(nodes)), s.model.run(s.prompts.clean).logits, 1e-9);
  const ReadEdge same{Node::position_embedding(Position{1}), Node::metric(), EdgeType::metric};
  REQUIRE_CLOSE(run.logits(std::vector{same}), s.model.run(s.prompts.corrupt).logits, 1e-12);
}
