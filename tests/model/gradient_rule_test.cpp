#include "circuit/model/gradient_rule.hpp"

#include "circuit/metric/logit_difference.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/node_attributions.hpp"
#include "circuit/search/node_patching.hpp"
#include "random_model.hpp"
#include "replacement.hpp"

using namespace circuit;

namespace {

template <class A>
struct Setup {
  HookedTransformer<A> model = random_model::make<A>(47);
  DictionarySet set = random_model::dictionaries(model.config(), 48);
  at::Tensor clean = random_model::Source{49}.tokens(1, 5, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{50}.tokens(1, 5, model.config().d_vocab);
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}}, {{4}}};
};

/// The model of one prompt with scales and patterns frozen, its activations f(z) taken for z times a number; what a
/// gated product's branches give is one after the other held and halved.
template <class A>
struct Linear {
  const Setup<A>& s;
  Replacement<A> frozen{s.model, s.set, s.clean, /*transparent=*/true};

  at::Tensor mlp(Layer l, const at::Tensor& x) const {
    const auto& block = s.model.weights().blocks[static_cast<std::size_t>(l.value)];
    const auto read = A::Norm::output(frozen.mlp_input(l, x), block.ln2);
    const auto& w = block.mlp;
    const auto product = [&]() -> at::Tensor {
      if constexpr (A::Mlp::gated) {
        const auto gate = read.matmul(w.W_gate).add(w.b_gate);
        const auto up = read.matmul(w.W_in).add(w.b_in);
        const auto open = gate.mul(factor(gate));
        return open.mul(up.detach()).mul(0.5).add(open.detach().mul(up).mul(0.5));
      } else {
        const auto pre = read.matmul(w.W_in).add(w.b_in);
        return pre.mul(factor(pre));
      }
    }();
    return product.matmul(w.W_out).add(w.b_out);
  }
  static at::Tensor factor(const at::Tensor& z) { return A::Mlp::Activation::apply(z.detach()).div(z.detach()); }

  /// The metric, given what is added to the stream at the start and before each MLP.
  at::Tensor metric(const at::Tensor& x, Layer before_mlp = Layer{-1}, const at::Tensor& here = {}) const {
    auto stream = x;
    for (std::int32_t l = 0; l < s.model.config().n_layers; ++l) {
      stream = stream.add(frozen.attn_through(Layer{l}, stream));
      stream = stream.add(mlp(Layer{l}, l == before_mlp.value ? stream.add(here) : stream));
    }
    return s.metric.per_prompt(frozen.unembed(stream).unsqueeze(0)).sum();
  }
};

}  // namespace

TEMPLATE_TEST_CASE("RelP's gradient is that of a model linear in scales, patterns and activations", "", Gpt2, Llama) {
  const Setup<TestType> s;
  const Linear<TestType> linear{s};
  const c10::AutoGradMode with_gradient{true};
  const auto x = linear.frozen.embed.detach().requires_grad_(true);
  const auto expected = gradient_of(linear.metric(x), {x}).front();

  const StartFrom leaf{};
  typename gradient_rule::Relp::For<TestType> rule;
  auto recorder = record<hook::resid_pre>();
  const auto value = mean(s.metric, s.model.forward(s.clean, leaf, rule, recorder));
  const auto start = recorder.cache().template get<hook::resid_pre>(Layer{0});
  const auto found = gradient_of(value, {start}).front();
  REQUIRE_CLOSE(found[0], expected, 1e-10);
  REQUIRE(value.template item<double>() ==
          Approx(s.metric.per_prompt(s.model.run(s.clean).logits).template item<double>()).epsilon(1e-12));

  typename gradient_rule::Exact::For<TestType> exact;
  auto plain = record<hook::resid_pre>();
  const auto same = mean(s.metric, s.model.forward(s.clean, leaf, exact, plain));
  const auto model_gradient = gradient_of(same, {plain.cache().template get<hook::resid_pre>(Layer{0})}).front();
  REQUIRE(found.sub(model_gradient).abs().max().template item<double>() > 0.01);
}

TEMPLATE_TEST_CASE("edge attribution patching takes the rule: nothing through queries and keys, MLPs by RelP", "", Gpt2,
                   Llama) {
  const Setup<TestType> s;
  const Linear<TestType> linear{s};
  const EdgeAttributionPatching search{.rule = gradient_rule::Relp{}};
  const auto scores = search.scores(s.model, {s.clean, s.corrupt}, s.metric);
  const auto c = Components::of(s.model);
  const auto change = sender_writes(s.model, s.clean).sub(sender_writes(s.model, s.corrupt)).flatten(1);
  const c10::AutoGradMode with_gradient{true};
  for (std::int32_t l = 0; l < s.model.config().n_layers; ++l) {
    const Layer layer{l};
    REQUIRE(scores.narrow(1, c.first_query(layer), c.n_heads).abs().max().template item<double>() == 0);
    REQUIRE(scores.narrow(1, c.first_key(layer), c.n_heads).abs().max().template item<double>() == 0);
    const auto here = at::zeros_like(linear.frozen.embed).requires_grad_(true);
    const auto g = gradient_of(linear.metric(linear.frozen.embed.detach(), layer, here), {here}).front();
    const auto receiver = c.mlp_in(layer);
    const auto before = c.before(receiver);
    REQUIRE_CLOSE(scores.select(1, receiver).narrow(0, 0, before), change.narrow(0, 0, before).matmul(g.flatten()),
                  1e-9);
  }
}

TEST_CASE("nodes of components and of features take the rule") {
  const Setup<Gpt2> s;
  const Linear<Gpt2> linear{s};
  const c10::AutoGradMode with_gradient{true};
  const auto x = linear.frozen.embed.detach().requires_grad_(true);
  const auto g = gradient_of(linear.metric(x), {x}).front();
  const auto change = sender_writes(s.model, s.clean)[0].sub(sender_writes(s.model, s.corrupt)[0])[0];
  const auto scores = AttributionPatchingBy<gradient_rule::Relp>{}.scores(s.model, {s.clean, s.corrupt}, s.metric);
  REQUIRE(scores[0].item<double>() == Approx(g.mul(change).sum().item<double>()).epsilon(1e-9));

  // Layer 1 is the last, so an MLP feature there reaches the metric through frozen scales alone, as without the rule.
  const auto of = [&]<class Rule>(Rule) {
    return node_attributions<Rule>(s.model, s.set, s.clean, s.corrupt, s.metric);
  };
  const auto by_relp = of(gradient_rule::Relp{});
  const auto by_model = of(final_norm::Frozen{});
  REQUIRE(by_relp.size() == by_model.size());
  double gap = 0;
  for (std::size_t i = 0; i < by_relp.size(); ++i) {
    REQUIRE(by_relp[i].node == by_model[i].node);
    const bool last = by_relp[i].node.kind == NodeKind::mlp_feature && by_relp[i].node.layer == Layer{1};
    if (last) REQUIRE(by_relp[i].attribution == Approx(by_model[i].attribution).epsilon(1e-9));
    gap = std::max(gap, std::abs(by_relp[i].attribution - by_model[i].attribution));
  }
  REQUIRE(gap > 0.001);
}
