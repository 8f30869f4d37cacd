#pragma once

// leap.md's identities, held on the architectures that CIRCUIT_IDENTITIES_OF lists, with the dictionaries that
// CIRCUIT_IDENTITIES_DICTIONARIES makes. One list per file keeps compiling cheap.

#include <ATen/ops/eye.h>
#include <ATen/ops/inverse.h>
#include <ATen/ops/zeros.h>

#include <map>

#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/search/keep/top.hpp"
#include "circuit/search/leap.hpp"
#include "random_model.hpp"
#include "replacement.hpp"

#ifndef CIRCUIT_IDENTITIES_LAYERS
#define CIRCUIT_IDENTITIES_LAYERS 2
#endif
#ifndef CIRCUIT_IDENTITIES_DICTIONARIES
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::dictionaries
#endif

using namespace circuit;

namespace {

constexpr double tolerance = 1e-9;

template <class A>
struct Setup {
  HookedTransformer<A> model = random_model::make<A>(7, at::kDouble, CIRCUIT_IDENTITIES_LAYERS);
  DictionarySet set = CIRCUIT_IDENTITIES_DICTIONARIES(model.config(), 8);
  at::Tensor clean = random_model::Source{9}.tokens(3, 6, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{10}.tokens(3, 6, model.config().d_vocab);
  std::vector<std::int64_t> right{3, 5, 7};
  std::vector<std::int64_t> wrong{4, 1, 2};

  at::Tensor prompt(std::int64_t b) const { return clean.narrow(0, b, 1); }
  LogitDifference metric(std::int64_t b) const {
    return LogitDifference{std::span{&right[static_cast<std::size_t>(b)], 1},
                           std::span{&wrong[static_cast<std::size_t>(b)], 1}};
  }
  LogitDifference metric() const {
    return LogitDifference{std::span<const std::int64_t>{right}, std::span<const std::int64_t>{wrong}};
  }
};

const auto everything = Leap{.keep = keep::All{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};

std::vector<Node> targets_in(const Circuit& circuit) {
  std::vector<Node> out;
  for (const auto& bundle : circuit.nodes()) {
    if (!circuit.incoming(bundle.node).empty()) out.push_back(bundle.node);
  }
  return out;
}

/// The bias row and what the MLP does beyond its derivative, which a dictionary of its output reads.
double bias_of(const Circuit& circuit, const Node& target, EdgeType type, bool em = false) {
  for (const auto& row : circuit.biases()) {
    if (row.target != target || row.type != type) continue;
    return em ? row.em_attrib + row.em_remainder : row.nn_attrib + row.nn_remainder;
  }
  FAIL("no bias row");
  return 0;
}

/// The bias row and, with contrast, what the change of transparent modules' maps gives.
double constants_of(const Circuit& circuit, const Node& target, EdgeType type) {
  for (const auto& row : circuit.biases()) {
    if (row.target == target && row.type == type) return row.nn_attrib + row.nn_map;
  }
  FAIL("no bias row");
  return 0;
}

double sum_of(const Circuit& circuit, const Node& target, std::initializer_list<EdgeType> types, bool em = false) {
  double sum = 0;
  for (const auto& e : circuit.incoming(target)) {
    for (const auto type : types) {
      if (e.edge.type == type) sum += em ? e.edge.em_attrib : e.edge.nn_attrib;
    }
  }
  return sum;
}

/// The edges that make up what a target reads.
EdgeType summing_type(NodeKind kind) {
  return kind == NodeKind::metric          ? EdgeType::metric
         : kind == NodeKind::mlp_feature   ? EdgeType::mlp
         : kind == NodeKind::resid_feature ? EdgeType::resid
                                           : EdgeType::ov;
}

/// Whether a crosscoder's feature reads what may lie behind its writes.
[[maybe_unused]] bool source_only(const DictionarySet& set, const Node& node) {
  const auto* across = is_stream(node.kind) ? set.crosscoder(node.layer) : nullptr;
  return across != nullptr && !Replacement<Gpt2>::part_of(*across, node.feature.value).first->causal();
}

/// The stream that a feature reads, and the pre-activations of its dictionary given that.
template <class A>
at::Tensor stream_of(const Replacement<A>& r, const Node& target) {
  if (target.kind == NodeKind::resid_feature) return r.stream_read(target);
  return r.resid(target.layer, target.kind == NodeKind::mlp_feature, target.kind != NodeKind::resid_feature);
}
template <class A>
at::Tensor pre_of(const Replacement<A>& r, const Node& target, const at::Tensor& x, EdgeType type) {
  if (target.kind == NodeKind::resid_feature) return r.stream_pre(target, x);
  return target.kind == NodeKind::mlp_feature ? r.mlp_pre(target.layer, x) : r.attn_pre(target.layer, x, type);
}

/// The pre-activation (or the metric) that a target's edges of one type describe, as a function of the leaves.
template <class A>
at::Tensor described(const Replacement<A>& r, const Node& target, EdgeType type, std::int64_t right,
                     std::int64_t wrong) {
  if (type == EdgeType::metric) {
    const auto logits = r.unembed(r.resid_final());
    return logits[-1][right].sub(logits[-1][wrong]);
  }
  return pre_of(r, target, stream_of(r, target), type)[target.position.value][target.feature.value];
}

}  // namespace

TEMPLATE_TEST_CASE("the replacement model run forward gives the original's logits", "", CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  const auto logits = [&](const at::Tensor& x) {
    const auto cap = s.model.config().logit_soft_cap;
    return cap > 0 ? r.unembed(x).div(cap).tanh().mul(cap) : r.unembed(x);
  };
  REQUIRE_CLOSE(logits(r.forward(/*frozen_active_set=*/false)), r.logits, tolerance);
  REQUIRE_CLOSE(logits(r.resid_final()), r.logits, tolerance);
}

TEMPLATE_TEST_CASE("every edge gradient of every type equals autograd's on the replacement model", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  std::map<EdgeType, int> compared;
  for (const auto& target : targets_in(found)) {
    for (const auto type : all_edge_types) {
      if (!reads_by(target.kind, type)) continue;
      const auto grads = gradient_of(described(r, target, type, s.right[0], s.wrong[0]), r.leaves());
      for (const auto& e : found.incoming(target)) {
        if (e.edge.type != type) continue;
        INFO(e.up << " -> " << e.down << ' ' << type);
        REQUIRE(e.edge.nn_grad == Approx(r.along(e.up, grads)).epsilon(1e-8).margin(1e-10));
        ++compared[type];
      }
    }
  }
  for (const auto type : all_edge_types) {
    if (type == EdgeType::resid && !s.set.stream(Layer{1})) continue;
    if (type != EdgeType::mlp || has_mlp<TestType>) REQUIRE(compared[type] > 20);
  }
}

TEMPLATE_TEST_CASE("incoming attributions and the bias row sum to each pre-activation and to the metric", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  for (const auto& target : targets_in(found)) {
    const auto type = summing_type(target.kind);
    INFO(target);
    const auto value = described(r, target, type, s.right[0], s.wrong[0]).template item<double>();
    REQUIRE(sum_of(found, target, {type}) + bias_of(found, target, type) == Approx(value).epsilon(1e-9).margin(1e-10));
  }
  const auto metric = s.metric(0).per_prompt(s.model.uncapped_logits(s.prompt(0))).template item<double>();
  REQUIRE(sum_of(found, Node::metric(), {EdgeType::metric}) + bias_of(found, Node::metric(), EdgeType::metric) ==
          Approx(metric).epsilon(1e-10));
}

TEMPLATE_TEST_CASE("through transparent attention they still sum to each pre-activation and to the metric", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const Leap search{.keep = keep::All{},
                    .contrast = contrast::None{},
                    .targets = targets::AllActive{},
                    .modules = modules::TransparentAttention{}};
  const auto found = search(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  for (const auto& target : targets_in(found)) {
    const auto type = summing_type(target.kind);
    INFO(target);
    const auto value = described(r, target, type, s.right[0], s.wrong[0]).template item<double>();
    REQUIRE(sum_of(found, target, {type}) + bias_of(found, target, type) == Approx(value).epsilon(1e-9).margin(1e-10));
  }
}

TEMPLATE_TEST_CASE("q attributions of a target, and k attributions, sum to t times the raw scores", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const auto found = everything(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const auto cache = s.model
                         .run(s.prompt(0), record<hook::attn::rot_q, hook::attn::rot_k, hook::attn::v,
                                                  hook::attn::attn_scores, hook::attn::pattern>())
                         .cache;
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  const auto& c = s.model.config();
  const auto group = c.n_heads / c.n_key_value_heads;
  int compared = 0;
  for (const auto& target : targets_in(found)) {
    if (target.kind != NodeKind::attn_feature) continue;
    const auto l = target.layer;
    const auto q = target.position.value;
    auto reader = r.attn_reader(target);
    if (s.set.attn_site(l) == AttentionSite::attn_out) {
      const c10::AutoGradMode with_gradient{true};
      const auto z = at::zeros({s.clean.size(1), c.n_heads * c.d_head}, at::kDouble).requires_grad_(true);
      reader = gradient_of(r.attn_output(l, z)[q].dot(reader), {z})[0][q];
    }
    double expected = 0;
    for (std::int64_t h = 0; h < c.n_heads; ++h) {
      const auto A = cache.template get<hook::attn::pattern>(l)[0][h][q].narrow(0, 0, q + 1);
      const auto v = cache.template get<hook::attn::v>(l)[0].select(1, h / group).narrow(0, 0, q + 1);
      const auto keys = cache.template get<hook::attn::rot_k>(l)[0].select(1, h / group).narrow(0, 0, q + 1);
      const auto query = cache.template get<hook::attn::rot_q>(l)[0][q][h];
      const auto on = v.mv(reader.narrow(0, h * c.d_head, c.d_head));
      auto t = A.mul(on.sub(A.dot(on)));
      if (c.score_soft_cap > 0) {
        const auto capped = cache.template get<hook::attn::attn_scores>(l)[0][h][q].narrow(0, 0, q + 1);
        t = t.mul(capped.div(c.score_soft_cap).square().neg().add(1.0)).masked_fill(capped.isinf(), 0.0);
      }
      expected += t.dot(keys.mv(query).div(c.score_scale)).template item<double>();
    }
    for (const auto type : {EdgeType::q, EdgeType::k}) {
      INFO(target << ' ' << type);
      REQUIRE(sum_of(found, target, {type}) + bias_of(found, target, type) ==
              Approx(expected).epsilon(1e-8).margin(1e-10));
      ++compared;
    }
  }
  REQUIRE(compared > 20);
}

TEMPLATE_TEST_CASE("path sums over all edges: outgoing and incoming em agree with nodegrad, and with (I - G)^-1", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  auto search = Leap{
      .keep = keep::All{}, .chain = chain::GraphPath{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};
  search.attention = AttentionPaths::values;
  const auto found = search(s.model, s.set, {s.prompt(0), {}}, s.metric(0));

  // The same numbers from one dense inverse over the direct gradients.
  const auto n = static_cast<std::int64_t>(found.node_count());
  auto G = at::zeros({n, n}, at::kDouble);
  for (const auto& e : found.edges()) {
    G[static_cast<std::int64_t>(found.vertex(e.down))][static_cast<std::int64_t>(found.vertex(e.up))] += e.edge.nn_grad;
  }
  const auto paths = at::eye(n, at::kDouble).sub(G).inverse()[static_cast<std::int64_t>(found.vertex(Node::metric()))];
  for (const auto& b : found.nodes()) {
    INFO(b.node);
    REQUIRE(b.nodegrad == Approx(paths[static_cast<std::int64_t>(found.vertex(b.node))].template item<double>())
                              .epsilon(1e-8)
                              .margin(1e-10));
    if (b.node.kind == NodeKind::metric) continue;
    double out = 0;
    for (const auto& e : found.outgoing(b.node)) out += e.edge.em_attrib;
    REQUIRE(out == Approx(b.nodegrad * b.activation).epsilon(1e-8).margin(1e-10));
    if (!is_feature(b.node.kind)) continue;
    if (source_only(s.set, b.node)) continue;
    const auto type = summing_type(b.node.kind);
    REQUIRE(sum_of(found, b.node, {type}, true) + bias_of(found, b.node, type, true) ==
            Approx(b.nodegrad * b.activation).epsilon(1e-8).margin(1e-10));
  }

  // One backward pass through the replacement model gives the same sums, with q and k too.
  auto backward = Leap{
      .keep = keep::All{}, .chain = chain::AllPaths{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};
  backward.attention = AttentionPaths::values;
  const auto compare = [](const Circuit& a, const Circuit& b) {
    REQUIRE(a.node_count() == b.node_count());
    for (const auto& x : a.nodes()) {
      INFO(x.node);
      REQUIRE(b.bundle(x.node).nodegrad == Approx(x.nodegrad).epsilon(1e-8).margin(1e-10));
    }
  };
  compare(found, backward(s.model, s.set, {s.prompt(0), {}}, s.metric(0)));
  search.attention = backward.attention = AttentionPaths::all;
  compare(search(s.model, s.set, {s.prompt(0), {}}, s.metric(0)),
          backward(s.model, s.set, {s.prompt(0), {}}, s.metric(0)));
}

TEMPLATE_TEST_CASE("moving a node's activation moves the metric by delta times its path sum", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  auto search = Leap{
      .keep = keep::All{}, .chain = chain::AllPaths{}, .contrast = contrast::None{}, .targets = targets::AllActive{}};
  search.attention = AttentionPaths::values;
  const auto found = search(s.model, s.set, {s.prompt(1), {}}, s.metric(1));
  const Replacement<TestType> r{s.model, s.set, s.prompt(1)};
  const auto metric = [&](const at::Tensor& x) {
    const auto logits = r.unembed(x);
    return logits[-1][s.right[1]].sub(logits[-1][s.wrong[1]]).template item<double>();
  };
  const double before = metric(r.forward());
  int compared = 0;
  for (const auto& b : found.nodes()) {
    if (!is_feature(b.node.kind)) continue;
    INFO(b.node);
    REQUIRE(metric(r.forward_with(b.node, 0.37)) - before == Approx(0.37 * b.nodegrad).epsilon(1e-7).margin(1e-9));
    ++compared;
  }
  REQUIRE(compared > 20);
}

TEMPLATE_TEST_CASE("the model gradient is the original model's own backward pass", "", CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  auto search = everything;
  const auto found = search(s.model, s.set, {s.prompt(0), {}}, s.metric(0));
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  // Finite differences of the original model along what a feature writes, the final scale frozen.
  const auto scale =
      s.model.run(s.prompt(0), record<hook::ln_final::scale>()).cache.template get<hook::ln_final::scale>();
  const auto freeze = edit<hook::ln_final::scale>([&](const at::Tensor&, Layer) { return scale; });
  int compared = 0;
  for (const auto& b : found.nodes()) {
    // Dictionaries that write behind any post-norm: transcoders, and the SAE on the last layer's hook_attn_out.
    const bool attention = b.node.kind == NodeKind::attn_feature && b.node.layer == Layer{1};
    if ((b.node.kind != NodeKind::mlp_feature && !attention) || compared > 10) continue;
    const auto& d = *(attention ? s.set.attn(b.node.layer) : s.set.mlp(b.node.layer));
    Where here{.layers = {}, .positions = {b.node.position}};
    for (std::int32_t ahead = 0; ahead <= d.later_layers(); ++ahead) {
      here.layers.push_back(Layer{b.node.layer.value + ahead});
    }
    const auto moved = [&](double step) {
      const auto shift = [&](const at::Tensor& x, Layer l) {
        if (l.value < b.node.layer.value || l.value > b.node.layer.value + d.later_layers()) return x;
        const auto ahead = l.value - b.node.layer.value;
        const auto w = ahead == 0 ? d.W_dec[b.node.feature.value] : d.W_later[b.node.feature.value][ahead - 1];
        return x.add(w.mul(step * r.unit(b.node)));
      };
      const Where nowhere{.layers = {Layer{99}}};
      const auto add_attn = edit<hook::attn_out>(shift, attention ? here : nowhere);
      const auto add = edit<hook::mlp_out>(shift, attention ? nowhere : here);
      const c10::AutoGradMode no_gradient{false};
      return s.metric(0)
          .per_prompt(s.model.uncapped_logits(s.prompt(0), add_attn, add, freeze))
          .template item<double>();
    };
    const double slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
    INFO(b.node);
    REQUIRE(b.nodegrad == Approx(slope).epsilon(1e-5).margin(1e-7));
    ++compared;
  }
  REQUIRE(compared > 5);
}

TEMPLATE_TEST_CASE("contrast attributions sum to the gradient times the difference of the streams", "",
                   CIRCUIT_IDENTITIES_OF) {
  const Setup<TestType> s;
  const auto corrupt = s.corrupt.narrow(0, 0, 1);
  const Replacement<TestType> r{s.model, s.set, s.prompt(0)};
  const Replacement<TestType> other{s.model, s.set, corrupt};
  const auto compare = [&](const Circuit& found) {
    for (const auto& target : targets_in(found)) {
      for (const auto type : all_edge_types) {
        if (!reads_by(target.kind, type)) continue;
        // Gradient with respect to the stream itself, by autograd.
        const c10::AutoGradMode with_gradient{true};
        const bool metric = type == EdgeType::metric;
        const auto stream = [&](const Replacement<TestType>& of) {
          return (metric ? of.resid_final() : stream_of(of, target)).detach();
        };
        const auto x = stream(r).requires_grad_(true);
        const auto value = metric ? r.unembed(x)[-1][s.right[0]].sub(r.unembed(x)[-1][s.wrong[0]])
                                  : pre_of(r, target, x, type)[target.position.value][target.feature.value];
        const auto g = gradient_of(value, {x})[0];
        const double expected = g.mul(x.detach().sub(stream(other))).sum().template item<double>();
        INFO(target << ' ' << type);
        REQUIRE(sum_of(found, target, {type}) + constants_of(found, target, type) ==
                Approx(expected).epsilon(1e-8).margin(1e-9));
      }
    }
  };
  const auto read = Leap{.keep = keep::All{}, .targets = targets::AllActive{}};
  compare(read(s.model, s.set, {s.prompt(0), corrupt}, s.metric(0)));
  const auto through =
      Leap{.keep = keep::All{}, .targets = targets::AllActive{}, .modules = modules::TransparentAttention{}};
  compare(through(s.model, s.set, {s.prompt(0), corrupt}, s.metric(0)));
}
