#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "circuit/dictionary/activation/gated.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/model/gradient.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

at::Tensor row(std::vector<double> values) {
  return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kDouble).clone();
}

/// Wide enough for several blocks of features: 300 rows encode 1728 features at a time.
SparseDictionary<> wide(activation::Any activation, at::ScalarType dtype = at::kDouble) {
  constexpr std::int64_t features = 4000;
  SparseDictionary<> d;
  d.W_enc = at::randn({6, features}, dtype);
  d.b_enc = at::randn({features}, dtype).sub(1);
  d.W_dec = at::randn({features, 6}, dtype);
  d.b_in = at::randn({6}, dtype);
  d.name = "wide";
  d.activation = std::move(activation);
  d.check();
  return d;
}

at::Tensor dense(const ActiveFeatures& active, std::int64_t features) {
  auto out = at::zeros({active.rows(), features}, active.activation.options());
  for (std::int64_t r = 0; r < active.rows(); ++r) {
    for (auto i = active.begin(r); i < active.end(r); ++i) {
      out[r][active.feature[static_cast<std::size_t>(i)]] += active.activation[i];
    }
  }
  return out;
}

/// The k largest of a row by a full sort, as the definition has it.
at::Tensor top_k_by_sorting(const at::Tensor& pre, const activation::TopK& top) {
  auto out = at::zeros_like(pre);
  for (std::int64_t r = 0; r < pre.size(0); ++r) {
    const auto order = std::get<1>(pre[r].sort(0, /*descending=*/true));
    for (std::int64_t i = 0; i < top.k; ++i) {
      const auto f = order[i].item<std::int64_t>();
      const auto value = pre[r][f].item<double>();
      out[r][f] = top.inner == activation::Inner::relu ? std::max(0.0, value) : value;
    }
  }
  return out;
}

}  // namespace

TEST_CASE("each nonlinearity, by hand") {
  using namespace activation;
  const auto pre = row({0.5, -3, 2, 1, -1, 1.5});
  REQUIRE_CLOSE(JumpRelu{row({0.5, -9, 1, 2, -2, 0})}.apply(pre), row({0, 0, 2, 0, 0, 1.5}), 0.0);
  REQUIRE_CLOSE(TopK{.k = 2}.apply(pre), row({0, 0, 2, 0, 0, 1.5}), 0.0);
  REQUIRE_CLOSE(TopK{.k = 5}.apply(pre), row({0.5, 0, 2, 1, 0, 1.5}), 0.0);
  REQUIRE_CLOSE((TopK{.k = 5, .inner = Inner::none}).apply(pre), row({0.5, 0, 2, 1, -1, 1.5}), 0.0);
  REQUIRE_CLOSE(GroupMax{2}.apply(pre), row({0, 0, 2, 0, 0, 1.5}), 0.0);
  REQUIRE_CLOSE(GroupMax{3}.apply(pre), row({0.5, 0, 2, 0, 0, 1.5}), 0.0);
  REQUIRE_CLOSE(GroupMax{3}.apply(row({-1, -2, 3, 4, -5, 0})), row({0, 0, 0, 4, 0, 0}), 0.0);
}

TEST_CASE("block by block every nonlinearity gives what it gives at once, and TopK what sorting gives") {
  using namespace activation;
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const auto threshold = at::rand({4000}, dtype).mul(3);
    const auto x = at::randn({3, 100, 6}, dtype);
    for (const Any& any : {Any{}, Any{JumpRelu{threshold}}, Any{TopK{.k = 7}}, Any{TopK{.k = 2000}},
                           Any{TopK{.k = 9, .inner = Inner::none}}, Any{TopK{.k = 3990, .inner = Inner::none}},
                           Any{GroupMax{10}}, Any{GroupMax{2000}}}) {
      INFO("kind " << any.chosen.index() << ' ' << at::toString(dtype));
      const auto d = wide(any, dtype);
      REQUIRE(detail::features_per_block(300, 4000) < 4000);
      const auto all = d.encode(x).flatten(0, 1);
      const auto active = encode_active(d, x);
      REQUIRE_CLOSE(dense(active, 4000), all, dtype == at::kDouble ? 1e-13 : 1e-5);
      REQUIRE(active.size() == all.count_nonzero().item<std::int64_t>());
      REQUIRE(active.size() > 300);
      for (std::int64_t r = 0; r < active.rows(); ++r) {
        REQUIRE(std::is_sorted(active.feature.begin() + active.begin(r), active.feature.begin() + active.end(r)));
      }
      REQUIRE(active.slope.eq(1).all().item<bool>());
      const auto some = at::arange(40, at::kLong).mul(99);
      REQUIRE_CLOSE(d.encode(x, some), d.encode(x).index_select(-1, some), dtype == at::kDouble ? 1e-13 : 1e-5);
      if (const auto* top = std::get_if<TopK>(&any.chosen); top != nullptr && top->k < 100) {
        REQUIRE_CLOSE(all, top_k_by_sorting(d.pre_activations(x).flatten(0, 1), *top), 0.0);
      }
    }
  }
}

TEST_CASE("slopes are autograd's derivative at the run, which features are active held") {
  using namespace activation;
  for (const Any& any : {Any{}, Any{JumpRelu{at::full({4000}, 0.3, at::kDouble)}}, Any{TopK{.k = 5}},
                         Any{TopK{.k = 5, .inner = Inner::none}}, Any{GroupMax{8}}}) {
    INFO("kind " << any.chosen.index());
    const c10::AutoGradMode with_gradient{true};
    const auto pre = at::randn({3, 4000}, at::kDouble).requires_grad_(true);
    const auto acts = any.apply(pre);
    const auto derivative = gradient_of(acts.sum(), {pre})[0];
    const auto on = acts.ne(0);
    REQUIRE_CLOSE(derivative.masked_select(on), any.slope(pre.masked_select(on), acts.masked_select(on)).detach(), 0.0);
    REQUIRE_CLOSE(derivative.masked_select(on.logical_not()),
                  at::zeros({3 * 4000 - on.sum().item<std::int64_t>()}, at::kDouble), 0.0);
  }
}

TEST_CASE("a gated dictionary encodes as its definition says") {
  const auto base = wide({});
  const GateParts parts{at::randn({4000}, at::kDouble), at::randn({4000}, at::kDouble),
                        at::randn({4000}, at::kDouble).mul(0.3)};
  const SparseDictionary<> d = from_gated(base, parts);
  const auto x = at::randn({20, 6}, at::kDouble);
  const auto read = x.sub(base.b_in).matmul(base.W_enc);
  const auto gate = read.add(parts.b_gate).gt(0).to(at::kDouble);
  const auto expected = read.mul(parts.r_mag.exp()).add(parts.b_mag).clamp_min(0).mul(gate);
  REQUIRE_CLOSE(d.encode(x), expected, 1e-12);
  REQUIRE(expected.gt(0).sum().item<std::int64_t>() < read.add(parts.b_mag).gt(0).sum().item<std::int64_t>());
  auto broken = parts;
  broken.r_mag = at::zeros({3}, at::kDouble);
  REQUIRE_THROWS_AS(from_gated(base, broken), ShapeError);
}

TEST_CASE("a set holds layers with different nonlinearities") {
  DictionarySet set;
  set.set_mlp(Layer{0}, SparseDictionary<activation::Relu>{wide({}), {}});
  set.set_mlp(Layer{1}, wide({activation::TopK{.k = 3}}));
  set.set_mlp(Layer{2}, wide({activation::JumpRelu{at::full({4000}, 2.0, at::kDouble)}}));
  const auto x = at::randn({1, 4, 6}, at::kDouble);
  REQUIRE(set.active_mlp(Layer{1}, x).size() == 4 * 3);
  REQUIRE(set.active_mlp(Layer{2}, x).activation.gt(2).all().item<bool>());
  REQUIRE(set.active_mlp(Layer{0}, x).size() > set.active_mlp(Layer{2}, x).size());
}

TEST_CASE("settings that do not fit the dictionary are refused by name, and NaN never hides") {
  using namespace activation;
  REQUIRE_THROWS_AS(wide({TopK{.k = 0}}), ValueError);
  REQUIRE_THROWS_AS(wide({TopK{.k = 4001}}), ValueError);
  REQUIRE_THROWS_AS(wide({GroupMax{0}}), ValueError);
  REQUIRE_THROWS_AS(wide({GroupMax{7}}), ValueError);
  REQUIRE_THROWS_AS(wide({JumpRelu{at::ones({3}, at::kDouble)}}), ShapeError);
  DictionarySet set;
  auto d = wide({});
  d.activation = {GroupMax{7}};
  REQUIRE_THROWS_AS(set.set_mlp(Layer{0}, d), ValueError);
  for (const Any& any :
       {Any{}, Any{JumpRelu{at::full({4000}, 0.3, at::kDouble)}}, Any{TopK{.k = 5}}, Any{GroupMax{8}}}) {
    const auto nan = at::full({1, 1, 6}, std::nan(""), at::kDouble);
    REQUIRE_THROWS_AS(encode_active(wide(any), nan), ValueError);
    auto one = wide(any);
    one.b_enc[1234] = std::nan("");
    REQUIRE_THROWS_AS(encode_active(one, at::zeros({1, 1, 6}, at::kDouble)), ValueError);
  }
}
