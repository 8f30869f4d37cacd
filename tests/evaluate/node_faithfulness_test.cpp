#include "circuit/evaluate/node_faithfulness.hpp"

#include <set>

#include "circuit/data/by_role.hpp"
#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/graph/moved.hpp"
#include "circuit/intervene/patch_units.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

struct FaithfulnessSetting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(11);
  DictionarySet dictionaries = random_model::dictionaries(model.config(), 12);
  PromptPair prompts{random_model::Source{13}.tokens(3, 6, model.config().d_vocab),
                     random_model::Source{14}.tokens(3, 6, model.config().d_vocab)};
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}, {7}}, {{4}, {1}, {2}}};

  [[nodiscard]] double metric_of(const at::Tensor& logits) const { return mean(metric, logits).item<double>(); }
  [[nodiscard]] NodeEvaluation<Gpt2, DictionarySet, LogitDifference> judge(
      ErrorsOutside errors = ErrorsOutside::corrupt) const {
    return {model, dictionaries, prompts, metric, errors};
  }
};

}  // namespace

TEST_CASE("the empty circuit is the corrupt run, and the circuit of every node the clean one") {
  const FaithfulnessSetting s;
  const auto judge = s.judge();
  REQUIRE(judge.range().full == Approx(s.metric_of(s.model.run(s.prompts.clean).logits)).margin(1e-12));
  REQUIRE(judge.range().empty == Approx(s.metric_of(s.model.run(s.prompts.corrupt).logits)).margin(1e-10));
  REQUIRE(std::abs(judge.range().full - judge.range().empty) > 0.01);

  const auto all = ranked_by_change(judge.changes());
  const auto count = static_cast<std::int64_t>(all.size());
  const auto curve = judge.curve(all, std::vector<std::int64_t>{0, count / 2, count, count + 5});
  REQUIRE(curve.front().faithfulness == Approx(0).margin(1e-10));
  REQUIRE(curve[2].faithfulness == Approx(1).margin(1e-9));
  REQUIRE(curve[2].share_of_nodes == 1);
  REQUIRE(curve[3].nodes == count);
  REQUIRE(std::abs(curve[1].faithfulness - 1) > 1e-4);
}

TEST_CASE("the rest of a circuit is the circuit of all other nodes") {
  const FaithfulnessSetting s;
  const auto judge = s.judge();
  const auto all = ranked_by_change(judge.changes());
  REQUIRE(judge.faithfulness_of_rest(all) == Approx(0).margin(1e-10));
  REQUIRE(judge.faithfulness_of_rest({}) == Approx(1).margin(1e-9));
  const auto half = static_cast<std::ptrdiff_t>(all.size() / 2);
  const std::vector<Node> first{all.begin(), all.begin() + half};
  const std::vector<Node> second{all.begin() + half, all.end()};
  REQUIRE(judge.faithfulness_of_rest(first) == Approx(judge.faithfulness(second)).margin(1e-12));
  REQUIRE(std::abs(judge.faithfulness(first) - judge.faithfulness(second)) > 1e-4);
}

TEST_CASE("with all errors kept, the empty circuit is the corrupt dictionaries' output and the clean errors") {
  const FaithfulnessSetting s;
  const auto errors = error_terms(s.dictionaries, s.model.run(s.prompts.clean, record_modules()).cache);
  const auto corrupt = s.model.run(s.prompts.corrupt, record_modules()).cache;
  const auto output = [&](Module module, Layer l) {
    return reconstruct(s.dictionaries, module, l, input_of(s.dictionaries, corrupt, module, l))
        .add(errors.get(module, l));
  };
  const auto logits =
      s.model
          .run(
              s.prompts.corrupt,
              edit<hook::attn::z>([&](const at::Tensor& z, Layer l) { return output(Module::attn, l).view(z.sizes()); },
                                  {.layers = {Layer{0}}}),
              edit<hook::attn_out>([&](const at::Tensor&, Layer l) { return output(Module::attn, l); },
                                   {.layers = {Layer{1}}}),
              edit<hook::mlp_out>([&](const at::Tensor&, Layer l) { return output(Module::mlp, l); }))
          .logits;
  const auto judge = s.judge(ErrorsOutside::clean);
  REQUIRE(judge.range().empty == Approx(s.metric_of(logits)).margin(1e-10));
  REQUIRE(std::abs(judge.range().empty - s.judge().range().empty) > 1e-6);
  REQUIRE(judge.curve(ranked_by_change(judge.changes()), std::vector<std::int64_t>{1 << 20}).front().faithfulness ==
          Approx(1).margin(1e-9));
}

TEST_CASE("what differs between clean and corrupt prompts is what nodes are counted among") {
  const FaithfulnessSetting s;
  auto prompts = s.prompts;
  prompts.corrupt = prompts.clean.clone();
  prompts.corrupt.select(1, 4).copy_(s.prompts.corrupt.select(1, 4));  // nothing before position 4 differs
  const NodeEvaluation judge{s.model, s.dictionaries, prompts, s.metric};
  std::set<Node> nodes;
  double before = judge.changes().front().change;
  for (const auto& [node, change] : judge.changes()) {
    REQUIRE(node.position >= Position{4});
    REQUIRE(change > 0);
    REQUIRE(change <= before);
    REQUIRE(nodes.insert(node).second);
    before = change;
  }
  REQUIRE(nodes.contains(Node::embedding(Position{4})));
  REQUIRE(!nodes.contains(Node::embedding(Position{5})));
  REQUIRE(nodes.contains(Node::mlp_error(Layer{1}, Position{5})));

  const auto drawn = drawn_at_random(judge.changes(), 1);
  REQUIRE(std::set<Node>{drawn.begin(), drawn.end()} == nodes);
  REQUIRE(drawn == drawn_at_random(judge.changes(), 1));
  REQUIRE(drawn != drawn_at_random(judge.changes(), 2));
}

TEST_CASE("a search's nodes come by the size of what they give the metric") {
  const FaithfulnessSetting s;
  const auto found = Leap{.keep = keep::Above{.threshold = 1e-3}}(s.model, s.dictionaries,
                                                                  {s.prompts.clean, s.prompts.corrupt}, s.metric);
  const auto ranked = ranked_by_attribution(found);
  REQUIRE(ranked.size() + 1 == found.node_count());  // all but the metric
  double before = std::abs(found.graph()[found.vertex(ranked.front())].attribution);
  for (const auto& node : ranked) {
    const auto size = std::abs(found.graph()[found.vertex(node)].attribution);
    REQUIRE(size <= before);
    before = size;
  }
}

TEST_CASE("a model's own units are judged as patching them does, and have no errors") {
  const FaithfulnessSetting s;
  const auto check = [&]<class A>(A) {
    auto weights = random_model::make<A>(15).weights();
    if (!A::Norm::centers) {  // as Llamas are
      for (auto& block : weights.blocks) block.mlp.b_gate = block.mlp.b_in = block.mlp.b_out = at::Tensor{};
    }
    const HookedTransformer<A> model{random_model::make<A>(15).config(), weights};
    const NeuronBasis basis{model};
    const NodeEvaluation judge{model, basis, s.prompts, s.metric};
    const auto corrupt = model.run(s.prompts.corrupt, record<hook::attn::z, hook::mlp::post>());
    REQUIRE(judge.range().empty == Approx(s.metric_of(corrupt.logits)).margin(1e-10));
    const auto all = ranked_by_change(judge.changes());
    for (const std::size_t every : {std::size_t{1}, std::size_t{3}}) {
      std::vector<Node> kept;
      UnitMask mask{model.config(), s.prompts.clean.size(1)};
      auto tokens = s.prompts.corrupt.clone();
      for (std::size_t i = 0; i < all.size(); i += every) {
        kept.push_back(all[i]);
        REQUIRE(!is_error(all[i].kind));
        if (is_embedding(all[i].kind)) {
          tokens.select(1, all[i].position.value).copy_(s.prompts.clean.select(1, all[i].position.value));
        } else {
          mask.choose(is_attention(all[i].kind), all[i].layer, all[i].position, all[i].feature);
        }
      }
      const auto logits = model.run(tokens, patch_units(mask.others(), corrupt.cache)).logits;
      REQUIRE_CLOSE(judge.per_prompt(kept), s.metric.per_prompt(logits), 1e-9);
    }
    REQUIRE(judge.metric_of(all) == Approx(judge.range().full).margin(1e-9));
    REQUIRE(std::abs(judge.range().full - judge.range().empty) > 0.01);
  };
  check(Gpt2{});
  check(Llama{});
}

TEST_CASE("a circuit moves by role to prompts of another order, where a model without places does the same with it") {
  // One layer without position embeddings: what the last position reads does not depend on the order before it.
  const auto whole = random_model::make<Gpt2>(11);
  auto config = whole.config();
  auto weights = whole.weights();
  config.n_layers = 1;
  weights.blocks.resize(1);
  weights.W_pos = make::zeros_like(weights.W_pos);
  const HookedTransformer<Gpt2> model{config, weights};
  const auto dictionaries = random_model::dictionaries(config, 12);
  const FaithfulnessSetting s;
  const ByRole::Roles roles{
      {"bos", Position{0}}, {"IO", Position{1}}, {"S1", Position{2}}, {"S2", Position{4}}, {"end", Position{5}}};
  const ByRole::Roles others{
      {"bos", Position{0}}, {"IO", Position{4}}, {"S1", Position{1}}, {"S2", Position{3}}, {"end", Position{5}}};
  const auto order =
      to_tokens(std::vector<std::vector<std::int32_t>>{{0, 2, 3, 4, 1, 5}})[0];  // from `roles` to `others`
  const PromptPair reordered{s.prompts.clean.index_select(1, order), s.prompts.corrupt.index_select(1, order)};

  const NodeEvaluation here{model, dictionaries, s.prompts, s.metric};
  const NodeEvaluation there{model, dictionaries, reordered, s.metric};
  const ByRole to{roles, others};
  std::vector<Node> kept{Node::embedding(Position{1}), Node::embedding(Position{4})};
  for (const auto& [node, change] : here.changes()) {
    if (node.position == Position{5} && node.kind != NodeKind::embedding) kept.push_back(node);
  }
  REQUIRE(kept.size() > 4);
  REQUIRE_CLOSE(there.per_prompt(moved(kept, to)), here.per_prompt(kept), 1e-12);
  REQUIRE_FALSE(difference(there.per_prompt(kept), here.per_prompt(kept), 1e-4).close);
  REQUIRE_THROWS_AS(moved(Node::embedding(Position{3}), to), NameError);
}

TEST_CASE("prompts that do not pair are refused") {
  const FaithfulnessSetting s;
  REQUIRE_THROWS_AS(
      (NodeEvaluation{s.model, s.dictionaries, {s.prompts.clean, s.prompts.clean.narrow(1, 0, 5)}, s.metric}),
      ShapeError);
}
