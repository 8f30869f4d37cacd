#include "circuit/evaluate/attention_terms.hpp"

#include <algorithm>
#include <cmath>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

template <class A>
struct TermsSetup {
  HookedTransformer<A> model = random_model::make<A>(37);
  DictionarySet set = random_model::dictionaries(model.config(), 38);
  at::Tensor tokens = random_model::Source{39}.tokens(1, 5, model.config().d_vocab);
  AttentionTerms<A, DictionarySet> terms{model, set, tokens};
};

}  // namespace

TEMPLATE_TEST_CASE("an ov edge is the sum of what its heads carry, each head's pattern alone", "", Gpt2, Llama, GptNeox,
                   Gemma2) {
  const TermsSetup<TestType> s;
  const LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}}, {{4}}};
  const auto found = Leap{.keep = keep::All{}, .contrast = contrast::None{}, .targets = targets::AllActive{}}(
      s.model, s.set, {s.tokens, {}}, metric);
  int checked = 0;
  double spread = 0;
  for (const auto& e : found.edges()) {
    if (e.edge.type != EdgeType::ov || ++checked % 7 != 0) continue;
    const auto heads = s.terms.by_head(e.up, e.down);
    INFO(e.up << " -> " << e.down);
    REQUIRE(heads.size(0) == s.model.config().n_heads);
    REQUIRE(heads.sum().template item<double>() == Approx(e.edge.nn_attrib).epsilon(1e-9).margin(1e-11));
    spread = std::max(spread, heads.abs().max().template item<double>() - std::abs(e.edge.nn_attrib));
  }
  REQUIRE(checked > 100);
  REQUIRE(spread > 0.001);  // heads that pull against each other
}

TEST_CASE("heads and pairs of nodes add up wherever dictionaries read, and where they normalise that") {
  const auto model = random_model::make<Gpt2>(37);
  const auto kind = GENERATE(0, 1, 2);
  const auto set = kind == 0   ? random_model::normalizing_dictionaries(model.config(), 38, /*skips=*/false)
                   : kind == 1 ? random_model::other_sites(model.config(), 38)
                               : random_model::mlp_out_dictionaries(model.config(), 38);
  const auto tokens = random_model::Source{39}.tokens(1, 5, model.config().d_vocab);
  const AttentionTerms terms{model, set, tokens};
  const LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}}, {{4}}};
  const auto found = Leap{.keep = keep::All{}, .contrast = contrast::None{}, .targets = targets::AllActive{}}(
      model, set, {tokens, {}}, metric);
  int checked = 0;
  for (const auto& e : found.edges()) {
    if (e.edge.type != EdgeType::ov || ++checked % 7 != 0) continue;
    INFO(e.up << " -> " << e.down);
    REQUIRE(terms.by_head(e.up, e.down).sum().item<double>() == Approx(e.edge.nn_attrib).epsilon(1e-9).margin(1e-11));
  }
  REQUIRE(checked > (kind == 1 ? 20 : 100));  // an SAE of the stream stands for all before it
  const auto skips = random_model::normalizing_dictionaries(model.config(), 38);
  REQUIRE_THROWS_WITH((AttentionTerms{model, skips, tokens}), circuit_test::ContainsSubstring("skip paths"));
  const auto scores = model.run(tokens, record<hook::attn::attn_scores>()).cache.get<hook::attn::attn_scores>(Layer{1});
  REQUIRE(terms.pairs(Layer{1}, Head{1}, Position{4}, Position{2}).score() ==
          Approx(scores[0][1][4][2].item<double>()).epsilon(1e-9));
}

TEST_CASE("a head's share vanishes with its pattern") {
  const TermsSetup<Gpt2> s;
  const auto target = [&] {
    const auto z = s.model.run(s.tokens, record<hook::attn::z>()).cache.get<hook::attn::z>(Layer{0});
    const auto acts = s.set.encode_attn(Layer{0}, z.flatten(2))[0][4];
    return Node::attn_feature(Layer{0}, Position{4},
                              Feature{static_cast<std::int32_t>(acts.argmax().item<std::int64_t>())});
  }();
  // Head 1 takes nothing from anywhere, so the feature's pre-activation loses what the heads' shares say it gives.
  const auto pre = [&](const auto&... attachment) {
    const auto z =
        s.model.run(s.tokens, attachment..., record<hook::attn::z>()).cache.template get<hook::attn::z>(Layer{0});
    return s.set.attn(Layer{0})->pre_activations(z.flatten(2))[0][4][target.feature.value].template item<double>();
  };
  const auto without = pre(edit<hook::attn::pattern>([](const at::Tensor& p, Layer) { return p.mul(0); },
                                                     {.layers = {Layer{0}}, .heads = {Head{1}}}));
  double shares = 0;
  for (std::int32_t p = 0; p <= 4; ++p)
    shares += s.terms.by_head(Node::embedding(Position{p}), target)[1].item<double>();
  const auto& w = s.model.weights().blocks[0];
  auto value = w.attn.b_V;  // constants through the same head
  if (w.ln1.bias.defined()) value = value.add(w.ln1.bias.matmul(w.attn.W_V));
  const auto e = s.model.config().d_head;
  const auto reader = s.set.attn(Layer{0})->W_enc.select(1, target.feature.value).narrow(0, e, e);
  shares += value.narrow(0, e, e).dot(reader).item<double>();
  REQUIRE(pre() - without == Approx(shares).epsilon(1e-9));
}

TEMPLATE_TEST_CASE("pairs of nodes sum to the head's score", "", Gpt2, Llama, GptNeox, Gemma2) {
  const TermsSetup<TestType> s;
  const auto& config = s.model.config();
  for (std::int32_t l = 0; l < config.n_layers; ++l) {
    const auto scores = s.model.run(s.tokens, record<hook::attn::attn_scores>())
                            .cache.template get<hook::attn::attn_scores>(Layer{l})[0];
    for (std::int32_t h = 0; h < config.n_heads; ++h) {
      for (const auto& [q, k] : {std::pair{4, 3}, std::pair{3, 3}, std::pair{2, 1}}) {
        const auto pairs = s.terms.pairs(Layer{l}, Head{h}, Position{q}, Position{k});
        auto score = pairs.score();
        if (config.score_soft_cap > 0) score = config.score_soft_cap * std::tanh(score / config.score_soft_cap);
        INFO(l << ' ' << h << ' ' << q << ' ' << k);
        REQUIRE(score == Approx(scores[h][q][k].template item<double>()).epsilon(1e-9));
        REQUIRE(pairs.terms.size(0) == static_cast<std::int64_t>(pairs.query.size()) + 1);
      }
    }
  }
}

TEST_CASE("pairs of nodes are the same where queries and keys are views of half precision") {
  const random_model::HalfAndWidened<Llama> models{37};
  const auto& config = models.half.config();
  const auto set = random_model::dictionaries(config, 38, at::kFloat);
  const auto tokens = random_model::Source{39}.tokens(1, 5, config.d_vocab);
  const AttentionTerms half{models.half, set, tokens};
  const AttentionTerms widened{models.widened, set, tokens};
  for (std::int32_t h = 0; h < config.n_heads; ++h) {
    const auto pairs_of = [&](const auto& terms) {
      return terms.pairs(Layer{1}, Head{h}, Position{4}, Position{2}).terms;
    };
    REQUIRE_CLOSE(pairs_of(half), pairs_of(widened), 1e-5);
  }
}

TEST_CASE("a term is the score's second derivative by its two nodes") {
  // Both nodes scaled by hand: with the norm's scale held, the score is bilinear in what is written at query and key.
  const TermsSetup<Gpt2> s;
  const Layer layer{1};
  const auto pairs = s.terms.pairs(layer, Head{1}, Position{4}, Position{2});
  const auto cache = s.model.run(s.tokens, record<hook::mlp_out, hook::ln1::scale, hook::resid_pre>()).cache;
  const auto& w = s.model.weights().blocks[1];
  const auto score = [&](const at::Tensor& x_q, const at::Tensor& x_k) {
    const auto head = [&](const at::Tensor& x, std::int32_t p, const at::Tensor& W, const at::Tensor& b) {
      auto n = x.sub(x.mean()).div(cache.get<hook::ln1::scale>(layer)[0][p]);
      if (w.ln1.gain.defined()) n = n.mul(w.ln1.gain);
      if (w.ln1.bias.defined()) n = n.add(w.ln1.bias);
      const auto e = s.model.config().d_head;
      return n.matmul(W).add(b).narrow(0, e, e);
    };
    return head(x_q, 4, w.attn.W_Q, w.attn.b_Q)
        .dot(head(x_k, 2, w.attn.W_K, w.attn.b_K))
        .div(s.model.config().score_scale)
        .item<double>();
  };
  const auto feature = [&](std::int32_t p) {
    const auto x =
        s.model.run(s.tokens, record<hook::ln2::normalized>()).cache.get<hook::ln2::normalized>(Layer{0})[0][p];
    const auto acts = s.set.encode_mlp(Layer{0}, x);
    const auto f = acts.argmax().item<std::int64_t>();
    return std::pair{Node::mlp_feature(Layer{0}, Position{p}, Feature{static_cast<std::int32_t>(f)}),
                     s.set.mlp(Layer{0})->W_dec[f].mul(acts[f])};
  };
  const auto [node_q, write_q] = feature(4);
  const auto [node_k, write_k] = feature(2);
  const auto x_q = cache.get<hook::resid_pre>(layer)[0][4];
  const auto x_k = cache.get<hook::resid_pre>(layer)[0][2];
  const auto expected = score(x_q, x_k) - score(x_q.sub(write_q), x_k) - score(x_q, x_k.sub(write_k)) +
                        score(x_q.sub(write_q), x_k.sub(write_k));
  const auto row = std::find(pairs.query.begin(), pairs.query.end(), node_q) - pairs.query.begin();
  const auto column = std::find(pairs.key.begin(), pairs.key.end(), node_k) - pairs.key.begin();
  REQUIRE(pairs.terms[row][column].item<double>() == Approx(expected).epsilon(1e-8));
  REQUIRE(expected != 0);
}

TEST_CASE("what is no ov edge and what is not there are one clear error") {
  const TermsSetup<Gpt2> s;
  const auto target = Node::attn_feature(Layer{0}, Position{2}, Feature{1});
  REQUIRE_THROWS_AS(s.terms.by_head(Node::mlp_feature(Layer{0}, Position{1}, Feature{1}), target), ValueError);
  REQUIRE_THROWS_AS(s.terms.by_head(Node::embedding(Position{1}), Node::metric()), ValueError);
  REQUIRE_THROWS_AS(s.terms.by_head(Node::embedding(Position{9}), target), IndexError);
  REQUIRE_THROWS_AS(
      s.terms.by_head(Node::embedding(Position{1}), Node::attn_feature(Layer{0}, Position{2}, Feature{99})),
      IndexError);
  REQUIRE_THROWS_AS(s.terms.pairs(Layer{0}, Head{9}, Position{1}, Position{0}), IndexError);
  REQUIRE_THROWS_AS((AttentionTerms{s.model, s.set, s.tokens.repeat({2, 1})}), ShapeError);
  const auto across = random_model::cross_layer_dictionaries(s.model.config(), 38);
  REQUIRE_THROWS_AS((AttentionTerms{s.model, across, s.tokens}), ConfigError);
  REQUIRE_THROWS_WITH((AttentionTerms{s.model, across, s.tokens}), circuit_test::ContainsSubstring("cross-layer"));
}
