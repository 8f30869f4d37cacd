#include <ATen/ops/eye.h>
#include <ATen/ops/inverse.h>
#include <ATen/ops/zeros.h>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"
#include "replacement.hpp"

using namespace circuit;

namespace {

template <class A>
struct TransparentSetup {
  HookedTransformer<A> model = random_model::make<A>(7);
  DictionarySet set = random_model::dictionaries(model.config(), 8);
  at::Tensor clean = random_model::Source{9}.tokens(1, 6, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{10}.tokens(1, 6, model.config().d_vocab);
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}}, {{4}}};
  Replacement<A> replacement{model, set, clean, /*transparent=*/true};
};

/// Attribution graphs' choice: gradients pass through all attention.
const auto every_target = Leap{.keep = keep::All{},
                               .contrast = contrast::None{},
                               .targets = targets::AllActive{},
                               .modules = modules::TransparentAttention{}};

/// What a target reads, as a function of the replacement model's leaves; or of a stream given to it.
template <class A>
at::Tensor described(const Replacement<A>& r, const Node& target, const at::Tensor& stream = {}) {
  if (target.kind == NodeKind::metric) {
    const auto logits = r.unembed(stream.defined() ? stream : r.resid_final());
    return logits[-1][3].sub(logits[-1][4]);
  }
  const auto x = stream.defined() ? stream : r.resid(target.layer, true);
  return r.mlp_pre(target.layer, x)[target.position.value][target.feature.value];
}

BiasRow bias_row_of(const Circuit& circuit, const Node& target) {
  for (const auto& row : circuit.biases()) {
    if (row.target == target) return row;
  }
  FAIL("no bias row");
  return {};
}

double incoming_sum(const Circuit& circuit, const Node& target) {
  double sum = 0;
  for (const auto& e : circuit.incoming(target)) sum += e.edge.nn_attrib;
  return sum;
}

std::vector<Node> targets_in(const Circuit& circuit) {
  std::vector<Node> out;
  for (const auto& bundle : circuit.nodes()) {
    if (!circuit.incoming(bundle.node).empty()) out.push_back(bundle.node);
  }
  return out;
}

}  // namespace

TEMPLATE_TEST_CASE("through transparent attention every edge gradient equals autograd's", "", Gpt2, Llama) {
  const TransparentSetup<TestType> s;
  const auto found = every_target(s.model, s.set, {s.clean, {}}, s.metric);
  int moved = 0;
  for (const auto& target : targets_in(found)) {
    const auto grads = gradient_of(described(s.replacement, target), s.replacement.leaves());
    for (const auto& e : found.incoming(target)) {
      INFO(e.up << " -> " << e.down);
      REQUIRE_FALSE(is_attention(e.up.kind));
      REQUIRE(e.edge.nn_grad == Approx(s.replacement.along(e.up, grads)).epsilon(1e-8).margin(1e-10));
      if (target.kind != NodeKind::metric && e.up.position != target.position && e.edge.nn_grad != 0) ++moved;
    }
  }
  REQUIRE(moved > 20);  // edges of MLP features between positions: only attention makes them
}

TEMPLATE_TEST_CASE("through transparent attention attributions and constants sum to what each target reads", "", Gpt2,
                   Llama) {
  const TransparentSetup<TestType> s;
  const auto found = every_target(s.model, s.set, {s.clean, {}}, s.metric);
  for (const auto& target : targets_in(found)) {
    INFO(target);
    const auto bias = bias_row_of(found, target);
    REQUIRE(incoming_sum(found, target) + bias.nn_attrib ==
            Approx(described(s.replacement, target).template item<double>()).epsilon(1e-9).margin(1e-10));
    REQUIRE(bias.nn_map == 0);
  }
  REQUIRE(described(s.replacement, Node::metric()).template item<double>() ==
          Approx(s.metric.per_prompt(s.model.run(s.clean).logits).template item<double>()));
}

TEMPLATE_TEST_CASE("with contrast the map row makes up for patterns and scales that differ", "", Gpt2, Llama) {
  const TransparentSetup<TestType> s;
  const auto search =
      Leap{.keep = keep::All{}, .targets = targets::AllActive{}, .modules = modules::TransparentAttention{}};
  const auto found = search(s.model, s.set, {s.clean, s.corrupt}, s.metric);
  const Replacement<TestType> other{s.model, s.set, s.corrupt, /*transparent=*/true};
  double largest = 0;
  for (const auto& target : targets_in(found)) {
    const bool metric = target.kind == NodeKind::metric;
    const auto stream = [&](const auto& r) {
      return (metric ? r.resid_final() : r.resid(target.layer, true)).detach();
    };
    const c10::AutoGradMode with_gradient{true};
    const auto x = stream(s.replacement).requires_grad_(true);
    const auto g = gradient_of(described(s.replacement, target, x), {x})[0];
    const double expected = g.mul(x.detach().sub(stream(other))).sum().template item<double>();
    const auto bias = bias_row_of(found, target);
    INFO(target);
    REQUIRE(bias.nn_attrib == 0);
    REQUIRE(incoming_sum(found, target) + bias.nn_map == Approx(expected).epsilon(1e-8).margin(1e-10));
    largest = std::max(largest, std::abs(bias.nn_map));
  }
  REQUIRE(largest > 0.01);
}

TEMPLATE_TEST_CASE("path sums over all edges equal one backward pass with attention transparent", "", Gpt2, Llama) {
  const TransparentSetup<TestType> s;
  const auto by_edges = Leap{.keep = keep::All{},
                             .chain = chain::GraphPath{},
                             .contrast = contrast::None{},
                             .targets = targets::AllActive{},
                             .modules = modules::TransparentAttention{}};
  const auto by_backward = Leap{.keep = keep::All{},
                                .chain = chain::AllPaths{},
                                .contrast = contrast::None{},
                                .targets = targets::AllActive{},
                                .modules = modules::TransparentAttention{}};
  const auto a = by_edges(s.model, s.set, {s.clean, {}}, s.metric);
  const auto b = by_backward(s.model, s.set, {s.clean, {}}, s.metric);
  const auto n = static_cast<std::int64_t>(a.node_count());
  auto G = at::zeros({n, n}, at::kDouble);
  for (const auto& e : a.edges()) {
    G[static_cast<std::int64_t>(a.vertex(e.down))][static_cast<std::int64_t>(a.vertex(e.up))] += e.edge.nn_grad;
  }
  const auto paths = at::eye(n, at::kDouble).sub(G).inverse()[static_cast<std::int64_t>(a.vertex(Node::metric()))];
  REQUIRE(n == static_cast<std::int64_t>(b.node_count()));
  for (const auto& x : a.nodes()) {
    INFO(x.node);
    const auto dense = paths[static_cast<std::int64_t>(a.vertex(x.node))].template item<double>();
    REQUIRE(x.nodegrad == Approx(dense).epsilon(1e-8).margin(1e-10));
    REQUIRE(b.bundle(x.node).nodegrad == Approx(dense).epsilon(1e-8).margin(1e-10));
  }
}

namespace {

/// Layer 0 as attribution graphs have it, layer 1's attention one node, the rest read.
struct Mixed {
  Role upper = Role::opaque;
  [[nodiscard]] Role attention(Layer layer) const { return layer == Layer{0} ? Role::transparent : upper; }
  [[nodiscard]] Role mlp(Layer /*layer*/) const { return Role::read; }
};
struct TransparentMlp {
  [[nodiscard]] Role attention(Layer /*layer*/) const { return Role::read; }
  [[nodiscard]] Role mlp(Layer /*layer*/) const { return Role::transparent; }
};

}  // namespace

TEST_CASE("a rule may mix roles; an opaque module is one node, whatever its dictionary") {
  const TransparentSetup<Gpt2> s;
  const auto search =
      Leap{.keep = keep::All{}, .contrast = contrast::None{}, .targets = targets::AllActive{}, .modules = Mixed{}};
  const auto found = search(s.model, s.set, {s.clean, {}}, s.metric);
  bool opaque = false;
  for (const auto& bundle : found.nodes()) {
    REQUIRE(bundle.node.kind != NodeKind::attn_feature);
    opaque = opaque || bundle.node.kind == NodeKind::attn_output;
    if (is_attention(bundle.node.kind)) REQUIRE(bundle.node.layer == Layer{1});
  }
  REQUIRE(opaque);
  REQUIRE(incoming_sum(found, Node::metric()) + bias_row_of(found, Node::metric()).nn_attrib ==
          Approx(s.metric.per_prompt(s.model.run(s.clean).logits).item<double>()).epsilon(1e-9));
}

TEST_CASE("an MLP cannot be transparent") {
  const TransparentSetup<Gpt2> s;
  const auto search = Leap{.modules = TransparentMlp{}};
  REQUIRE_THROWS_AS(search(s.model, s.set, {s.clean, s.corrupt}, s.metric), ConfigError);
}
