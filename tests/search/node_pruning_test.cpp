#include "circuit/search/node_pruning.hpp"

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/evaluate/node_faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

ContrastBatch random_batch(const ModelConfig& config, std::uint64_t seed, std::size_t size) {
  ContrastBatch batch;
  const auto rows = [&](std::uint64_t s) {
    const auto tokens = random_model::Source{s}.tokens(static_cast<std::int64_t>(size), 5, config.d_vocab).contiguous();
    std::vector<std::vector<TokenId>> out(size);
    for (std::size_t i = 0; i < size; ++i) {
      for (std::int64_t p = 0; p < 5; ++p) {
        out[i].push_back(static_cast<TokenId>(tokens[static_cast<std::int64_t>(i)][p].item<std::int64_t>()));
      }
    }
    return out;
  };
  batch.clean = rows(seed);
  batch.corrupt = rows(seed + 1);
  for (std::size_t i = 0; i < size; ++i) {
    batch.answers.push_back({static_cast<TokenId>(i)});
    batch.wrong_answers.push_back({static_cast<TokenId>(i + 4)});
  }
  return batch;
}

/// Transcoders with a skip path among them.
struct Pruned {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(31);
  DictionarySet set = [&] {
    auto out = random_model::dictionaries(model.config(), 32);
    auto mlp = SparseDictionary<>{*out.mlp(Layer{0}), {}};
    mlp.W_skip = random_model::Source{6}({mlp.d_in(), mlp.d_out()}, 0.3);
    out.set_mlp(Layer{0}, mlp);
    return out;
  }();
  std::vector<ContrastBatch> batches{random_batch(model.config(), 33, 3), random_batch(model.config(), 35, 3)};

  static LogitDifference metric_of(const ContrastBatch& batch) { return LogitDifference{batch}; }
};

}  // namespace

TEST_CASE("gates of 0 and 1 are a circuit as the evaluation runs it") {
  Pruned s;
  const auto kind = GENERATE(0, 1, 2);
  if (kind == 1) s.set = random_model::normalizing_dictionaries(s.model.config(), 32);
  if (kind == 2) s.set = random_model::other_sites(s.model.config(), 32);
  const auto& batch = s.batches[0];
  const auto metric = LogitDifference{batch};
  const auto prepared = detail::pruning_batch(s.model, s.set, batch, metric);
  const NodeEvaluation judge{s.model, s.set, batch, metric};
  auto gates = detail::no_gates(s.set, prepared.places, prepared.unkept_embedding);
  std::vector<Node> kept;
  for (std::size_t i = 0; i < judge.changes().size(); ++i) {
    if (i % 3 == 1) continue;
    kept.push_back(judge.changes()[i].node);
    gates.put(std::vector{NodeAttribution{kept.back(), 1}});
  }
  detail::GatedNodes<DictionarySet> run{s.set, prepared.places, gates, prepared.unkept_embedding};
  const auto gated = metric.per_prompt(s.model.forward(prepared.clean, run));
  REQUIRE_CLOSE(gated, judge.per_prompt(kept), 1e-9);
  REQUIRE(std::abs(gated.mean().item<double>() - judge.range().full) > 1e-3);
}

TEST_CASE("a walk of masks is the gradient by gates half open, at every place where dictionaries read") {
  const Pruned s;
  const auto set = random_model::other_sites(s.model.config(), 32);
  const auto& batch = s.batches[0];
  const auto metric = LogitDifference{batch};
  const auto prepared = detail::pruning_batch(s.model, set, batch, metric);
  const PromptPair pair = batch;
  const auto found = mask_attributions(s.model, set, pair.clean, pair.corrupt, metric, {.steps = 1});
  const c10::AutoGradMode with_gradient{true};
  std::vector<at::Tensor> leaves;
  auto gates = detail::no_gates(set, prepared.places, prepared.unkept_embedding);
  const auto half = gates.with([&](const at::Tensor& gate) {
    leaves.push_back(gate.add(0.5).detach().requires_grad_(true));
    return leaves.back();
  });
  detail::GatedNodes<DictionarySet> run{set, prepared.places, half, prepared.unkept_embedding};
  const auto gradients = gradient_of(mean(metric, s.model.forward(prepared.clean, run)), leaves);
  std::size_t next = 0;
  auto expected = gates.with([&](const at::Tensor&) { return gradients[next++]; });
  std::map<NodeKind, int> compared;
  for (const auto& [node, attribution] : found) {
    const auto [tensor, number] = expected.find(node);
    INFO(node);
    REQUIRE(attribution == Approx(tensor->reshape(-1)[number].item<double>()).epsilon(1e-9).margin(1e-12));
    ++compared[node.kind];
  }
  for (const auto kind : {NodeKind::embedding, NodeKind::attn_feature, NodeKind::mlp_feature, NodeKind::mlp_error,
                          NodeKind::resid_feature, NodeKind::resid_error}) {
    REQUIRE(compared[kind] > 3);
  }
}

TEST_CASE("pruning finds smaller faithful circuits than the ranking it starts from") {
  const Pruned s;
  const auto& batch = s.batches[0];
  const NodeEvaluation judge{s.model, s.set, batch, LogitDifference{batch}};
  const std::vector<ContrastBatch> one{batch};
  const auto off = [&](const std::vector<Node>& ranked) {
    const std::vector<std::int64_t> sizes{static_cast<std::int64_t>(judge.changes().size() / 10)};
    return std::abs(judge.curve(ranked, sizes).front().faithfulness - 1);
  };
  const auto masks = in_order(mask_attributions(s.model, s.set, one, Pruned::metric_of, {.steps = 6}));
  std::size_t rounds = 0;
  const auto prune = [&](double price) {
    std::size_t open = 0;
    const auto found =
        NodePruning{.steps = 150, .price = price}(s.model, s.set, one, Pruned::metric_of, [&](const RoundDone& done) {
          ++rounds;
          open = done.edges;
        });
    return std::pair{found, open};
  };
  const auto [found, open] = prune(3);
  REQUIRE(rounds == 150);
  REQUIRE(found.size() == masks.size());
  REQUIRE(off(in_order(found, ByValue{})) < off(masks));
  REQUIRE(open < found.size());
  REQUIRE(prune(30).second < open);
  const auto again = NodePruning{.steps = 3}(s.model, s.set, s.batches, Pruned::metric_of);
  const auto same = NodePruning{.steps = 3}(s.model, s.set, s.batches, Pruned::metric_of);
  for (std::size_t i = 0; i < again.size(); ++i) REQUIRE(again[i].attribution == same[i].attribution);
}

TEST_CASE("a number of nodes moves the price until so many gates are open") {
  const Pruned s;
  const std::vector<ContrastBatch> one{s.batches[0]};
  std::size_t open = 0;
  const auto count_open = [&](const RoundDone& done) { open = done.edges; };
  for (const std::size_t nodes : {std::size_t{30}, std::size_t{90}}) {
    const auto found = NodePruning{.steps = 400, .nodes = nodes}(s.model, s.set, one, Pruned::metric_of, count_open);
    REQUIRE(found.size() > 2 * nodes);
    REQUIRE(static_cast<double>(open) == Approx(static_cast<double>(nodes)).epsilon(0.25));
  }
}

TEST_CASE("pruning from a ranking of masks is what it does by itself; from a part of it, all else stays closed") {
  const Pruned s;
  const NodePruning search{.steps = 5};
  const auto masks = in_order(mask_attributions(s.model, s.set, s.batches, Pruned::metric_of, {.steps = 6}));
  const auto by_itself = search(s.model, s.set, s.batches, Pruned::metric_of);
  const auto from_masks = search.from(masks, s.model, s.set, s.batches, Pruned::metric_of);
  REQUIRE(from_masks.size() == by_itself.size());
  for (std::size_t i = 0; i < by_itself.size(); ++i) {
    REQUIRE(from_masks[i].node == by_itself[i].node);
    REQUIRE(from_masks[i].attribution == by_itself[i].attribution);
  }
  const auto some = std::span{masks}.first(20);
  const auto part = search.from(some, s.model, s.set, s.batches, Pruned::metric_of);
  REQUIRE(part.size() == 20);
  for (std::size_t i = 0; i < part.size(); ++i) REQUIRE(part[i].node == some[i]);
  REQUIRE_THROWS_AS(search.from({}, s.model, s.set, s.batches, Pruned::metric_of), ValueError);
  const auto begin_with = [&](const Node& node) {
    return search.from(std::vector{node}, s.model, s.set, s.batches, Pruned::metric_of);
  };
  const auto features = static_cast<std::int32_t>(s.set.mlp(Layer{0})->d_sae());
  REQUIRE_THROWS_AS(begin_with(Node::mlp_feature(Layer{0}, Position{0}, Feature{features})), IndexError);
  REQUIRE_THROWS_AS(begin_with(Node::mlp_feature(Layer{0}, Position{99}, Feature{0})), IndexError);
  REQUIRE_THROWS_AS(begin_with(Node::embedding(Position{99})), IndexError);
  REQUIRE_THROWS_AS(begin_with(Node::mlp_feature(Layer{9}, Position{0}, Feature{0})), NameError);
  REQUIRE_THROWS_AS(begin_with(Node::attn_output(Layer{0}, Position{0})), NameError);
  REQUIRE_THROWS_AS(begin_with(Node::metric()), NameError);
}

TEST_CASE("gates of a model's own units pass their gradients on through one another") {
  const auto check = []<class A>(A) {
    const auto model = random_model::make<A>(41);
    const NeuronBasis basis{model};
    const auto batch = random_batch(model.config(), 43, 3);
    const auto metric = LogitDifference{batch};
    const auto prepared = detail::pruning_batch(model, basis, batch, metric);
    const NodeEvaluation judge{model, basis, batch, metric};
    auto gates = detail::no_gates(basis, prepared.places, prepared.unkept_embedding);
    std::vector<NodeAttribution> half;
    std::vector<Node> kept;
    for (std::size_t i = 0; i < judge.changes().size(); ++i) {
      const auto node = judge.changes()[i].node;
      half.push_back({node, i % 3 == 1 ? 0.0 : 1.0});
      if (i % 3 != 1) kept.push_back(node);
    }
    gates.put(half);
    detail::GatedNodes run{basis, prepared.places, gates, prepared.unkept_embedding};
    REQUIRE_CLOSE(metric.per_prompt(model.forward(prepared.clean, run)), judge.per_prompt(kept), 1e-9);

    const auto misfit = [&](const Node& node, double value) {
      auto moved = gates.with([](const at::Tensor& g) { return g.clone(); });
      moved.put(std::vector{NodeAttribution{node, value}});
      return prepared.misfit(model, basis, moved).template item<double>();
    };
    std::vector<at::Tensor> leaves;
    auto taped = gates.with([&](const at::Tensor& g) {
      leaves.push_back(g.detach().requires_grad_(true));
      return leaves.back();
    });
    const c10::AutoGradMode with_gradient{true};
    const auto gradients = gradient_of(prepared.misfit(model, basis, taped), leaves);
    std::map<at::Tensor*, std::size_t> number;
    for (auto& [key, tensor] : taped.modules) number.emplace(&tensor, number.size());
    const c10::AutoGradMode no_gradient{false};
    double largest = 0;
    for (std::size_t i = 0; i < half.size(); i += half.size() / 12) {
      const auto& [node, value] = half[i];
      if (node.kind == NodeKind::embedding) continue;
      const double step = 1e-5;
      const auto expected = (misfit(node, value + step) - misfit(node, value - step)) / (2 * step);
      const auto [tensor, at] = taped.find(node);
      INFO(node);
      REQUIRE(gradients[number.at(tensor)].flatten()[at].template item<double>() ==
              Approx(expected).epsilon(1e-5).margin(1e-9));
      largest = std::max(largest, std::abs(expected));
    }
    REQUIRE(largest > 1e-4);
  };
  check(Gpt2{});
  check(Llama{});
}

TEST_CASE("masks of batches are those of all their prompts") {
  const Pruned s;
  auto both = s.batches[0];
  for (const auto part :
       {&ContrastBatch::clean, &ContrastBatch::corrupt, &ContrastBatch::answers, &ContrastBatch::wrong_answers}) {
    (both.*part).insert((both.*part).end(), (s.batches[1].*part).begin(), (s.batches[1].*part).end());
  }
  const PromptPair pair = both;
  std::map<Node, double> expected;
  for (const auto& each : mask_attributions(s.model, s.set, pair.clean, pair.corrupt, LogitDifference{both})) {
    expected[each.node] = each.attribution;
  }
  const auto found = mask_attributions(s.model, s.set, s.batches, Pruned::metric_of);
  REQUIRE(found.size() == expected.size());
  for (const auto& each : found) {
    INFO(each.node);
    REQUIRE(each.attribution == Approx(expected.at(each.node)).epsilon(1e-9).margin(1e-12));
  }
}

TEST_CASE("bad settings of node pruning are one clear error") {
  const Pruned s;
  const std::vector<ContrastBatch> none;
  REQUIRE_THROWS_AS((NodePruning{.steps = 0}(s.model, s.set, s.batches, Pruned::metric_of)), ValueError);
  REQUIRE_THROWS_AS((NodePruning{}(s.model, s.set, none, Pruned::metric_of)), ValueError);
  std::stop_source stopped;
  stopped.request_stop();
  REQUIRE_THROWS_AS((NodePruning{.stop = stopped.get_token()}(s.model, s.set, s.batches, Pruned::metric_of)),
                    Cancelled);
  const auto across = random_model::cross_layer_dictionaries(s.model.config(), 28);
  REQUIRE_THROWS_AS((NodePruning{}(s.model, across, s.batches, Pruned::metric_of)), ConfigError);
}
