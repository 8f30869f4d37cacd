#include "circuit/core/make.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "catch.hpp"

using namespace circuit;

namespace {

/// The same values, type and sizes.
bool same(const at::Tensor& a, const at::Tensor& b) { return a.scalar_type() == b.scalar_type() && a.equal(b); }

}  // namespace

TEST_CASE("factories make what ATen's of the same name make") {
  CHECK(same(make::zeros({2, 3}, at::kLong), at::zeros({2, 3}, at::kLong)));
  CHECK(same(make::zeros({2}), at::zeros({2})));
  CHECK(same(make::full({3}, 2.5, at::kDouble), at::full({3}, 2.5, at::kDouble)));
  CHECK(same(make::ones({2, 2}, at::kFloat), at::full({2, 2}, 1.0, at::kFloat)));
  CHECK(same(make::arange(5, at::kLong), at::arange(5, at::kLong)));
  CHECK(make::empty({4, 0, 2}, at::kDouble).sizes() == at::IntArrayRef({4, 0, 2}));
  const auto like = make::zeros_like(at::full({2, 3}, 1.0, at::kDouble));
  CHECK(same(like, at::zeros({2, 3}, at::kDouble)));
}

TEST_CASE("joining, picking and gelu agree with ATen") {
  const auto a = at::arange(6, at::kDouble).view({2, 3});
  const std::vector<at::Tensor> both{a, a.mul(10)};
  CHECK(same(make::cat(both), at::cat(both)));
  CHECK(same(make::cat(both, -1), at::cat(both, -1)));
  CHECK(same(make::stack(both, 1), at::stack(both, 1)));
  const auto rows = at::arange(2, at::kLong).mul(-1).add(1);
  CHECK(same(make::embedding(a, rows), at::embedding(a, rows)));
  CHECK(same(make::gelu(a, "tanh"), at::gelu(a, "tanh")));
  CHECK(same(make::gelu(a, "none"), at::gelu(a, "none")));
  CHECK(!make::gelu(a, "none").equal(make::gelu(a, "tanh")));
}

TEST_CASE("gradients pass through what was joined and picked") {
  const auto weight = make::full({3, 2}, 1.0, at::kDouble).requires_grad_(true);
  const auto picked = make::embedding(weight, make::arange(2, at::kLong));
  make::cat({picked, picked.mul(2)}).sum().backward();
  const auto expected = make::full({3, 2}, 3.0, at::kDouble);
  expected.select(0, 2).zero_();  // row 2 was not picked
  CHECK(same(weight.grad(), expected));
}

TEST_CASE("a negative size is refused and named") {
  CHECK_THROWS_AS(make::zeros({2, -1}), ShapeError);
  CHECK_THROWS_AS(make::empty({-3}), ShapeError);
}
