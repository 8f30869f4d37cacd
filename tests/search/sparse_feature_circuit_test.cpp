#include "circuit/search/sparse_feature_circuit.hpp"

#include <map>

#include "circuit/intervene/feature.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/search/keep/top.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

/// Without norms over heads, through which scales do not move.
template <class A>
HookedTransformer<A> model_of(std::uint64_t seed) {
  const auto model = random_model::make<A>(seed);
  auto weights = model.weights();
  for (auto& block : weights.blocks) block.attn.q_gain = block.attn.k_gain = at::Tensor{};
  return {model.config(), weights};
}

enum class Kinds {
  transcoders,
  streams,  // SAEs on hook_mlp_out in place of some, and SAEs of the residual stream
};

DictionarySet dictionaries_of(Kinds kinds, const ModelConfig& config) {
  if (kinds == Kinds::transcoders) return random_model::dictionaries(config, 28);
  return random_model::with_stream(random_model::mlp_out_dictionaries(config, 28), config, 28, {1, 2});
}

template <class A>
struct Setup {
  Kinds kinds = Kinds::transcoders;
  HookedTransformer<A> model = model_of<A>(27);
  DictionarySet set = dictionaries_of(kinds, model.config());
  at::Tensor clean = random_model::Source{29}.tokens(2, 5, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{30}.tokens(2, 5, model.config().d_vocab);
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}}, {{4}, {6}}};
};

/// What a module's dictionary reads and describes in a run.
struct Described {
  at::Tensor acts;   // [batch, pos, d_sae]
  at::Tensor error;  // [batch, pos, d_out]
};

NodeKind error_kind(Module module) {
  return module == Module::stream ? NodeKind::resid_error
         : module == Module::attn ? NodeKind::attn_error
                                  : NodeKind::mlp_error;
}
NodeKind feature_kind(Module module) {
  return module == Module::stream ? NodeKind::resid_feature
         : module == Module::attn ? NodeKind::attn_feature
                                  : NodeKind::mlp_feature;
}

/// Sites in words: a module's dictionary, its input and output, by hook points alone.
template <class A>
struct Site {
  const Setup<A>& s;
  Module module;
  Layer layer;

  [[nodiscard]] bool reads_z() const { return module == Module::attn && s.set.attn_site(layer) == AttentionSite::z; }
  [[nodiscard]] bool reads_output() const { return module != Module::mlp || s.set.mlp_site(layer) == MlpSite::mlp_out; }
  [[nodiscard]] const DictionaryWeights& dictionary() const { return *dictionary_of(s.set, module, layer); }
  [[nodiscard]] at::Tensor encode(const at::Tensor& x) const {
    if (module == Module::stream) return s.set.encode_stream(layer, x);
    return module == Module::attn ? s.set.encode_attn(layer, x) : s.set.encode_mlp(layer, x);
  }
  [[nodiscard]] at::Tensor decode(const at::Tensor& acts) const {
    return acts.matmul(dictionary().W_dec).add(dictionary().b_out);
  }
  [[nodiscard]] Described describe(const at::Tensor& tokens) const {
    const auto cache =
        s.model
            .run(tokens,
                 record<hook::attn::z, hook::attn_out, hook::ln2::normalized, hook::mlp_out, hook::resid_post>())
            .cache;
    const auto out = module == Module::stream ? cache.template get<hook::resid_post>(Layer{layer.value - 1})
                     : module == Module::mlp  ? cache.template get<hook::mlp_out>(layer)
                     : reads_z()              ? cache.template get<hook::attn::z>(layer).flatten(2)
                                              : cache.template get<hook::attn_out>(layer);
    const auto in = reads_output() ? out : cache.template get<hook::ln2::normalized>(layer);
    const auto acts = encode(in);
    return {acts, out.sub(decode(acts))};
  }
  [[nodiscard]] Node error(std::int32_t p) const { return {error_kind(module), layer, Position{p}, Feature{0}}; }
  [[nodiscard]] Node feature(std::int32_t p, std::int32_t f) const {
    return {feature_kind(module), layer, Position{p}, Feature{f}};
  }
  /// The metric of each prompt with this module's output replaced.
  [[nodiscard]] at::Tensor metric_with(const at::Tensor& output) const {
    const auto put = [&](const at::Tensor& value, Layer) { return output.view(value.sizes()); };
    const Where where{.layers = {module == Module::stream ? Layer{layer.value - 1} : layer}};
    const auto run = [&](auto attachment) { return s.metric.per_prompt(s.model.forward(s.clean, attachment)); };
    if (module == Module::stream) return run(edit<hook::resid_post>(put, where));
    if (module == Module::mlp) return run(edit<hook::mlp_out>(put, where));
    return reads_z() ? run(edit<hook::attn::z>(put, where)) : run(edit<hook::attn_out>(put, where));
  }
};

template <class A>
std::vector<Site<A>> sites(const Setup<A>& s) {
  std::vector<Site<A>> out;
  for (std::int32_t l = 0; l < s.model.config().n_layers; ++l) {
    for (const auto module : {Module::attn, Module::mlp}) out.push_back({s, module, Layer{l}});
  }
  for (std::int32_t l = 0; l <= s.model.config().n_layers; ++l) {
    if (s.set.stream(Layer{l}) != nullptr) out.push_back({s, Module::stream, Layer{l}});
  }
  return out;
}

/// Mean gradients on features [batch, pos, d_sae] and on the error, on the line as the paper draws it.
template <class A>
std::pair<at::Tensor, at::Tensor> line_gradients(const Site<A>& site, int steps) {
  const c10::AutoGradMode with_gradient{true};
  const auto clean = site.describe(site.s.clean);
  const auto corrupt = site.describe(site.s.corrupt);
  at::Tensor on_acts;
  at::Tensor on_error;
  for (int k = 0; k < steps; ++k) {
    const double a = static_cast<double>(k) / steps;
    auto f = clean.acts.mul(1 - a).add(corrupt.acts.mul(a)).detach().requires_grad_(true);
    auto e = clean.error.mul(1 - a).add(corrupt.error.mul(a)).detach().requires_grad_(true);
    const auto g = gradient_of(site.metric_with(site.decode(f).add(e)).sum(), {f, e});
    on_acts = on_acts.defined() ? on_acts.add(g[0]) : g[0];
    on_error = on_error.defined() ? on_error.add(g[1]) : g[1];
  }
  return {on_acts.div(steps), on_error.div(steps)};
}

/// An attachment: everything a module or the embedding writes is a leaf, so gradients take direct paths alone. What
/// each module reads and truly writes is kept with its graph.
struct Cut {
  explicit Cut(const DictionarySet& dictionaries) : set{&dictionaries} {}

  const DictionarySet* set;
  std::map<std::pair<int, std::int32_t>, at::Tensor> leaf;  // 0 embedding, 1 attention, 2 MLP, 3 the stream
  std::map<std::int32_t, at::Tensor> z, attn_out, mlp_in, mlp_out, stream;

  at::Tensor cut(int kind, Layer layer, const at::Tensor& value) {
    return leaf[{kind, layer.value}] = value.detach().requires_grad_(true);
  }
  void visit(hook::embed, Layer layer, at::Tensor& value) { value = cut(0, layer, value); }
  void visit(hook::attn::z, Layer layer, at::Tensor& value) { z[layer.value] = value; }
  void visit(hook::attn_out, Layer layer, at::Tensor& value) {
    attn_out[layer.value] = value;
    value = cut(1, layer, value);
  }
  void visit(hook::resid_post, Layer layer, at::Tensor& value) {
    const Layer behind{layer.value + 1};
    if (set->stream(behind) == nullptr) return;
    stream[behind.value] = value;
    value = cut(3, behind, value);
  }
  void visit(hook::ln2::normalized, Layer layer, at::Tensor& value) { mlp_in[layer.value] = value; }
  void visit(hook::mlp_out, Layer layer, at::Tensor& value) {
    mlp_out[layer.value] = value;
    value = cut(2, layer, value);
  }
};

double edge_sum(const Circuit& found, const Node& up, const Node& down) {
  double sum = 0;
  if (!found.contains(up) || !found.contains(down)) return 0;
  for (const auto type : all_edge_types) {
    if (const auto* edge = found.find_edge(up, down, type)) sum += edge->em_attrib;
  }
  return sum;
}

}  // namespace

TEMPLATE_TEST_CASE("a node's effect is the paper's: features and error moved together, a module at a time", "", Gpt2,
                   Llama, GptNeox) {
  const Setup<TestType> s{GENERATE(Kinds::transcoders, Kinds::streams)};
  const SparseFeatureCircuit search{.node_threshold = 0, .keep = keep::All{}, .steps = 4};
  const auto found = search(s.model, s.set, {s.clean, s.corrupt}, s.metric);
  int checked = 0;
  for (const auto& site : sites(s)) {
    const auto [on_acts, on_error] = line_gradients(site, 4);
    const auto clean = site.describe(s.clean);
    const auto corrupt = site.describe(s.corrupt);
    const auto acts = on_acts.mul(clean.acts.sub(corrupt.acts)).mean(0);
    const auto errors = on_error.mul(clean.error.sub(corrupt.error)).sum(-1).mean(0);
    for (std::int32_t p = 0; p < s.clean.size(1); ++p) {
      const auto error = site.error(p);
      INFO(error);
      const auto effect = found.contains(error) ? found.bundle(error).attribution : 0.0;
      REQUIRE(effect == Approx(errors[p].template item<double>()).epsilon(1e-9).margin(1e-11));
      for (std::int32_t f = 0; f < acts.size(1); ++f) {
        const auto node = site.feature(p, f);
        const auto expected = acts[p][f].template item<double>();
        INFO(node);
        if (!found.contains(node)) {
          REQUIRE(expected == 0);
          continue;
        }
        REQUIRE(found.bundle(node).attribution == Approx(expected).epsilon(1e-9).margin(1e-11));
        ++checked;
      }
    }
  }
  REQUIRE(checked > 50);
}

TEMPLATE_TEST_CASE("an edge is the product of gradient, the model's own Jacobian and change", "", Gpt2, Llama,
                   GptNeox) {
  const Setup<TestType> s{GENERATE(Kinds::transcoders, Kinds::streams)};
  const SparseFeatureCircuit search{.node_threshold = 0, .keep = keep::All{}, .steps = 4};
  const auto found = search(s.model, s.set, {s.clean, s.corrupt}, s.metric);
  const c10::AutoGradMode with_gradient{true};
  Cut cut{s.set};
  (void)s.model.forward(s.clean, cut);
  std::vector<at::Tensor> leaves;
  for (const auto& [key, leaf] : cut.leaf) leaves.push_back(leaf);
  std::map<NodeKind, int> checked;
  std::map<Node, at::Tensor>
      changes;  // by node: what it writes on the clean run less what it writes on the corrupt one
  for (const auto& site : sites(s)) {
    const auto l = site.layer.value;
    const auto [on_acts, on_error] = line_gradients(site, 4);
    const auto out = site.module == Module::stream ? cut.stream[l]
                     : site.module == Module::mlp  ? cut.mlp_out[l]
                     : site.reads_z()              ? cut.z[l].flatten(2)
                                                   : cut.attn_out[l];
    const auto acts = site.encode(site.reads_output() ? out : cut.mlp_in[l]);
    const auto through_features = on_acts.mul(acts);                              // [batch, pos, d_sae]
    const auto through_error = on_error.mul(out.sub(site.decode(acts))).sum(-1);  // [batch, pos]
    const auto check = [&](const Node& target, const at::Tensor& value) {
      if (!found.contains(target)) return;
      const auto grads = gradient_of(value.sum(), leaves, /*keep_graph=*/true);
      std::size_t i = 0;
      std::map<std::pair<int, std::int32_t>, at::Tensor> grad;
      for (const auto& [key, leaf] : cut.leaf) grad[key] = grads[i++];
      for (const auto& e : found.incoming(target)) {
        const auto& up = e.up;
        const auto p = up.position.value;
        const auto of_run = [&](const at::Tensor& tokens) -> at::Tensor {  // what the node writes, [batch, d_model]
          if (is_embedding(up.kind))
            return s.model.run(tokens, record<hook::embed>()).cache.template get<hook::embed>().select(1, p);
          const auto module = is_stream(up.kind) ? Module::stream : is_attention(up.kind) ? Module::attn : Module::mlp;
          const Site<TestType> at{s, module, up.layer};
          const auto described = at.describe(tokens);
          const auto written = is_feature(up.kind) ? described.acts.select(1, p)
                                                         .select(1, up.feature.value)
                                                         .unsqueeze(1)
                                                         .mul(at.dictionary().W_dec[up.feature.value])
                                                   : described.error.select(1, p);
          return at.reads_z()
                     ? written.matmul(s.model.weights().blocks[static_cast<std::size_t>(up.layer.value)].attn.W_O)
                     : written;
        };
        auto& change = changes[up];
        if (!change.defined()) change = of_run(s.clean).sub(of_run(s.corrupt));
        const int kind = is_embedding(up.kind) ? 0 : is_stream(up.kind) ? 3 : is_attention(up.kind) ? 1 : 2;
        const auto expected =
            grad[std::pair{kind, up.layer.value}].select(1, p).mul(change).sum(-1).mean().template item<double>();
        INFO(up << " -> " << target);
        REQUIRE(edge_sum(found, up, target) == Approx(expected).epsilon(1e-9).margin(1e-10));
        checked[target.kind] += expected != 0 ? 1 : 0;
      }
    };
    for (std::int32_t p = 0; p < s.clean.size(1); ++p) {
      check(site.error(p), through_error.select(1, p));
      for (std::int32_t f = 0; f < 6; ++f) {
        const auto node = site.feature(p, f);
        check(node, through_features.select(1, p).select(1, f));
      }
    }
  }
  for (const auto kind : {NodeKind::attn_feature, NodeKind::attn_error, NodeKind::mlp_feature, NodeKind::mlp_error}) {
    INFO(kind);
    REQUIRE(checked[kind] > 20);
  }
  if (s.kinds == Kinds::streams) {
    for (const auto kind : {NodeKind::resid_feature, NodeKind::resid_error}) REQUIRE(checked[kind] > 5);
  }
}

TEST_CASE("thresholds choose nodes, and edges between them") {
  const Setup<Gpt2> s{};
  const auto all = SparseFeatureCircuit{.node_threshold = 0, .keep = keep::All{}, .steps = 3}(
      s.model, s.set, {s.clean, s.corrupt}, s.metric);
  const auto some =
      SparseFeatureCircuit<>{.node_threshold = 0.05, .steps = 3}(s.model, s.set, {s.clean, s.corrupt}, s.metric);
  std::size_t over = 0;
  for (const auto& b : all.nodes()) over += is_output(b.node.kind) || std::abs(b.attribution) > 0.05 ? 1U : 0U;
  REQUIRE(some.node_count() == over);
  REQUIRE(over < all.node_count());
  std::size_t edges = 0;
  for (const auto& e : all.edges())
    edges += some.contains(e.up) && some.contains(e.down) && std::abs(e.edge.em_attrib) > 0.01 ? 1U : 0U;
  REQUIRE(some.edge_count() == edges);
  REQUIRE(edges > 10);
}

TEST_CASE("without a corrupt run activations are taken to 0") {
  const Setup<Gpt2> s{};
  const SparseFeatureCircuit search{.node_threshold = 0, .keep = keep::All{}, .contrast = contrast::None{}, .steps = 1};
  const auto found = search(s.model, s.set, {s.clean, {}}, s.metric);
  const Site<Gpt2> site{s, Module::mlp, Layer{1}};
  const auto clean = site.describe(s.clean);
  const c10::AutoGradMode with_gradient{true};
  auto f = clean.acts.detach().requires_grad_(true);
  const auto g = gradient_of(site.metric_with(site.decode(f).add(clean.error)).sum(), {f})[0];
  const auto expected = g.mul(clean.acts).mean(0);
  for (const auto& b : found.nodes()) {
    if (b.node.kind != NodeKind::mlp_feature || b.node.layer != Layer{1}) continue;
    REQUIRE(b.attribution ==
            Approx(expected[b.node.position.value][b.node.feature.value].item<double>()).epsilon(1e-9));
  }
}

TEST_CASE("without a corrupt run an embedding node is token and position, taken to 0 together") {
  const Setup<Gpt2> s{};
  const SparseFeatureCircuit half_way{
      .node_threshold = 0, .keep = keep::All{}, .contrast = contrast::None{}, .steps = 1, .offset = 0.5};
  const auto found = half_way(s.model, s.set, {s.clean, {}}, s.metric);
  const auto embedded = s.model.run(s.clean, record<hook::resid_pre>()).cache.get<hook::resid_pre>(Layer{0});
  const c10::AutoGradMode with_gradient{true};
  const auto half = embedded.mul(0.5).detach().requires_grad_(true);
  const auto from = edit<hook::resid_pre>([&](const at::Tensor&, Layer) { return half; }, Where{.layers = {Layer{0}}});
  const auto metrics = s.metric.per_prompt(s.model.uncapped_logits(s.clean, from));
  const auto expected = gradient_of(metrics.sum(), {half})[0].mul(embedded).sum(-1).mean(0);
  std::int64_t seen = 0;
  for (const auto& b : found.nodes()) {
    if (b.node.kind != NodeKind::embedding) continue;
    REQUIRE(b.attribution == Approx(expected[b.node.position.value].item<double>()).epsilon(1e-9));
    ++seen;
  }
  REQUIRE(seen == s.clean.size(1));
}

TEST_CASE("bad settings of sparse feature circuits are one clear error") {
  const Setup<Gpt2> s{};
  REQUIRE_THROWS_AS((SparseFeatureCircuit<>{.steps = 0}(s.model, s.set, {s.clean, s.corrupt}, s.metric)), ValueError);
  REQUIRE_THROWS_AS((SparseFeatureCircuit<>{}(s.model, s.set, {s.clean, {}}, s.metric)), ValueError);
  REQUIRE_THROWS_AS((SparseFeatureCircuit<>{}(s.model, s.set, {s.clean, s.corrupt.narrow(1, 0, 3)}, s.metric)),
                    ShapeError);
  const auto across = random_model::cross_layer_dictionaries(s.model.config(), 28);
  REQUIRE_THROWS_AS((SparseFeatureCircuit<>{}(s.model, across, {s.clean, s.corrupt}, s.metric)), ConfigError);
  REQUIRE_THROWS_WITH((SparseFeatureCircuit<>{}(s.model, across, {s.clean, s.corrupt}, s.metric)),
                      circuit_test::ContainsSubstring("cross-layer"));
  const auto of_stream = random_model::cross_layer_dictionaries(s.model.config(), 28, MlpSite::resid_mid);
  REQUIRE_THROWS_AS((SparseFeatureCircuit<>{}(s.model, of_stream, {s.clean, s.corrupt}, s.metric)), ConfigError);
  const auto normalizing = random_model::normalizing_dictionaries(s.model.config(), 28);
  REQUIRE_THROWS_WITH((SparseFeatureCircuit<>{}(s.model, normalizing, {s.clean, s.corrupt}, s.metric)),
                      circuit_test::ContainsSubstring("Scales::frozen"));
}

namespace {

/// What the tool of Marks et al. found; see tests/data/sparse_feature_circuit/make.py. It subtracts the other way
/// round.
at::Tensor fact(const std::string& name) {
  static const auto file =
      open_safetensors(std::filesystem::path{CIRCUIT_TEST_DATA} / "sparse_feature_circuit/effects.safetensors");
  return to_tensor(file.get(name));
}

/// Feature or, behind the last, error.
Node attn_node(std::int32_t layer, std::int64_t position, std::int64_t feature, std::int64_t features) {
  const Position p{static_cast<std::int32_t>(position)};
  return feature == features ? Node::attn_error(Layer{layer}, p)
                             : Node::attn_feature(Layer{layer}, p, Feature{static_cast<std::int32_t>(feature)});
}

}  // namespace

TEST_CASE("nodes and edges equal the published tool's") {
  const auto model = load_model<Gpt2>(std::filesystem::path{CIRCUIT_TEST_DATA} / "golden/model",
                                      {.processing = weights::unprocessed, .dtype = at::kDouble});
  DictionarySet set;
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const auto get = [&](const char* name) { return fact(std::to_string(l) + '/' + name); };
    SparseDictionary<> d;
    d.W_enc = get("W_enc");
    d.b_enc = get("b_enc");
    d.W_dec = get("W_dec");
    d.b_in = get("b_dec");
    d.b_out = get("b_dec");
    set.set_attn(Layer{l}, d, AttentionSite::attn_out);
  }
  const auto ids = [](const char* name) {
    const auto t = fact(name);
    return std::vector<std::int64_t>(t.data_ptr<std::int64_t>(), t.data_ptr<std::int64_t>() + t.numel());
  };
  const auto right = ids("right");
  const auto wrong = ids("wrong");
  const LogitDifference metric{std::span{right}, std::span{wrong}};
  const SparseFeatureCircuit search{.node_threshold = 0, .keep = keep::All{}, .steps = 4};
  const auto found = search(model, set, {fact("clean"), fact("corrupt")}, metric);

  const auto embeddings = fact("nodes/embed").sum(-1);
  for (std::int32_t p = 0; p < 5; ++p) {
    REQUIRE(found.bundle(Node::embedding(Position{p})).attribution ==
            Approx(-embeddings[p].item<double>()).epsilon(1e-9));
  }
  int edges = 0;
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const auto nodes = fact("nodes/attn_" + std::to_string(l));
    const auto last = nodes.size(1) - 1;
    for (std::int64_t p = 0; p < nodes.size(0); ++p) {
      for (std::int64_t f = 0; f <= last; ++f) {
        const auto node = attn_node(l, p, f, last);
        const auto effect = found.contains(node) ? found.bundle(node).attribution : 0.0;
        INFO(node);
        REQUIRE(effect == Approx(-nodes[p][f].item<double>()).epsilon(1e-9).margin(1e-11));
      }
    }
    for (std::int32_t m = 0; m < l; ++m) {
      const auto theirs = fact("edges/" + std::to_string(m) + '/' + std::to_string(l));
      const auto entries = theirs.nonzero();
      for (std::int64_t i = 0; i < entries.size(0); ++i) {
        const auto at = [&](std::int64_t j) { return entries[i][j].item<std::int64_t>(); };
        const auto down = attn_node(l, at(0), at(1), last);
        const auto up = attn_node(m, at(2), at(3), last);
        const auto expected = -theirs[at(0)][at(1)][at(2)][at(3)].item<double>();
        INFO(up << " -> " << down);
        REQUIRE(edge_sum(found, up, down) == Approx(expected).epsilon(1e-9).margin(1e-11));
        ++edges;
      }
    }
  }
  REQUIRE(edges > 500);
}
