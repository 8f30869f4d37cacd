#include "circuit/dictionary/neuron_basis.hpp"

#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include <map>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"
#include "replacement.hpp"

using namespace circuit;

namespace {

constexpr std::int64_t right = 3;
constexpr std::int64_t wrong = 4;

LogitDifference metric() { return LogitDifference{std::span{&right, 1}, std::span{&wrong, 1}}; }

/// The model's units written down as dictionaries of the test's own: hook_z as it is, and the branch of each MLP that
/// reads with W and b from hook_normalized.
template <class A>
DictionarySet units(const HookedTransformer<A>& model, bool gate) {
  const auto& c = model.config();
  const auto width = c.n_heads * c.d_head;
  const auto none = at::zeros({width}, at::kDouble);
  DictionarySet set;
  for (std::int32_t l = 0; l < c.n_layers; ++l) {
    const auto& block = model.weights().blocks[static_cast<std::size_t>(l)];
    SparseDictionary<> z;
    z.W_enc = z.W_dec = at::eye(width, at::kDouble);
    z.b_enc = z.b_in = z.b_out = none;
    set.set_attn(Layer{l}, z, AttentionSite::z);
    SparseDictionary<> neurons;
    const auto& W = gate ? block.mlp.W_gate : block.mlp.W_in;
    neurons.W_enc = A::Norm::centers ? W : block.ln2.gain.unsqueeze(1).mul(W);
    neurons.b_enc = gate ? block.mlp.b_gate : block.mlp.b_in;
    neurons.W_dec = block.mlp.W_out;
    neurons.b_in = at::zeros({c.d_model}, at::kDouble);
    neurons.b_out = block.mlp.b_out;
    set.set_mlp(Layer{l}, neurons);
  }
  return set;
}

/// The replacement in the neuron basis: leaves are the recorded units themselves, and no module has an error.
template <class A>
struct Units {
  HookedTransformer<A> model = random_model::make<A>(7);
  at::Tensor tokens;
  DictionarySet linear_set = units(model, false);
  DictionarySet gate_set = units(model, A::Mlp::gated);
  Replacement<A> linear;
  Replacement<A> gate;
  std::vector<at::Tensor> pre, up, post;  // by layer

  explicit Units(std::uint64_t seed = 9)
      : tokens{random_model::Source{seed}.tokens(1, 6, model.config().d_vocab)},
        linear{model, linear_set, tokens, false, true},
        gate{model, gate_set, tokens, false, true} {
    const auto cache =
        model.run(tokens, record<hook::attn::z, hook::mlp::pre, hook::mlp::pre_linear, hook::mlp::post>()).cache;
    for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
      pre.push_back(cache.template get<hook::mlp::pre>(Layer{l})[0]);
      if constexpr (A::Mlp::gated) up.push_back(cache.template get<hook::mlp::pre_linear>(Layer{l})[0]);
      post.push_back(cache.template get<hook::mlp::post>(Layer{l})[0]);
      const auto slot = static_cast<std::size_t>(l);
      const auto leaf = [](const at::Tensor& x) { return x.detach().clone().requires_grad_(true); };
      linear.attn_acts[slot] = leaf(cache.template get<hook::attn::z>(Layer{l})[0].flatten(1));
      linear.mlp_acts[slot] = leaf(post.back());
      linear.attn_rest[slot] = leaf(at::zeros_like(linear.embed));
      linear.mlp_rest[slot] = leaf(at::zeros_like(linear.embed));
    }
  }

  /// A neuron's pre-activation [pos, d_mlp] as a rule has it, given the stream.
  template <class Gate>
  at::Tensor neuron_pre(Layer l, const at::Tensor& x, Gate) const {
    const auto slot = static_cast<std::size_t>(l.value);
    const auto live_linear = linear.mlp_pre(l, x);
    if constexpr (!A::Mlp::gated) {
      return live_linear;
    } else if constexpr (std::same_as<Gate, gate::Frozen>) {
      return A::Mlp::Activation::apply(pre[slot]).mul(live_linear);
    } else {
      const auto ratio = A::Mlp::Activation::apply(pre[slot]).div(pre[slot]);
      return pre[slot].mul(ratio).mul(live_linear).add(up[slot].mul(ratio).mul(gate.mlp_pre(l, x))).mul(0.5);
    }
  }
  template <class Gate>
  at::Tensor described(const Node& target, EdgeType type, Gate rule) const {
    const c10::AutoGradMode with_gradient{true};
    if (type == EdgeType::metric) {
      const auto logits = linear.unembed(linear.resid_final());
      return logits[-1][right].sub(logits[-1][wrong]);
    }
    const bool mlp = target.kind == NodeKind::mlp_feature;
    const auto x = linear.resid(target.layer, mlp);
    const auto values = mlp ? neuron_pre(target.layer, x, rule) : linear.attn_pre(target.layer, x, type);
    return values[target.position.value][target.feature.value];
  }
};

template <class A, class Rule>
struct Case {
  using Architecture = A;
  using Gate = Rule;
};

const auto every_target = Leap{.keep = keep::All{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};

double sum_into(const Circuit& circuit, const Node& target, EdgeType type, bool em = false) {
  double sum = 0;
  for (const auto& e : circuit.incoming(target)) {
    if (e.edge.type == type) sum += em ? e.edge.em_attrib : e.edge.nn_attrib;
  }
  for (const auto& row : circuit.biases()) {
    if (row.target == target && row.type == type) sum += em ? row.em_attrib : row.nn_attrib;
  }
  return sum;
}

EdgeType main_type(const Node& target) {
  return target.kind == NodeKind::metric        ? EdgeType::metric
         : target.kind == NodeKind::mlp_feature ? EdgeType::mlp
                                                : EdgeType::ov;
}

}  // namespace

TEMPLATE_TEST_CASE("in the neuron basis every edge gradient equals autograd's, and edges and bias sum to each target",
                   "", (Case<Gpt2, gate::Frozen>), (Case<Llama, gate::Frozen>), (Case<Llama, gate::Half>),
                   (Case<Gemma2, gate::Frozen>), (Case<Gemma2, gate::Half>),
                   (Case<random_model::MixedParts, gate::Frozen>)) {
  using A = typename TestType::Architecture;
  const typename TestType::Gate rule{};
  const Units<A> s;
  const auto found = every_target(s.model, NeuronBasis{s.model, rule}, {s.tokens, {}}, metric());
  std::map<EdgeType, int> compared;
  for (const auto& bundle : found.nodes()) {
    const auto& target = bundle.node;
    REQUIRE((is_feature(target.kind) || target.kind == NodeKind::embedding || target.kind == NodeKind::metric));
    const auto incoming = found.incoming(target);
    if (incoming.empty()) continue;
    // Every third target is enough to meet every position, head and neuron.
    if (target.kind != NodeKind::metric && (target.feature.value + target.position.value) % 3 != 0) continue;
    for (const auto type : all_edge_types) {
      if (!reads_by(target.kind, type)) continue;
      INFO(target << ' ' << type);
      const auto value = s.described(target, type, rule);
      const auto grads = gradient_of(value, s.linear.leaves());
      for (const auto& e : incoming) {
        if (e.edge.type != type) continue;
        const auto expected = s.linear.along(e.up, grads);
        if (std::abs(e.edge.nn_grad - expected) > 1e-10 + 1e-8 * std::abs(expected)) {
          INFO(e.up);
          REQUIRE(e.edge.nn_grad == expected);
        }
        ++compared[type];
      }
      if (type != main_type(target)) continue;
      REQUIRE(sum_into(found, target, type) == Approx(value.template item<double>()).epsilon(1e-9).margin(1e-10));
      const bool complete = target.kind != NodeKind::mlp_feature || A::Mlp::gated;
      if (complete) REQUIRE(sum_into(found, target, type) == Approx(bundle.activation).epsilon(1e-9).margin(1e-10));
    }
  }
  for (const auto type : all_edge_types) REQUIRE((type == EdgeType::resid || compared[type] > 100));
}

TEMPLATE_TEST_CASE("by complete rules path sums reach the roots, and equal one pass back through the replacement", "",
                   (Case<Gpt2, slope::Ratio>), (Case<Llama, slope::Derivative>), (Case<Gemma2, slope::Derivative>),
                   (Case<random_model::MixedParts, slope::Derivative>)) {
  using A = typename TestType::Architecture;
  const Units<A> s;
  const NeuronBasis basis{s.model, gate::Half{}, typename TestType::Gate{}};
  auto paths = Leap{
      .keep = keep::All{}, .chain = chain::GraphPath{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};
  paths.attention = AttentionPaths::values;
  const auto found = paths(s.model, basis, {s.tokens, {}}, metric());
  double roots = 0;
  for (const auto& b : found.nodes()) {
    if (!found.incoming(b.node).empty() && b.node.kind != NodeKind::metric) {
      INFO(b.node);
      REQUIRE(sum_into(found, b.node, main_type(b.node), true) ==
              Approx(b.nodegrad * b.activation).epsilon(1e-8).margin(1e-10));
    }
    if (b.node.kind == NodeKind::embedding) roots += b.nodegrad * b.activation;
  }
  for (const auto& row : found.biases()) roots += row.em_attrib;
  const auto value = metric().per_prompt(s.model.uncapped_logits(s.tokens)).template item<double>();
  REQUIRE(roots == Approx(value).epsilon(1e-9));

  auto back = Leap{
      .keep = keep::All{}, .chain = chain::AllPaths{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};
  back.attention = AttentionPaths::values;
  const auto other = back(s.model, basis, {s.tokens, {}}, metric());
  REQUIRE(other.node_count() == found.node_count());
  for (const auto& b : found.nodes()) {
    INFO(b.node);
    REQUIRE(other.bundle(b.node).nodegrad == Approx(b.nodegrad).epsilon(1e-8).margin(1e-10));
  }
}

TEMPLATE_TEST_CASE("in the neuron basis contrast attributions sum to the gradient times the difference of the streams",
                   "", Llama, Gemma2, random_model::MixedParts) {
  const Units<TestType> s;
  const Units<TestType> other{19};
  const auto found = Leap{.keep = keep::All{}, .targets = targets::AllActive{}}(s.model, NeuronBasis{s.model},
                                                                                {s.tokens, other.tokens}, metric());
  std::size_t compared = 0;
  for (const auto& bundle : found.nodes()) {
    const auto& target = bundle.node;
    if (found.incoming(target).empty()) continue;
    if (target.kind != NodeKind::metric && (target.feature.value + target.position.value) % 3 != 0) continue;
    const auto stream = [&](const Units<TestType>& of) {
      return (target.kind == NodeKind::metric ? of.linear.resid_final()
                                              : of.linear.resid(target.layer, target.kind == NodeKind::mlp_feature))
          .detach();
    };
    for (const auto type : all_edge_types) {
      if (!reads_by(target.kind, type)) continue;
      const c10::AutoGradMode with_gradient{true};
      const auto x = stream(s).requires_grad_(true);
      at::Tensor value;
      if (target.kind == NodeKind::metric) {
        value = s.linear.unembed(x)[-1][right].sub(s.linear.unembed(x)[-1][wrong]);
      } else {
        const auto values = target.kind == NodeKind::mlp_feature ? s.neuron_pre(target.layer, x, gate::Frozen{})
                                                                 : s.linear.attn_pre(target.layer, x, type);
        value = values[target.position.value][target.feature.value];
      }
      const auto expected = gradient_of(value, {x})[0].mul(x.detach().sub(stream(other))).sum().template item<double>();
      INFO(target << ' ' << type);
      REQUIRE(sum_into(found, target, type) == Approx(expected).epsilon(1e-8).margin(1e-9));
      ++compared;
    }
  }
  REQUIRE(compared > 100);
}

TEST_CASE("a plain neuron's slope is the derivative of its nonlinearity, or what it is multiplied by") {
  const auto x = random_model::Source{3}({50}, 2.0);
  const auto hold = [&]<class Act>(Act) {
    const auto step = Act::apply(x.add(1e-6)).sub(Act::apply(x.sub(1e-6))).div(2e-6);
    REQUIRE_CLOSE(slope::Derivative{}.of<Act>(x), step, 1e-8);
    REQUIRE_CLOSE(slope::Ratio{}.of<Act>(x).mul(x), Act::apply(x), 1e-12);
  };
  hold(activation::GeluNew{});
  hold(activation::Gelu{});
  hold(activation::Silu{});
}

TEST_CASE("every position shares one matrix of the units' write vectors") {
  const Units<Llama> s;
  const NeuronBasis basis{s.model};
  REQUIRE(basis.mlp(Layer{1})->W_dec.is_same(s.model.weights().blocks[1].mlp.W_out));
  const auto tokens = random_model::Source{5}.tokens(2, 6, s.model.config().d_vocab);
  const auto two = std::vector<std::int64_t>{right, right};
  const auto others = std::vector<std::int64_t>{wrong, wrong};
  const auto lin = linearize<final_norm::Frozen>(s.model, basis, tokens, tokens.flip({1}),
                                                 LogitDifference{std::span{two}, std::span{others}});
  const auto sources = Sources::pack(s.model, basis, lin, contrast::Signed{});
  for (std::int32_t p = 1; p < sources.length(); ++p) {
    const auto& here = sources.at(Position{p}).blocks.front();
    REQUIRE(here.feature.size() == sources.at(Position{p}).features.size());
    REQUIRE(here.writes.is_same(sources.at(Position{0}).blocks.front().writes));
  }
  REQUIRE(sources.at(Position{0}).features.size() == 2 * (16 + 24));
}

TEST_CASE("the neuron basis of another model is refused") {
  const NeuronBasis basis{random_model::make<Llama>(7)};
  auto config = random_model::make<Llama>(7).config();
  REQUIRE_THROWS_AS(basis.check(config, weights::unprocessed, at::kFloat), ConfigError);
  REQUIRE_THROWS_AS(basis.check(config, weights::folded_and_centered, at::kDouble), ConfigError);
  REQUIRE_NOTHROW(basis.check(config, weights::unprocessed, at::kDouble));
  config.d_mlp = 25;
  REQUIRE_THROWS_AS(basis.check(config, weights::unprocessed, at::kDouble), ConfigError);
}

namespace {

/// The edges of two circuits, which are the same.
void check_same_edges(const Circuit& got, const Circuit& expected) {
  REQUIRE(expected.edge_count() > 20);
  REQUIRE(got.edge_count() == expected.edge_count());
  auto other = expected.edges().begin();
  for (const auto& [up, down, edge] : got.edges()) {
    const auto& [other_up, other_down, other_edge] = *other;
    CHECK(up == other_up);
    CHECK(down == other_down);
    CHECK(edge.em_attrib == Approx(other_edge.em_attrib).margin(1e-5));
    ++other;
  }
}

template <class A>
void search_half_and_widened() {
  const random_model::HalfAndWidened<A> models{31};
  const auto tokens = random_model::Source{32}.tokens(1, 6, models.half.config().d_vocab);
  const auto others = random_model::Source{33}.tokens(1, 6, models.half.config().d_vocab);
  const Leap search{.keep = keep::Above{0.0}};
  const auto set = random_model::dictionaries(models.half.config(), 34, at::kFloat);
  check_same_edges(search(models.half, set, {tokens, others}, metric()),
                   search(models.widened, set, {tokens, others}, metric()));
  const auto units_of = [&](const auto& model) {
    return search(model, NeuronBasis{model}, {tokens, others}, metric());
  };
  check_same_edges(units_of(models.half), units_of(models.widened));
}

}  // namespace

TEST_CASE("models whose matrices are of half precision are searched as widened ones") {
  search_half_and_widened<Gpt2>();
  search_half_and_widened<Llama>();
  search_half_and_widened<Gemma2>();
}
