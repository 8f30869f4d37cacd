#include "circuit/core/product.hpp"

#include <ATen/ops/randn.h>

#include "circuit/model/gradient.hpp"
#include "tensors.hpp"

using namespace circuit;

namespace {

at::Tensor random(at::IntArrayRef shape) { return at::randn(shape, at::kFloat); }

/// Small whole numbers, of which half precision and every order of summation are exact.
at::Tensor whole(at::IntArrayRef shape) { return random(shape).mul(4).round(); }

}  // namespace

TEST_CASE("a product by a matrix of half precision is that by the widened one") {
  for (const auto dtype : {at::kHalf, at::kBFloat16}) {
    for (const auto draw : {whole, random}) {
      const auto W = draw({48, 80}).to(dtype);
      const at::Tensor stored[] = {W, W.t().contiguous().t(), W.narrow(1, 16, 32), W.narrow(0, 8, 24)};
      for (const auto& matrix : stored) {
        for (const auto& x : {draw({5, matrix.size(0)}), draw({2, 3, matrix.size(0)})}) {
          const auto got = product(x, matrix);
          const auto expected = x.matmul(matrix.to(at::kFloat));
          CHECK(got.scalar_type() == at::kFloat);
          if (draw == whole) CHECK(got.equal(expected));
          REQUIRE_CLOSE(got, expected, 1e-6);
        }
      }
    }
  }
}

TEST_CASE("a matrix of several blocks gives the same up to rounding, in either order of storage") {
  const auto rows = 8192;
  REQUIRE(detail::columns_per_widened_block(rows) == 512);
  const auto W = random({rows, 1100}).to(at::kBFloat16);
  const auto x = random({3, rows}).div(90);
  const auto expected = x.matmul(W.to(at::kFloat));
  REQUIRE_CLOSE(product(x, W), expected, 1e-5);
  REQUIRE_CLOSE(product(x, W.t().contiguous().t()), expected, 1e-5);
}

TEST_CASE("columns over several axes of a view are multiplied in their order, with the gradient, and transposed") {
  // As a file keeps heads in neighbouring pairs: [heads, pairs, 2, d_in], read as [d_in, heads, 2, pairs].
  struct Sizes {
    std::int64_t d_in, heads, pairs;
  };
  for (const auto [d_in, heads, pairs] : {Sizes{12, 4, 3}, Sizes{4, 4, 1}, Sizes{8192, 9, 40}}) {
    const auto stored = random({heads, pairs, 2, d_in}).div(static_cast<double>(d_in)).to(at::kHalf);
    const auto W = stored.transpose(1, 2).movedim(-1, 0);
    REQUIRE(W.is_alias_of(stored));
    const auto wide = W.to(at::kFloat).reshape({d_in, heads * 2 * pairs});
    const auto x = random({2, 3, d_in}).requires_grad_(true);
    const auto y = random({5, heads * 2 * pairs});
    const auto numbers = whole(stored.sizes()).to(at::kHalf).transpose(1, 2).movedim(-1, 0);
    const auto wide_numbers = numbers.to(at::kFloat).reshape(wide.sizes());
    const auto few = whole({3, d_in});
    const auto many = whole({5, heads * 2 * pairs});
    CHECK(product(few, numbers).equal(few.matmul(wide_numbers)));
    CHECK(product(many, transposed(numbers)).equal(many.matmul(wide_numbers.t())));
    const auto got = product(x, W);
    REQUIRE_CLOSE(got, x.matmul(wide), 1e-5);
    REQUIRE_CLOSE(gradient_of(got.pow(2).sum(), {x})[0], gradient_of(x.matmul(wide).pow(2).sum(), {x})[0], 1e-5);
    REQUIRE_CLOSE(product(y, transposed(W)), y.matmul(wide.t()), 1e-5);
    REQUIRE_CLOSE(product(x, W.narrow(1, 1, 1)), x.matmul(wide.narrow(1, 2 * pairs, 2 * pairs)), 1e-5);
  }
}

TEST_CASE("its gradient is that of the widened matrix, at every pass of a kept graph") {
  const auto W = random({12, 20}).to(at::kHalf);
  const auto V = random({20, 4}).to(at::kBFloat16);
  const auto x = random({2, 3, 12}).requires_grad_(true);
  const auto run = [&](auto&& times) {
    const auto hidden = times(x, W).tanh();
    return times(hidden.add(hidden.square()), V).pow(3).sum().add(times(x, W).sum());
  };
  const auto value = run([](const at::Tensor& a, const at::Tensor& b) { return product(a, b); });
  const auto expected = run([](const at::Tensor& a, const at::Tensor& b) { return a.matmul(b.to(at::kFloat)); });
  REQUIRE_CLOSE(value, expected, 1e-6);
  const auto wanted = gradient_of(expected, {x})[0];
  REQUIRE_CLOSE(gradient_of(value, {x}, /*keep_graph=*/true)[0], wanted, 1e-6);
  REQUIRE_CLOSE(gradient_of(value, {x})[0], wanted, 1e-6);
}

TEST_CASE("nothing that has no gradient gets one") {
  const auto W = random({12, 20}).to(at::kHalf);
  CHECK_FALSE(product(random({3, 12}), W).requires_grad());
  const c10::AutoGradMode no_gradient{false};
  CHECK_FALSE(product(random({3, 12}).requires_grad_(true), W).requires_grad());
}
