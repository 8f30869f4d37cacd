#include "circuit/intervene/patch_edges.hpp"

#include <ATen/ops/rand.h>

#include "random_model.hpp"

using namespace circuit;

namespace {

/// A forward pass written receiver by receiver: each reads a sum of its own over senders, from the other run where the
/// edge is cut. Heads one at a time, nothing shared.
template <class A>
at::Tensor by_hand(const HookedTransformer<A>& model, const at::Tensor& tokens, const at::Tensor& cut,
                   const at::Tensor& other) {
  const auto& config = model.config();
  const auto& weights = model.weights();
  const auto c = Components::of(model);
  const auto e = config.d_head;
  std::vector<at::Tensor> writes{model.run(tokens, record<hook::resid_pre>()).cache.template get<hook::resid_pre>()};
  auto constants = at::zeros({config.d_model}, writes[0].options());
  const auto read = [&](std::int64_t receiver, std::int64_t before) {
    auto sum = constants.expand_as(writes[0]);
    for (std::int64_t s = 0; s < before; ++s) {
      const auto from_other = cut[s][receiver].template item<bool>();
      sum = sum.add(from_other ? other[s] : writes[static_cast<std::size_t>(s)]);
    }
    return sum;
  };
  const auto normed = [&](const at::Tensor& x, const NormWeights& w) {
    return A::Norm::output(A::Norm::normalized(x, A::Norm::scale(x, config.norm_eps), w), w);
  };
  const auto places = at::arange(tokens.size(1), at::kLong);
  for (std::int32_t l = 0; l < config.n_layers; ++l) {
    const Layer layer{l};
    const auto& w = weights.blocks[static_cast<std::size_t>(l)];
    const auto before = static_cast<std::int64_t>(writes.size());
    std::vector<at::Tensor> heads;
    for (std::int64_t h = 0; h < config.n_heads; ++h) {
      const auto kv = h / config.group_size();
      const auto made = [&](std::int64_t first, const at::Tensor& W, const at::Tensor& b, std::int64_t slot) {
        return affine(normed(read(first + h, before), w.ln1), W.narrow(1, slot * e, e), b.narrow(0, slot * e, e));
      };
      auto q = made(c.first_query(layer), w.attn.W_Q, w.attn.b_Q, h);
      auto k = made(c.first_key(layer), w.attn.W_K, w.attn.b_K, kv);
      const auto v = made(c.first_value(layer), w.attn.W_V, w.attn.b_V, kv);
      if constexpr (A::Attention::head_norms) {
        q = q.div(norm::RmsNorm::scale(q, config.norm_eps)).mul(w.attn.q_gain);
        k = k.div(norm::RmsNorm::scale(k, config.norm_eps)).mul(w.attn.k_gain);
      }
      const auto angles = A::Positions::angles(places, config, q.options());
      q = A::Positions::rotate(q.unsqueeze(2), angles).squeeze(2);
      k = A::Positions::rotate(k.unsqueeze(2), angles).squeeze(2);
      auto scores = soft_cap(q.matmul(k.transpose(1, 2)).div(config.score_scale), config.score_soft_cap);
      for (std::int64_t i = 0; i < tokens.size(1); ++i) {
        for (std::int64_t j = 0; j < tokens.size(1); ++j) {
          const auto window = config.window(layer);
          if (j > i || (window > 0 && i - j >= window)) scores.select(1, i).select(1, j).fill_(-1e300);
        }
      }
      heads.push_back(scores.softmax(-1).matmul(v).matmul(w.attn.W_O.narrow(0, h * e, e)));
    }
    const auto mlp = [&] {
      const auto mlp_before = A::Wiring::parallel ? before : before + config.n_heads;
      const auto ignore = [](auto, at::Tensor&) {};
      return A::Mlp::forward(normed(read(c.mlp_in(layer), mlp_before), w.ln2), w.mlp, ignore);
    };
    if constexpr (A::Wiring::parallel) heads.push_back(mlp());
    for (const auto& head : heads) writes.push_back(head);
    constants = constants.add(w.attn.b_O);
    if constexpr (!A::Wiring::parallel) writes.push_back(mlp());
  }
  return affine(normed(read(c.logits(), c.senders()), weights.ln_final), weights.W_U, weights.b_U);
}

at::Tensor random_cut(const Components& c, double share, std::uint64_t seed) {
  return random_model::Source{seed}({c.senders(), c.receivers()}).lt(share).logical_and(c.edge_mask());
}

}  // namespace

TEMPLATE_TEST_CASE("a run with cut edges is the one in which every reader sums up what it reads", "", Gpt2, Llama,
                   GptNeox) {
  const auto model = random_model::make<TestType>(7);
  const auto c = Components::of(model);
  const auto clean = random_model::Source{9}.tokens(2, 5, model.config().d_vocab);
  const auto corrupt = random_model::Source{10}.tokens(2, 5, model.config().d_vocab);
  const auto other = sender_writes(model, corrupt);
  for (const double threshold : {-1.5, 0.0, 1.5}) {  // of a standard normal: few, half, nearly all
    const auto cut = random_cut(c, threshold, 33);
    CAPTURE(threshold, cut.sum().template item<std::int64_t>());
    const auto logits = model.run(clean, patch_edges(model, cut, other)).logits;
    REQUIRE_CLOSE(logits, by_hand(model, clean, cut, other), 1e-11);
    REQUIRE_FALSE(difference(logits, model.run(clean).logits, 1e-3).close);
    const auto kept = c.edge_mask().logical_and(cut.logical_not());
    REQUIRE_CLOSE(model.run(clean, keep_only_edges(model, kept, other)).logits, logits, 1e-13);
  }
}

TEMPLATE_TEST_CASE("no edge cut is the clean run, all edges cut the other", "", Gpt2, Llama, GptNeox, Gemma2,
                   AttentionOnly, random_model::MixedParts) {
  const auto model = random_model::make<TestType>(7);
  const auto c = Components::of(model);
  const auto clean = random_model::Source{9}.tokens(2, 5, model.config().d_vocab);
  const auto corrupt = random_model::Source{10}.tokens(2, 5, model.config().d_vocab);
  const auto other = sender_writes(model, corrupt);
  REQUIRE_CLOSE(model.run(clean, patch_edges(model, c.edge_mask().logical_not(), other)).logits,
                model.run(clean).logits, 1e-12);
  REQUIRE_CLOSE(model.run(clean, patch_edges(model, c.edge_mask(), other)).logits, model.run(corrupt).logits, 1e-11);
}

TEST_CASE("edges that nothing feeds or nothing reads can go without a change") {
  const auto model = random_model::make<Gpt2>(7);
  const auto c = Components::of(model);
  const auto clean = random_model::Source{9}.tokens(2, 5, model.config().d_vocab);
  const auto other = sender_writes(model, random_model::Source{10}.tokens(2, 5, model.config().d_vocab));
  auto kept = c.edge_mask().logical_not().logical_and(c.edge_mask());  // none
  kept[0][c.logits()].fill_(true);
  const auto without = model.run(clean, keep_only_edges(model, kept, other)).logits;
  kept[c.mlp(Layer{0})][c.logits()].fill_(true);  // its sender reads nothing clean
  kept[0][c.first_key(Layer{1})].fill_(true);     // nothing reads its receiver
  REQUIRE_CLOSE(model.run(clean, keep_only_edges(model, kept, other)).logits, without, 1e-12);
  kept[0][c.mlp_in(Layer{0})].fill_(true);  // now the MLP has something to say
  REQUIRE_FALSE(difference(model.run(clean, keep_only_edges(model, kept, other)).logits, without, 1e-3).close);
}

TEST_CASE("a mask or a run of other components is refused") {
  const auto model = random_model::make<Gpt2>(7);
  const auto c = Components::of(model);
  const auto clean = random_model::Source{9}.tokens(2, 5, model.config().d_vocab);
  const auto other = sender_writes(model, clean);
  REQUIRE_THROWS_AS(patch_edges(model, at::zeros({3, 4}, at::kBool), other), ShapeError);
  REQUIRE_THROWS_AS(keep_only_edges(model, at::zeros({3, 4}, at::kBool), other), ShapeError);
  REQUIRE_THROWS_AS(patch_edges(model, c.edge_mask(), other.narrow(0, 0, 3)), ShapeError);
  const auto longer = random_model::Source{9}.tokens(2, 6, model.config().d_vocab);
  REQUIRE_THROWS_AS(model.run(longer, patch_edges(model, c.edge_mask(), other)), ShapeError);
}
