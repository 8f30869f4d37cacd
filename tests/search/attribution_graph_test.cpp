#include "circuit/search/attribution_graph.hpp"

#include <ATen/ops/cat.h>

#include <map>

#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/llama.hpp"
#include "random_model.hpp"
#include "replacement.hpp"

using namespace circuit;

namespace {

/// What circuit-tracer found; see tests/data/attribution_graph/make.py.
at::Tensor graph_fact(const std::string& name) {
  static const auto file =
      open_safetensors(std::filesystem::path{CIRCUIT_TEST_DATA} / "attribution_graph/graph.safetensors");
  return to_tensor(file.get(name));
}

DictionarySet golden_set(const std::string& model, std::int32_t layers) {
  DictionarySet set;
  for (std::int32_t l = 0; l < layers; ++l) {
    const auto get = [&](const char* name) { return graph_fact(model + '/' + std::to_string(l) + '/' + name); };
    SparseDictionary<> d;
    d.W_enc = get("W_enc").t().contiguous();
    d.b_enc = get("b_enc");
    d.W_dec = get("W_dec");
    d.b_out = get("b_dec");
    d.W_skip = get("W_skip").t().contiguous();
    d.name = model;
    set.set_mlp(Layer{l}, d);
  }
  return set;
}

/// The nodes of a matrix of circuit-tracer's, by row.
std::vector<Node> rows_of(const std::string& run, std::int32_t layers, std::int32_t length) {
  std::vector<Node> nodes;
  const auto features = graph_fact(run + "/features").to(at::kInt);
  for (std::int64_t i = 0; i < features.size(0); ++i) {
    const auto part = [&](std::int64_t j) { return features[i][j].item<std::int32_t>(); };
    nodes.push_back(Node::mlp_feature(Layer{part(0)}, Position{part(1)}, Feature{part(2)}));
  }
  for (std::int32_t l = 0; l < layers; ++l) {
    for (std::int32_t p = 0; p < length; ++p) nodes.push_back(Node::mlp_error(Layer{l}, Position{p}));
  }
  for (std::int32_t p = 0; p < length; ++p) nodes.push_back(Node::embedding(Position{p}));
  const auto logits = graph_fact(run + "/logits").to(at::kInt);
  for (std::int64_t i = 0; i < logits.size(0); ++i) {
    nodes.push_back(Node::logit(Position{length - 1}, logits[i].item<std::int32_t>()));
  }
  return nodes;
}

template <class A>
struct Golden {
  std::string name;
  std::filesystem::path folder;
  HookedTransformer<A> model = load_model<A>(std::filesystem::path{CIRCUIT_TEST_DATA} / folder,
                                             {.processing = weights::unprocessed, .dtype = at::kDouble});
  std::int32_t layers = static_cast<std::int32_t>(model.config().n_layers);
  DictionarySet set = golden_set(name, layers);
  at::Tensor tokens = graph_fact(name + "/tokens").unsqueeze(0);

  /// tokens and positions as two nodes, since the tool knows only the tokens'
  [[nodiscard]] Circuit search(std::size_t budget) const {
    return AttributionGraph{.keep = keep::All{},
                            .logits = {.mass = 0.9, .most = 5},
                            .budget = budget,
                            .round = 8,
                            .sources = {.split_embedding = true}}(model, set, tokens);
  }
  [[nodiscard]] std::vector<Node> rows(const std::string& run) const {
    return rows_of(name + '/' + run, layers, static_cast<std::int32_t>(tokens.size(1)));
  }
};
const auto on_llama = [] { return Golden<Llama>{"llama", "architectures/smollm2"}; };

double weight(const Circuit& found, const Node& up, const Node& down) {
  if (!found.contains(up) || !found.contains(down)) return 0;
  const auto* edge = found.find_edge(up, down, is_output(down.kind) ? EdgeType::metric : EdgeType::mlp);
  return edge == nullptr ? 0 : edge->nn_attrib;
}

template <class A>
void require_adjacency(const Golden<A>& g, const Circuit& found, const std::string& run) {
  const auto nodes = g.rows(run);
  const auto theirs = graph_fact(g.name + '/' + run + "/adjacency");
  int edges = 0;
  for (std::size_t t = 0; t < nodes.size(); ++t) {
    if (!found.contains(nodes[t])) continue;  // nothing of it reaches the logits
    for (std::size_t s = 0; s < nodes.size(); ++s) {
      const auto expected = theirs[static_cast<std::int64_t>(t)][static_cast<std::int64_t>(s)].template item<double>();
      INFO(nodes[s] << " -> " << nodes[t]);
      REQUIRE(weight(found, nodes[s], nodes[t]) == Approx(expected).epsilon(1e-9).margin(1e-10));
      edges += expected != 0 ? 1 : 0;
    }
  }
  REQUIRE(edges > 200);
}

}  // namespace

TEST_CASE("every edge of the attribution graph equals circuit-tracer's") {
  const auto check = [](const auto& g) {
    const auto found = g.search(0);
    require_adjacency(g, found, "all");
    const auto logits = graph_fact(g.name + "/all/logits");
    for (std::int64_t i = 0; i < logits.size(0); ++i) {
      const auto& bundle =
          found.bundle(g.rows("all")[g.rows("all").size() - static_cast<std::size_t>(logits.size(0) - i)]);
      REQUIRE(bundle.nodegrad ==
              Approx(graph_fact(g.name + "/all/probabilities")[i].template item<double>()).epsilon(1e-9));
    }
  };
  check(Golden<Gpt2>{"gpt2", "golden/model"});
  check(on_llama());
}

TEST_CASE("influence, scores and cuts equal circuit-tracer's") {
  const auto g = on_llama();
  const auto found = g.search(0);
  const auto nodes = g.rows("all");
  const auto values = influence(found);
  const auto cumulative = cumulative_influence(found);
  const auto pruned = prune_by_influence(found);
  const auto of = [&](const NodeWeights& weights, const Node& node) {
    const auto at = weights.find(node);
    return at == weights.end() ? 0.0 : at->second;
  };
  std::size_t kept_edges = 0;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    INFO(nodes[i]);
    const auto row = static_cast<std::int64_t>(i);
    const auto theirs = graph_fact("llama/all/influence")[row].item<double>();
    REQUIRE(of(values, nodes[i]) == Approx(theirs).epsilon(1e-9).margin(1e-12));
    if (theirs > 0)
      REQUIRE(of(cumulative, nodes[i]) == Approx(graph_fact("llama/all/cumulative")[row].item<double>()).epsilon(1e-9));
    REQUIRE(pruned.contains(nodes[i]) == graph_fact("llama/all/kept_nodes")[row].item<bool>());
    for (std::size_t j = 0; j < nodes.size(); ++j) {
      const bool kept = graph_fact("llama/all/kept_edges")[row][static_cast<std::int64_t>(j)].item<bool>() &&
                        graph_fact("llama/all/adjacency")[row][static_cast<std::int64_t>(j)].item<double>() != 0;
      REQUIRE((weight(pruned, nodes[j], nodes[i]) != 0) == kept);
      kept_edges += kept ? 1 : 0;
    }
  }
  REQUIRE(kept_edges > 40);
  REQUIRE(pruned.edge_count() < found.edge_count());
  const auto scores = graph_scores(found);
  REQUIRE(scores.replacement == Approx(graph_fact("llama/all/scores")[0].item<double>()).epsilon(1e-9));
  REQUIRE(scores.completeness == Approx(graph_fact("llama/all/scores")[1].item<double>()).epsilon(1e-9));
}

TEST_CASE("within a budget the same features become targets as circuit-tracer's") {
  const auto g = on_llama();
  const auto found = g.search(20);
  require_adjacency(g, found, "budget");
  std::size_t features = 0;
  for (const auto& bundle : found.nodes()) features += is_feature(bundle.node.kind) ? 1U : 0U;
  REQUIRE(features == 20);
  REQUIRE(graph_scores(found).replacement == Approx(graph_fact("llama/budget/scores")[0].item<double>()).epsilon(1e-9));
}

TEST_CASE("circuit-tracer leaves out what the first position writes") {
  const auto g = on_llama();
  const auto whole = g.search(0);
  const auto found = with_nodes(whole, [](const NodeBundle& b) {
    return is_output(b.node.kind) || is_embedding(b.node.kind) || b.node.position != Position{0};
  });
  require_adjacency(g, found, "bos");
  REQUIRE(graph_scores(found).completeness == Approx(graph_fact("llama/bos/scores")[1].item<double>()).epsilon(1e-9));
  REQUIRE(graph_scores(found).completeness != Approx(graph_scores(whole).completeness).epsilon(1e-6));
}

namespace {

template <class A>
struct Random {
  HookedTransformer<A> model = random_model::make<A>(17);
  DictionarySet set = random_model::dictionaries(model.config(), 18);
  at::Tensor tokens = random_model::Source{19}.tokens(1, 6, model.config().d_vocab);
};

/// A logit less the mean of all, as the replacement model's leaves make it.
template <class A>
at::Tensor centred_logit(const Replacement<A>& r, std::int64_t token) {
  const c10::AutoGradMode with_gradient{true};
  const auto last = r.unembed(r.resid_final())[-1];
  return last[token].sub(last.mean());
}

double bias_of(const Circuit& found, const Node& target, EdgeType type) {
  for (const auto& row : found.biases()) {
    if (row.target == target && row.type == type) return row.nn_attrib;
  }
  FAIL("no bias row");
  return 0;
}

}  // namespace

TEMPLATE_TEST_CASE("edges into a logit sum to it, and equal autograd's", "", Gpt2, Llama) {
  const Random<TestType> s;
  const auto check = [&](const auto& modules, bool transparent) {
    const AttributionGraph search{
        .keep = keep::All{}, .modules = modules, .logits = {.mass = 0.99, .most = 4}, .budget = 0};
    const auto found = search(s.model, s.set, s.tokens);
    const Replacement<TestType> r{s.model, s.set, s.tokens, transparent};
    int logits = 0;
    for (const auto& bundle : found.nodes()) {
      const auto& node = bundle.node;
      if (node.kind != NodeKind::logit) continue;
      const auto value = centred_logit(r, node.feature.value);
      const auto grads = gradient_of(value, r.leaves());
      double sum = bias_of(found, node, EdgeType::metric);
      for (const auto& e : found.incoming(node)) {
        INFO(e.up << " -> " << node);
        sum += e.edge.nn_attrib;
        REQUIRE(e.edge.nn_grad == Approx(r.along(e.up, grads)).epsilon(1e-9).margin(1e-10));
        REQUIRE(e.edge.em_attrib == Approx(e.edge.nn_attrib * bundle.nodegrad));
      }
      REQUIRE(sum == Approx(value.template item<double>()).epsilon(1e-9));
      REQUIRE(bundle.activation == Approx(value.template item<double>()).epsilon(1e-9));
      ++logits;
    }
    REQUIRE(logits == 4);
  };
  check(modules::TransparentAttention{}, true);
  check(modules::ReadElseOpaque{}, false);
}

TEMPLATE_TEST_CASE("with attention features the graph has ov, q and k edges, each autograd's", "", Gpt2, Llama) {
  const Random<TestType> s;
  const AttributionGraph search{.keep = keep::All{}, .modules = modules::ReadElseOpaque{}, .budget = 0};
  const auto found = search(s.model, s.set, s.tokens);
  const Replacement<TestType> r{s.model, s.set, s.tokens};
  std::map<EdgeType, int> checked;
  for (const auto& bundle : found.nodes()) {
    const auto& node = bundle.node;
    if (node.kind != NodeKind::attn_feature) continue;
    for (const auto type : {EdgeType::ov, EdgeType::q, EdgeType::k}) {
      const auto pre =
          r.attn_pre(node.layer, r.resid(node.layer, false), type)[node.position.value][node.feature.value];
      const auto grads = gradient_of(pre, r.leaves());
      for (const auto& e : found.incoming(node)) {
        if (e.edge.type != type) continue;
        INFO(e.up << " -" << type << "-> " << node);
        REQUIRE(e.edge.nn_grad == Approx(r.along(e.up, grads)).epsilon(1e-8).margin(1e-10));
        checked[type] += e.edge.nn_grad != 0 ? 1 : 0;
      }
    }
  }
  for (const auto type : {EdgeType::ov, EdgeType::q, EdgeType::k}) REQUIRE(checked[type] > 50);
}

TEST_CASE("what leaves a node along all edges is its effect on the logits weighted by probability") {
  const Random<Gpt2> s;
  const AttributionGraph search{.keep = keep::All{}, .budget = 0};
  const auto found = search(s.model, s.set, s.tokens);
  for (const auto& bundle : found.nodes()) {
    if (is_output(bundle.node.kind)) continue;
    double sum = 0;
    for (const auto& e : found.outgoing(bundle.node)) sum += e.edge.em_attrib;
    INFO(bundle.node);
    REQUIRE(sum == Approx(bundle.attribution).epsilon(1e-8).margin(1e-10));
  }
}

TEST_CASE("edges are stored sparsely, and hardly change the scores") {
  const Random<Gpt2> s;
  const auto all = AttributionGraph{.keep = keep::All{}, .budget = 0}(s.model, s.set, s.tokens);
  const auto found = AttributionGraph<>{.budget = 0}(s.model, s.set, s.tokens);
  REQUIRE(found.edge_count() < all.edge_count());
  REQUIRE(graph_scores(found).completeness == Approx(graph_scores(all).completeness).margin(0.002));
  const auto few = AttributionGraph{.keep = keep::TopPerTarget{3}}(s.model, s.set, s.tokens);
  for (const auto& bundle : few.nodes()) REQUIRE(few.incoming(bundle.node).size() <= 3);
}

TEST_CASE("a round is announced; bad settings are one clear error") {
  const Random<Gpt2> s;
  std::vector<std::size_t> seen;
  const AttributionGraph<> search{.budget = 5, .round = 3};
  (void)search(s.model, s.set, s.tokens, [&](const RoundDone& e) { seen.push_back(e.targets); });
  REQUIRE(seen == std::vector<std::size_t>{3, 5});
  const auto with = [&](LogitTargets logits) {
    return AttributionGraph<>{.logits = std::move(logits)}(s.model, s.set, s.tokens);
  };
  REQUIRE(with({.tokens = {2}}).contains(Node::logit(Position{5}, 2)));
  REQUIRE_THROWS_AS(with({.tokens = {-1}}), IndexError);
  REQUIRE_THROWS_AS(with({.tokens = {100000}}), IndexError);
  REQUIRE_THROWS_AS(with({.mass = 0}), ValueError);
  REQUIRE_THROWS_AS(search(s.model, s.set, s.tokens.repeat({2, 1})), ShapeError);
  std::stop_source stop;
  stop.request_stop();
  REQUIRE_THROWS_AS((AttributionGraph<>{.stop = stop.get_token()}(s.model, s.set, s.tokens)), Cancelled);
}

TEST_CASE("a batch has a graph for each prompt, as if it were alone") {
  const Random<Gpt2> s;
  const auto tokens = at::cat({s.tokens, s.tokens.flip(1)});
  const AttributionGraph<> search{.budget = 4};
  const auto graphs = search.by_prompt(s.model, s.set, tokens);
  REQUIRE(graphs.size() == 2);
  REQUIRE(graphs[0].edge_count() != graphs[1].edge_count());
  for (std::int64_t b = 0; b < 2; ++b) {
    const auto alone = search(s.model, s.set, tokens.narrow(0, b, 1));
    const auto& graph = graphs[static_cast<std::size_t>(b)];
    REQUIRE(graph.edge_count() == alone.edge_count());
    for (const auto& e : alone.edges()) {
      REQUIRE(graph.find_edge(e.up, e.down, e.edge.type)->em_attrib == e.edge.em_attrib);
    }
  }
  REQUIRE_THROWS_AS(search.by_prompt(s.model, s.set, s.tokens.squeeze(0)), ShapeError);
}

TEST_CASE("into a logit of a pooled graph goes the mean of the prompts' logits") {
  const Random<Gpt2> s;
  const auto tokens = at::cat({s.tokens, s.tokens.flip(1), s.tokens.add(1).remainder(s.model.config().d_vocab)});
  const std::vector<std::int64_t> chosen{1, 4};
  const AttributionGraph search{.keep = keep::All{}, .logits = {.tokens = chosen}};
  const auto pooled = search.pooled(s.model, s.set, tokens);
  const auto last = s.model.run(tokens).logits.select(1, -1);
  const auto expected = last.sub(last.mean(-1, true)).mean(0);
  const auto probability = last.softmax(-1).mean(0);
  for (const auto token : chosen) {
    const auto logit =
        Node::logit(Position{static_cast<std::int32_t>(tokens.size(1)) - 1}, static_cast<std::int32_t>(token));
    double sum = 0;
    for (const auto& e : pooled.incoming(logit)) sum += e.edge.nn_attrib;
    for (const auto& row : pooled.biases()) {
      if (row.target == logit) sum += row.nn_attrib;
    }
    REQUIRE(sum == Approx(expected[token].item<double>()).margin(1e-9));
    REQUIRE(pooled.bundle(logit).nodegrad == Approx(probability[token].item<double>()).margin(1e-9));
  }
  REQUIRE(pooled.info().prompts == 3);
  const auto shared = search.pooled(s.model, s.set, tokens, pooling::Mean{}, 1.0);
  REQUIRE(shared.edge_count() > 0);
  REQUIRE(shared.edge_count() < pooled.edge_count());
}
