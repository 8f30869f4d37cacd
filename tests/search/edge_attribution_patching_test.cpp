#include "circuit/search/edge_attribution_patching.hpp"

#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/keep/above.hpp"
#include "circuit/search/keep/any_rule.hpp"
#include "circuit/search/keep/prompts.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/node_patching.hpp"
#include "random_model.hpp"

using namespace circuit;

namespace {

PromptPair prompts(std::int64_t vocabulary) {
  return {random_model::Source{9}.tokens(3, 5, vocabulary), random_model::Source{10}.tokens(3, 5, vocabulary)};
}

LogitDifference difference() {
  const std::vector<std::int64_t> right{3, 5, 7};
  const std::vector<std::int64_t> wrong{4, 1, 0};
  return LogitDifference{std::span{right}, std::span{wrong}};
}

/// Gradient by what one head's (or one group's) weights read, from the gradient at what they make in a run that splits
/// nothing, through the norm by autograd.
template <class A>
at::Tensor gradient_through(const at::Tensor& grad, const at::Tensor& stream, const NormWeights& norm, double eps,
                            const at::Tensor& W) {
  const c10::AutoGradMode gradient{true};
  const auto x = stream.detach().requires_grad_(true);
  const auto read = A::Norm::output(A::Norm::normalized(x, A::Norm::scale(x, eps), norm), norm);
  return gradient_of(read.matmul(W).mul(grad).sum(), {x}).front();
}

double dot(const at::Tensor& a, const at::Tensor& b) { return a.mul(b).sum().item<double>(); }

}  // namespace

TEMPLATE_TEST_CASE("splitting what heads and MLPs read changes nothing that the model says", "", Gpt2, Llama, GptNeox,
                   Gemma2, Plain, AttentionOnly, random_model::MixedParts) {
  const auto model = random_model::make<TestType>(7);
  const auto tokens = prompts(model.config().d_vocab).clean;
  ReceiverRecorder recorder{model.config().n_layers};
  REQUIRE_CLOSE(model.run(tokens, recorder).logits, model.run(tokens).logits, 1e-13);
  std::int64_t receivers = 0;
  recorder.read().for_each([&](std::int64_t, const at::Tensor& rows) { receivers += rows.size(0); });
  REQUIRE(receivers == Components::of(model).receivers());
}

TEMPLATE_TEST_CASE("what the senders write adds up to the stream", "", Gpt2, Llama, GptNeox, Gemma2, Plain,
                   AttentionOnly, random_model::MixedParts) {
  const auto model = random_model::make<TestType>(7);
  const auto tokens = prompts(model.config().d_vocab).clean;
  auto sum = sender_writes(model, tokens).sum(0);
  for (const auto& block : model.weights().blocks) {
    const auto& constant = TestType::Wiring::post_norms ? block.ln1_post.bias : block.attn.b_O;
    if (constant.defined()) sum = sum.add(constant);
  }
  const Layer last{static_cast<std::int32_t>(model.config().n_layers - 1)};
  REQUIRE_CLOSE(sum, model.run(tokens, record<hook::resid_post>()).cache.template get<hook::resid_post>(last), 1e-12);
}

TEMPLATE_TEST_CASE("edge scores are products with gradients taken in a run that splits nothing", "", Gpt2, Llama,
                   GptNeox, Gemma2, Plain) {
  const auto model = random_model::make<TestType>(7);
  const auto pair = prompts(model.config().d_vocab);
  const auto c = Components::of(model);
  const auto scores = Eap{}.scores(model, pair, difference());
  const auto change = sender_writes(model, pair.clean).sub(sender_writes(model, pair.corrupt));

  const c10::AutoGradMode gradient{true};
  auto recorder = record<hook::attn::q, hook::attn::k, hook::attn::v, hook::mlp::pre, hook::mlp::pre_linear,
                         hook::resid_pre, hook::resid_mid, hook::resid_post>();
  const StartFrom leaf{};
  const auto value = mean(difference(), model.forward(pair.clean, leaf, recorder));
  const auto grads = gradients_at(value, recorder.cache());
  const auto& run = recorder.cache();
  const auto& config = model.config();
  const auto e = config.d_head;
  const auto group = config.group_size();
  std::size_t compared = 0;
  const auto compare = [&](const at::Tensor& g, std::int64_t before, std::int64_t receiver, std::int64_t many) {
    for (std::int64_t s = 0; s < c.senders(); ++s) {
      INFO(sender_node(c, s) << " to " << receiver_of(c, receiver).node << " by " << receiver_of(c, receiver).type);
      const auto got = scores[s].narrow(0, receiver, many).sum().template item<double>();
      REQUIRE(got == Approx(s < before ? dot(change[s], g) : 0.0).epsilon(1e-9).margin(1e-12));
      ++compared;
    }
  };
  for (std::int32_t l = 0; l < config.n_layers; ++l) {
    const Layer layer{l};
    const auto& w = model.weights().blocks[static_cast<std::size_t>(l)];
    const auto& pre = run.template get<hook::resid_pre>(layer);
    const auto read = [&](const at::Tensor& g, std::int64_t head, const NormWeights& norm, const at::Tensor& W) {
      return gradient_through<TestType>(g.select(2, head), pre, norm, config.norm_eps, W.narrow(1, head * e, e));
    };
    for (std::int64_t h = 0; h < config.n_heads; ++h) {
      const auto g = read(grads.template get<hook::attn::q>(layer), h, w.ln1, w.attn.W_Q);
      compare(g, c.before_attention(layer), c.first_query(layer) + h, 1);
    }
    // Query heads share keys and values, whose gradients are the sums over those that do.
    for (std::int64_t h = 0; h < config.n_key_value_heads; ++h) {
      const auto k = read(grads.template get<hook::attn::k>(layer), h, w.ln1, w.attn.W_K);
      const auto v = read(grads.template get<hook::attn::v>(layer), h, w.ln1, w.attn.W_V);
      compare(k, c.before_attention(layer), c.first_key(layer) + h * group, group);
      compare(v, c.before_attention(layer), c.first_value(layer) + h * group, group);
    }
    const auto& mlp_reads = TestType::Wiring::parallel ? pre : run.template get<hook::resid_mid>(layer);
    using Mlp = typename TestType::Mlp;
    auto g = gradient_through<TestType>(grads.template get<hook::mlp::pre>(layer), mlp_reads, w.ln2, config.norm_eps,
                                        Mlp::gated ? w.mlp.W_gate : w.mlp.W_in);
    if constexpr (Mlp::gated) {
      g = g.add(gradient_through<TestType>(grads.template get<hook::mlp::pre_linear>(layer), mlp_reads, w.ln2,
                                           config.norm_eps, w.mlp.W_in));
    }
    compare(g, c.before_mlp(layer), c.mlp_in(layer), 1);
  }
  const Layer last{static_cast<std::int32_t>(config.n_layers - 1)};
  compare(grads.template get<hook::resid_post>(last), c.senders(), c.logits(), 1);
  REQUIRE(compared > 200);
}

TEMPLATE_TEST_CASE("all that a component sends makes up its attribution as a node", "", Gpt2, Llama, GptNeox,
                   AttentionOnly) {
  const auto model = random_model::make<TestType>(7);
  const auto pair = prompts(model.config().d_vocab);
  REQUIRE_CLOSE(Eap{}.scores(model, pair, difference()).sum(1), AttributionPatching{}.scores(model, pair, difference()),
                1e-11);
}

TEMPLATE_TEST_CASE("integrated over the inputs, all edges from the input sum to what corruption takes away", "", Gpt2,
                   Llama, GptNeox) {
  const auto model = random_model::make<TestType>(7);
  const auto pair = prompts(model.config().d_vocab);
  const auto taken = mean(difference(), model.run(pair.clean).logits).template item<double>() -
                     mean(difference(), model.run(pair.corrupt).logits).template item<double>();
  const auto gap = [&](std::int64_t steps) {
    const EapIgInputs search{.path = {.steps = steps, .offset = 0.5}};
    return std::abs(search.scores(model, pair, difference())[0].sum().template item<double>() - taken);
  };
  const auto coarse = gap(100);
  const auto fine = gap(400);
  CAPTURE(coarse, fine, taken);
  REQUIRE(fine < 1e-3);
  REQUIRE(fine < coarse / 8);  // the midpoint rule's error falls with the square of the steps: 16
}

TEST_CASE("paths end where they say") {
  const auto model = random_model::make<Gpt2>(7);
  const auto pair = prompts(model.config().d_vocab);
  const auto at_clean = Eap{}.scores(model, pair, difference());
  const auto right = EapIgInputs{.path = {.steps = 1, .offset = 1.0}}.scores(model, pair, difference());
  REQUIRE_CLOSE(right, at_clean, 1e-12);
  const auto left = EapIgInputs{.path = {.steps = 1, .offset = 0.0}}.scores(model, pair, difference());
  const auto both = EdgeAttributionPatching<path::CleanCorrupt>{}.scores(model, pair, difference());
  REQUIRE_CLOSE(both, left.add(right).div(2), 1e-12);
  // At the clean end nothing is moved, but gradients stop at one module at a time.
  const auto c = Components::of(model);
  const auto stopped = EapIgActivations{.path = {.steps = 1, .offset = 1.0}}.scores(model, pair, difference());
  REQUIRE_CLOSE(stopped.select(1, c.logits()), at_clean.select(1, c.logits()), 1e-12);
  REQUIRE_FALSE(difference(stopped, at_clean, 1e-3).close);
}

TEMPLATE_TEST_CASE("activation patching is what an edit of that output does", "", Gpt2, Llama, GptNeox, Gemma2) {
  const auto model = random_model::make<TestType>(7);
  const auto pair = prompts(model.config().d_vocab);
  const auto c = Components::of(model);
  const auto corrupt = model.run(pair.corrupt, record<hook::resid_pre, hook::attn::z, hook::mlp_out>()).cache;
  const auto value = [&](const at::Tensor& logits) { return mean(difference(), logits).template item<double>(); };
  const auto clean = value(model.run(pair.clean).logits);
  const auto scores = ActivationPatching{}.scores(model, pair, difference());
  const auto check = [&](std::int64_t sender, auto edit) {
    INFO(sender_node(c, sender));
    REQUIRE(scores[sender].template item<double>() ==
            Approx(clean - value(model.run(pair.clean, edit).logits)).margin(1e-11));
  };
  REQUIRE(scores[0].template item<double>() == Approx(clean - value(model.run(pair.corrupt).logits)).margin(1e-11));
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    for (std::int32_t h = 0; h < model.config().n_heads; ++h) {
      check(c.first_head(Layer{l}) + h,
            edit<hook::attn::z>([&](const at::Tensor&,
                                    Layer layer) { return corrupt.template get<hook::attn::z>(layer).narrow(2, h, 1); },
                                {.layers = {Layer{l}}, .heads = {Head{h}}}));
    }
    check(c.mlp(Layer{l}), edit<hook::mlp_out>([&](const at::Tensor&,
                                                   Layer layer) { return corrupt.template get<hook::mlp_out>(layer); },
                                               {.layers = {Layer{l}}}));
  }
}

TEST_CASE("a search keeps what its rule keeps, as a circuit that gives its edges back") {
  const auto model = random_model::make<Llama>(7);
  const auto pair = prompts(model.config().d_vocab);
  const auto c = Components::of(model);
  const auto scores = Eap{}.scores(model, pair, difference());
  const Eap search{.keep = {.threshold = 0.05}};
  const auto found = search(model, pair, difference());
  const auto mask = edge_mask(c, found);
  REQUIRE(mask.equal(scores.abs().gt(0.05)));
  REQUIRE(found.edge_count() > 10);
  REQUIRE(found.edge_count() < static_cast<std::size_t>(c.edges()));
  for (const auto& [up, down, edge] : found.edges()) {
    const auto score = scores[sender_index(c, up)][receiver_index(c, down, edge.type)].item<double>();
    REQUIRE(edge.em_attrib == score);
    REQUIRE(found.bundle(up).attribution == Approx(scores[sender_index(c, up)].sum().item<double>()));
  }
  const auto all = component_circuit(c, scores, c.edge_mask());
  REQUIRE(all.edge_count() == static_cast<std::size_t>(c.edges()));
  REQUIRE(edge_mask(c, all).equal(c.edge_mask()));
  REQUIRE(all.bundle(Node::metric()).nodegrad == 1.0);
  REQUIRE(top_edges(scores, 17).sum().item<std::int64_t>() == 17);
  const auto two_per_target = keep_edges(c, scores, keep::TopPerTarget{2});
  for (std::int64_t r = 0; r < c.receivers(); ++r) {
    REQUIRE(two_per_target.select(1, r).sum().item<std::int64_t>() == std::min<std::int64_t>(2, c.before(r)));
  }
}

TEST_CASE("a rule that counts prompts is refused where edges have one score for all of them") {
  const auto model = random_model::make<Gpt2>(7);
  const auto c = Components::of(model);
  const auto scores = at::zeros({c.senders(), c.receivers()}, at::kDouble);
  REQUIRE_THROWS_AS(keep_edges(c, scores, keep::AnyRule{keep::AnyPrompt{}}), ConfigError);
  REQUIRE(keep_edges(c, scores, keep::AnyRule{keep::Above{}}).sum().item<std::int64_t>() == 0);
}

TEST_CASE("every component has its own name and finds its place again") {
  const auto model = random_model::make<AttentionOnly>(7);
  for (const Components c : {Components{2, 4, true, false}, Components{3, 2, true, true}, Components::of(model)}) {
    for (std::int64_t s = 0; s < c.senders(); ++s) REQUIRE(sender_index(c, sender_node(c, s)) == s);
    for (std::int64_t r = 0; r < c.receivers(); ++r) {
      const auto [node, type] = receiver_of(c, r);
      REQUIRE(reads_by(node.kind, type));
      REQUIRE(receiver_index(c, node, type) == r);
    }
    REQUIRE(c.edge_mask().sum().item<std::int64_t>() == c.edges());
  }
  REQUIRE(Components{12, 12, true, false}.edges() == 32491);  // GPT-2 small, as published
}

TEST_CASE("what is not a component of the model is refused by name") {
  const Components c{2, 4, true, false};
  const Components without{2, 4, false, false};
  REQUIRE_THROWS_AS(sender_index(c, Node::head(Layer{2}, Head{0})), NameError);
  REQUIRE_THROWS_AS(sender_index(c, Node::head(Layer{1}, Head{4})), NameError);
  REQUIRE_THROWS_AS(sender_index(c, Node::embedding(Position{0})), NameError);
  REQUIRE_THROWS_AS(sender_index(without, Node::mlp_block(Layer{0})), NameError);
  REQUIRE_THROWS_AS(receiver_index(c, Node::input(), EdgeType::mlp), NameError);
  REQUIRE_THROWS_AS(edge_mask(c,
                              [] {
                                Circuit circuit;
                                circuit.add_node({.node = Node::input()});
                                circuit.add_node({.node = Node::head(Layer{7}, Head{0})});
                                circuit.add_edge(Node::input(), Node::head(Layer{7}, Head{0}), {.type = EdgeType::q});
                                return circuit;
                              }()),
                    NameError);
}

TEST_CASE("prompts and matrices of the wrong shape are refused") {
  const auto model = random_model::make<Gpt2>(7);
  auto pair = prompts(model.config().d_vocab);
  pair.corrupt = pair.corrupt.narrow(1, 0, 4);
  REQUIRE_THROWS_AS(Eap{}.scores(model, pair, difference()), ShapeError);
  REQUIRE_THROWS_AS(ActivationPatching{}.scores(model, pair, difference()), ShapeError);
  const auto good = prompts(model.config().d_vocab);
  REQUIRE_THROWS_AS(EdgeAttributionPatching{path::Inputs{.steps = 0}}.scores(model, good, difference()), ValueError);
  REQUIRE_THROWS_AS(EdgeAttributionPatching{path::Activations{.steps = 0}}.scores(model, good, difference()),
                    ValueError);
  const auto c = Components::of(model);
  REQUIRE_THROWS_AS(component_circuit(c, at::zeros({2, 3}, at::kDouble), c.edge_mask()), ShapeError);
  REQUIRE_THROWS_AS(
      component_circuit(c, at::full({c.senders(), c.receivers()}, std::nan(""), at::kDouble), c.edge_mask()),
      ValueError);
}
