#include "circuit/search/mask_attributions.hpp"

#include <map>

#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/intervene/patch_units.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/edit.hpp"
#include "random_model.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

using Masks = std::map<std::pair<NodeKind, Layer>, at::Tensor>;

/// The same with a skip path at layer 1, which is no node.
DictionarySet with_skip(DictionarySet set) {
  auto mlp = SparseDictionary<>{*set.mlp(Layer{1}), {}};
  mlp.W_skip = random_model::Source{25}({mlp.d_in(), mlp.d_out()}, 0.3);
  set.set_mlp(Layer{1}, mlp);
  return set;
}

/// A run with one mask per node, [pos, nodes] by kind and layer, written from the definition: every module holds
/// `reference + mask (own - reference)` of each of its nodes.
struct Setting {
  HookedTransformer<Gpt2> model = random_model::make<Gpt2>(21);
  DictionarySet set = with_skip(random_model::dictionaries(model.config(), 22));
  at::Tensor clean = random_model::Source{23}.tokens(3, 6, model.config().d_vocab);
  at::Tensor corrupt = random_model::Source{24}.tokens(3, 6, model.config().d_vocab);
  LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}, {7}}, {{4}, {1}, {2}}};
  bool of_mean = false;

  [[nodiscard]] at::Tensor baseline(const at::Tensor& x) const { return of_mean ? x.mean(0, true) : x; }
  [[nodiscard]] at::Tensor encode(Module module, Layer l, const at::Tensor& x) const {
    return module == Module::attn ? set.encode_attn(l, x) : set.encode_mlp(l, x);
  }

  /// Masks of one value, each a leaf.
  [[nodiscard]] Masks masks(double value) const {
    Masks out;
    const auto leaf = [&](NodeKind kind, Layer l, std::int64_t nodes) {
      out[{kind, l}] = at::full({clean.size(1), nodes}, value, at::kDouble).requires_grad_(true);
    };
    leaf(NodeKind::embedding, Layer{0}, 1);
    for (const auto l : {Layer{0}, Layer{1}}) {
      leaf(NodeKind::attn_feature, l, set.attn(l)->d_sae());
      leaf(NodeKind::mlp_feature, l, set.mlp(l)->d_sae());
      leaf(NodeKind::attn_error, l, 1);
      leaf(NodeKind::mlp_error, l, 1);
    }
    return out;
  }

  [[nodiscard]] at::Tensor metric_of(const Masks& masks) const {
    const auto clean_cache = model.run(clean, record_modules()).cache;
    const auto corrupt_cache = model.run(corrupt, record_modules()).cache;
    at::Tensor read;
    const auto replaced = [&](Module module, Layer l, const at::Tensor& input) {
      const bool attn = module == Module::attn;
      const auto& d = *(attn ? set.attn(l) : set.mlp(l));
      const auto held = [&](const at::Tensor& own, const at::Tensor& other, const at::Tensor& mask) {
        return other.add(own.sub(other).mul(mask));
      };
      const auto skipped = [&](const at::Tensor& x) { return d.has_skip() ? x.matmul(d.W_skip) : x.mul(0); };
      const auto error = [&](const auto& cache) {
        const auto in = input_of(set, cache, module, l);
        const auto out = attn ? in : cache.template get<hook::mlp_out>(l);
        return out.sub(d.input_norm.undo(d.decode(encode(module, l, in)), in)).sub(skipped(in));
      };
      const auto written = [&](const at::Tensor& x) {  // by each feature, in decoder rows
        const auto none = at::zeros({x.size(0), x.size(1), d.d_out()}, at::kDouble);
        const auto unit = d.input_norm.undo(none.add(1), x).sub(d.input_norm.undo(none, x));
        return encode(module, l, x).mul(unit.narrow(-1, 0, 1));
      };
      const auto acts = held(written(input), baseline(written(input_of(set, corrupt_cache, module, l))),
                             masks.at({attn ? NodeKind::attn_feature : NodeKind::mlp_feature, l}));
      const auto bias = at::zeros({3, 6, d.d_out()}, at::kDouble).add(d.b_out);
      return acts.matmul(d.W_dec)
          .add(d.input_norm.undo(bias, input))
          .add(held(error(clean_cache), baseline(error(corrupt_cache)),
                    masks.at({attn ? NodeKind::attn_error : NodeKind::mlp_error, l})))
          .add(skipped(input));
    };
    const c10::AutoGradMode gradient{true};
    const auto embeddings = model.weights().W_E.index_select(0, corrupt.flatten()).view({3, 6, -1});
    auto at_embed = edit<hook::embed>([&](const at::Tensor& x, Layer) {
      const auto other = baseline(embeddings);
      return other.add(x.sub(other).mul(masks.at({NodeKind::embedding, Layer{0}})));
    });
    auto at_z = edit<hook::attn::z>(
        [&](const at::Tensor& z, Layer l) { return replaced(Module::attn, l, z.flatten(2)).view(z.sizes()); },
        {.layers = {Layer{0}}});
    auto at_attn_out = edit<hook::attn_out>([&](const at::Tensor& x, Layer l) { return replaced(Module::attn, l, x); },
                                            {.layers = {Layer{1}}});
    auto at_mlp_in = edit<hook::ln2::normalized>([&](const at::Tensor& x, Layer) { return read = x; });
    auto at_mlp_out = edit<hook::mlp_out>([&](const at::Tensor&, Layer l) { return replaced(Module::mlp, l, read); });
    const auto logits = model.forward(clean, at_embed, at_z, at_attn_out, at_mlp_in, at_mlp_out);
    return mean(metric, logits);
  }

  [[nodiscard]] std::vector<NodeAttribution> found(std::int64_t steps) const {
    return mask_attributions(model, set, clean, corrupt, metric,
                             {.steps = steps, .outside = of_mean ? Outside::reference_mean : Outside::reference});
  }
};

double sum_of(const std::vector<NodeAttribution>& nodes) {
  double sum = 0;
  for (const auto& a : nodes) sum += a.attribution;
  return sum;
}

}  // namespace

TEST_CASE("a step is the gradient by a mask of every node, taken by autograd") {
  const auto normalizing = GENERATE(false, true);
  for (const bool of_mean : {false, true}) {
    Setting s;
    s.of_mean = of_mean;
    if (normalizing) s.set = random_model::normalizing_dictionaries(s.model.config(), 22);
    Masks expected;
    for (const double at : {0.25, 0.75}) {
      const auto masks = s.masks(at);
      std::vector<at::Tensor> leaves;
      for (const auto& [key, mask] : masks) leaves.push_back(mask);
      const auto gradients = gradient_of(s.metric_of(masks), leaves);
      std::size_t i = 0;
      for (const auto& [key, mask] : masks) {
        auto& sum = expected[key];
        sum = sum.defined() ? sum.add(gradients[i++], 0.5) : gradients[i++].mul(0.5);
      }
    }
    std::size_t nodes = 0;
    for (const auto& [key, gradient] : expected)
      nodes += static_cast<std::size_t>(gradient.ne(0).sum().item<std::int64_t>());
    const auto found = s.found(2);
    REQUIRE(found.size() == nodes);
    REQUIRE(nodes > 100);
    for (const auto& [node, attribution] : found) {
      INFO(node);
      const auto& of_kind = expected.at({node.kind, node.layer});
      REQUIRE(attribution ==
              Approx(of_kind[node.position.value][node.feature.value].item<double>()).epsilon(1e-9).margin(1e-12));
    }
  }
}

TEST_CASE("attributions sum to the metric less the empty circuit's") {
  const Setting s;
  const NeuronBasis units{s.model};  // without kinks, so that the midpoint rule converges fast
  const auto nodes = [&](std::int64_t steps) {
    return mask_attributions(s.model, units, s.clean, s.corrupt, s.metric, {.steps = steps, .embeddings = false});
  };
  UnitMask none{s.model.config(), s.clean.size(1)};
  const auto corrupt = s.model.run(s.corrupt, record<hook::attn::z, hook::mlp::post>()).cache;
  const auto full = mean(s.metric, s.model.run(s.clean).logits).item<double>();
  const auto empty = mean(s.metric, s.model.run(s.clean, patch_units(none.others(), corrupt)).logits).item<double>();
  REQUIRE(std::abs(full - empty) > 0.01);
  const auto error = [&](std::int64_t steps) { return std::abs(sum_of(nodes(steps)) - (full - empty)); };
  const auto fine = error(64);
  REQUIRE(fine < 1e-3 * std::abs(full - empty));
  REQUIRE(fine < error(16) / 4);
}

TEMPLATE_TEST_CASE("a model's own units are masked where they are", "", Gpt2, Llama, Gemma2) {
  const auto model = random_model::make<TestType>(31);
  const auto clean = random_model::Source{32}.tokens(2, 5, model.config().d_vocab);
  const auto others = random_model::Source{33}.tokens(4, 5, model.config().d_vocab);
  const LogitDifference metric{std::vector<std::vector<std::int64_t>>{{3}, {5}}, {{4}, {1}}};
  const auto units = model.run(others, record<hook::attn::z, hook::mlp::post>()).cache;

  const c10::AutoGradMode gradient{true};
  std::map<std::pair<NodeKind, Layer>, at::Tensor> masks;
  std::vector<at::Tensor> leaves;
  const auto held = [&](NodeKind kind, const at::Tensor& own, const at::Tensor& other, Layer l) {
    auto mask = at::full({own.size(1), own[0][0].numel()}, 0.5, at::kDouble);
    mask.narrow(0, 0, 1).fill_(1);
    mask.requires_grad_(true);
    masks[{kind, l}] = mask;
    leaves.push_back(mask);
    const auto base = other.mean(0, true);
    return base.add(own.sub(base).mul(mask.view(own[0].sizes())));
  };
  auto at_z = edit<hook::attn::z>([&](const at::Tensor& z, Layer l) {
    return held(NodeKind::attn_feature, z, units.template get<hook::attn::z>(l), l);
  });
  auto at_post = edit<hook::mlp::post>([&](const at::Tensor& x, Layer l) {
    return held(NodeKind::mlp_feature, x, units.template get<hook::mlp::post>(l), l);
  });
  const auto logits = model.forward(clean, at_z, at_post);
  const auto gradients = gradient_of(mean(metric, logits), leaves);
  std::map<std::pair<NodeKind, Layer>, at::Tensor> expected;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    for (const auto& [key, mask] : masks) {
      if (mask.is_same(leaves[i])) expected[key] = gradients[i];
    }
  }
  const auto found =
      mask_attributions(model, NeuronBasis{model}, clean, others, metric,
                        {.steps = 1, .outside = Outside::reference_mean, .embeddings = false, .first = Position{1}});
  std::int64_t nodes = 0;
  for (const auto& [key, of_kind] : expected)
    nodes += of_kind.narrow(0, 1, 4).ne(0).sum().template item<std::int64_t>();
  REQUIRE(static_cast<std::int64_t>(found.size()) == nodes);
  REQUIRE(nodes > 100);
  for (const auto& [node, attribution] : found) {
    INFO(node);
    const auto& of_kind = expected.at({node.kind, node.layer});
    REQUIRE(
        attribution ==
        Approx(of_kind[node.position.value][node.feature.value].template item<double>()).epsilon(1e-9).margin(1e-12));
  }
}

TEST_CASE("a walk that cannot be is refused") {
  const Setting s;
  const auto with = [&](const at::Tensor& reference, MaskWalk walk) {
    return mask_attributions(s.model, s.set, s.clean, reference, s.metric, walk);
  };
  REQUIRE_THROWS_AS(with(s.corrupt.narrow(1, 0, 5), {}), ShapeError);
  REQUIRE_THROWS_AS(with(s.corrupt.narrow(0, 0, 2), {}), ShapeError);
  REQUIRE_NOTHROW(with(s.corrupt.narrow(0, 0, 2), {.steps = 1, .outside = Outside::reference_mean}));
  REQUIRE_THROWS_AS(with(s.corrupt, {.steps = 0}), ValueError);
  REQUIRE_THROWS_AS(with(s.corrupt, {.outside = Outside::left}), ValueError);
  REQUIRE_THROWS_AS(with(s.corrupt, {.first = Position{6}}), IndexError);
}
