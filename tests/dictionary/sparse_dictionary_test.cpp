#include "circuit/dictionary/sparse_dictionary.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <vector>

#include "circuit/dictionary/active_features.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

at::Tensor tensor(std::vector<double> values, std::vector<std::int64_t> shape) {
  return at::from_blob(values.data(), shape, at::kDouble).clone();
}

/// Two inputs, three features, all numbers small enough to work out by hand.
SparseDictionary<> by_hand() {
  SparseDictionary<> d;
  d.W_enc = tensor({1, 0, -1, 0, 2, 1}, {2, 3});
  d.b_enc = tensor({0, -1, 0.5}, {3});
  d.W_dec = tensor({1, 0, 0, 1, 2, 2}, {3, 2});
  d.b_in = tensor({1, 1}, {2});
  d.b_out = tensor({10, 20}, {2});
  d.name = "by hand";
  return d;
}

/// A nonlinearity that needs all features: only the largest stays.
struct LargestOnly {
  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const {
    return pre.mul(pre.eq(std::get<0>(pre.max(-1, true))).to(pre.scalar_type()));
  }
  [[nodiscard]] at::Tensor slope(const at::Tensor& /*pre*/, const at::Tensor& act) const {
    return act.mul(0.0).add(1.0);
  }
};

}  // namespace

TEST_CASE("encoding and reconstruction, by hand") {
  const auto d = by_hand();
  const auto x = tensor({3, 2, 1, 1}, {1, 2, 2});  // less b_in: (2, 1) and (0, 0)
  REQUIRE_CLOSE(d.pre_activations(x), tensor({2, 1, -0.5, 0, -1, 0.5}, {1, 2, 3}), 0.0);
  REQUIRE_CLOSE(d.encode(x), tensor({2, 1, 0, 0, 0, 0.5}, {1, 2, 3}), 0.0);
  REQUIRE_CLOSE(d.reconstruct(x), tensor({12, 21, 11, 21}, {1, 2, 2}), 0.0);
}

TEST_CASE("a dictionary without biases subtracts and adds nothing") {
  auto d = by_hand();
  d.b_in = at::Tensor{};
  d.b_out = at::Tensor{};
  REQUIRE_CLOSE(d.encode(tensor({2, 1}, {1, 2})), tensor({2, 1, 0}, {1, 3}), 0.0);
  REQUIRE_CLOSE(d.reconstruct(tensor({2, 1}, {1, 2})), tensor({2, 1}, {1, 2}), 0.0);
}

TEST_CASE("a skip path sees the input before the bias is subtracted, and adds to what is decoded") {
  auto d = by_hand();
  d.W_skip = tensor({1, 2, 3, 4}, {2, 2});
  d.check();
  const auto x = tensor({3, 2}, {1, 2});
  REQUIRE_CLOSE(d.reconstruct(x), tensor({12 + 3 + 6, 21 + 6 + 8}, {1, 2}), 0.0);
  REQUIRE_CLOSE(d.decode(d.encode(x)), tensor({12, 21}, {1, 2}), 0.0);
  d.W_skip = tensor({1, 2}, {1, 2});
  REQUIRE_THROWS_AS(d.check(), ShapeError);
}

TEST_CASE("a normalised input is brought to one scale, and the output back") {
  const auto x = tensor({3, 4, -5, 12}, {2, 2});
  const InputNorm constant{InputNorm::Kind::constant_norm};
  const auto unit = constant.apply(x);
  REQUIRE_CLOSE(unit.square().sum(-1), tensor({2, 2}, {2}), 1e-14);
  REQUIRE_CLOSE(constant.undo(unit, x), x, 1e-13);
  REQUIRE_CLOSE((InputNorm{InputNorm::Kind::constant_norm, false}).undo(unit, x), unit, 0.0);
  const InputNorm layer{InputNorm::Kind::layer_norm};
  const auto one = 1 / (1 + 1e-5 / std::sqrt(0.5)) / std::sqrt(2.0);  // of (3, 4): (-0.5, 0.5) / (sqrt(0.5) + 1e-5)
  REQUIRE_CLOSE(layer.apply(x)[0], tensor({-one, one}, {2}), 1e-14);
  REQUIRE_CLOSE(layer.undo(layer.apply(x), x), x, 1e-4);
  auto d = by_hand();
  d.input_norm = constant;
  REQUIRE_CLOSE(d.encode(x), by_hand().encode(unit), 0.0);
  REQUIRE_CLOSE(d.reconstruct(x), constant.undo(by_hand().reconstruct(unit), x), 1e-13);
  const auto active = encode_active(d, x.unsqueeze(0));
  REQUIRE_CLOSE(decode_active(d, active).add(d.b_out), by_hand().reconstruct(unit), 1e-13);
}

TEST_CASE("a normalisation held at its inputs is what it makes of them, and linear beside them") {
  const auto x = tensor({3, 4, -5, 12}, {2, 2});
  const auto out = tensor({1, -2, 0.5, 7}, {2, 2});
  for (const auto kind : {InputNorm::Kind::constant_norm, InputNorm::Kind::layer_norm}) {
    for (const bool undone : {true, false}) {
      const InputNorm norm{kind, undone};
      const auto held = norm.held(x);
      REQUIRE_CLOSE(norm.unscaled(x).div(held.divisor), norm.apply(x), 1e-14);
      REQUIRE(held.factor.defined() == undone);
      REQUIRE(held.shift.defined() == (undone && kind == InputNorm::Kind::layer_norm));
      REQUIRE(norm.scales_output() == undone);
      auto back = undone ? out.mul(held.factor) : out;
      if (held.shift.defined()) back = back.add(held.shift);
      REQUIRE_CLOSE(back, norm.undo(out, x), 1e-14);
      auto d = by_hand();
      d.input_norm = norm;
      const auto acts = d.encode(x);
      auto whole = d.in_writes(acts, x).matmul(d.W_dec);
      REQUIRE_CLOSE(whole.add(d.output_constant(held)), d.reconstruct(x), 1e-13);
      d.b_out = at::Tensor{};
      const auto constant = d.output_constant(held);
      if (constant.defined()) whole = whole.add(constant);
      REQUIRE_CLOSE(whole, d.reconstruct(x), 1e-13);
    }
  }
  REQUIRE_FALSE((InputNorm{}).held(x).divisor.defined());
}

TEST_CASE("some features encode as they do among all, whether or not the nonlinearity needs the others") {
  const auto d = by_hand();
  SparseDictionary<LargestOnly> other;
  static_cast<DictionaryWeights&>(other) = d;
  static_assert(ElementwiseActivation<activation::Relu> && !ElementwiseActivation<LargestOnly>);
  const auto x = at::randn({3, 5, 2}, at::kDouble);
  const auto features = at::arange(2, at::kLong).mul(2);
  REQUIRE_CLOSE(d.encode(x, features), d.encode(x).index_select(-1, features), 1e-14);
  REQUIRE_CLOSE(other.encode(x, features), other.encode(x).index_select(-1, features), 1e-14);
}

TEST_CASE("active features are the dense encoding's non-zeros, row by row, and decode to the same") {
  SparseDictionary<> d;
  d.W_enc = at::randn({8, 300}, at::kDouble);
  d.b_enc = at::randn({300}, at::kDouble).sub(4);
  d.W_dec = at::randn({300, 8}, at::kDouble);
  const auto x = at::randn({2, 7, 8}, at::kDouble);
  const auto dense = d.encode(x).view({14, 300});
  const auto active = encode_active(d, x);
  REQUIRE(active.rows() == 14);
  REQUIRE(active.size() == dense.count_nonzero().item<std::int64_t>());
  REQUIRE(active.size() > 14);
  for (std::int64_t r = 0; r < active.rows(); ++r) {
    for (auto i = active.begin(r); i < active.end(r); ++i) {
      const auto feature = active.feature[static_cast<std::size_t>(i)];
      if (i > active.begin(r)) REQUIRE(feature > active.feature[static_cast<std::size_t>(i - 1)]);
      REQUIRE(active.activation[i].item<double>() == Approx(dense[r][feature].item<double>()));
      REQUIRE(active.slope[i].item<double>() == 1.0);
    }
  }
  REQUIRE_CLOSE(decode_active(d, active), d.decode(dense), 1e-12);
}

TEST_CASE("no active feature decodes to nothing") {
  auto d = by_hand();
  d.b_enc = d.b_enc.sub(100);
  const auto active = encode_active(d, at::zeros({2, 3, 2}, at::kDouble));
  REQUIRE(active.size() == 0);
  REQUIRE_CLOSE(decode_active(d, active), at::zeros({6, 2}, at::kDouble), 0.0);
}

TEST_CASE("parts that disagree, and inputs that do not fit, are refused by name") {
  const auto broken = [](auto change) {
    auto d = by_hand();
    change(d);
    return d;
  };
  REQUIRE_THROWS_AS(broken([](auto& d) { d.W_enc = d.W_enc.t(); }).check(), ShapeError);
  REQUIRE_THROWS_AS(broken([](auto& d) { d.b_enc = d.b_enc.narrow(0, 0, 2); }).check(), ShapeError);
  REQUIRE_THROWS_AS(broken([](auto& d) { d.W_dec = d.W_dec.narrow(0, 0, 2); }).check(), ShapeError);
  REQUIRE_THROWS_AS(broken([](auto& d) { d.b_in = d.b_enc; }).check(), ShapeError);
  REQUIRE_THROWS_AS(broken([](auto& d) { d.b_out = d.b_enc; }).check(), ShapeError);
  REQUIRE_THROWS_AS(broken([](auto& d) { d.W_enc = d.W_enc.to(at::kHalf); }).check(), DTypeError);
  const auto d = by_hand();
  REQUIRE_NOTHROW(d.check());
  REQUIRE_THROWS_AS(d.encode(at::zeros({1, 3}, at::kDouble)), ShapeError);
  REQUIRE_THROWS_AS(d.encode(at::zeros({1, 3}, at::kDouble), at::zeros({1}, at::kLong)), ShapeError);
  REQUIRE_THROWS_AS(encode_active(d, at::full({1, 1, 2}, std::nan(""), at::kDouble)), ValueError);
}
