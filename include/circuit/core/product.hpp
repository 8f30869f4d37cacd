#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "circuit/core/make.hpp"

namespace circuit {

/// What becomes of a file's float16 and bfloat16 matrices where float32 is computed with. Values are the same: widening
/// is exact.
enum class HalfPrecision {
  mapped,   ///< they stay as they are, in the file; blocks and rows are widened as they are needed
  widened,  ///< they are widened once, into twice the memory that they have on disk
};

/// Whether a matrix is stored narrower than what is computed with, which then is float32.
[[nodiscard]] inline bool is_half(const at::Tensor& W) {
  return W.scalar_type() == at::kHalf || W.scalar_type() == at::kBFloat16;
}

/// As float32, where W is of half precision.
[[nodiscard]] inline at::Tensor widened(const at::Tensor& W) { return is_half(W) ? W.to(at::kFloat) : W; }

/// `x W` over the last axis of x. A W of half precision is widened block of columns by block into one buffer, also for
/// the gradient of x, so that W is never held as float32: what the widened W gives, up to the order in which a library
/// sums a product. W itself gets a gradient only where it is not of half precision.
/// x  [..., d_in]   W  [d_in, d_out], or of half precision with its columns over several axes, [d_in, ...], where a file
///                     keeps them in another order (or the transpose of such a one)
/// return  [..., d_out]
[[nodiscard]] at::Tensor product(const at::Tensor& x, const at::Tensor& W);

/// The transpose of a matrix, whose columns may lie over several axes.  [d_in, ...] -> [..., d_in]
[[nodiscard]] inline at::Tensor transposed(const at::Tensor& W) { return W.movedim(0, -1); }

}  // namespace circuit

namespace circuit::detail {

/// Whether W is kept one column after another, in whichever order.
[[nodiscard]] inline bool by_column(const at::Tensor& W) {
  return W.stride(0) == 1 && (W.dim() > 2 || W.stride(1) == W.size(0));
}

/// Memory for `columns` columns of as many rows, as W is kept.
[[nodiscard]] inline at::Tensor column_buffer(const at::Tensor& W, std::int64_t rows, std::int64_t columns,
                                              at::ScalarType dtype) {
  const auto options = W.options().dtype(dtype);
  return by_column(W) ? make::empty({columns, rows}, options).t() : make::empty({rows, columns}, options);
}

/// Columns of which a widened block is of 16 MB; more where there are over 65,536 rows.
[[nodiscard]] inline std::int64_t columns_per_widened_block(std::int64_t rows) {
  constexpr std::int64_t elements = std::int64_t{1} << 22;
  return std::max<std::int64_t>(64, elements / std::max<std::int64_t>(1, rows) / 64 * 64);
}

/// `product` without a gradient, W of half precision.
[[nodiscard]] inline at::Tensor product_by_blocks(const at::Tensor& x, const at::Tensor& W) {
  const c10::AutoGradMode no_gradient{false};
  const auto width = x.size(-1);
  // Where the columns lie over several axes, a block is cut along the first of them; where the rows do, as ever.
  const auto axis = W.dim() > 2 && W.size(0) != width ? W.dim() - 1 : 1;
  const auto columns = W.dim() > 2 ? W.numel() / width : W.size(1);
  const auto group = columns / W.size(axis);
  const auto step = std::min(W.size(axis), std::max<std::int64_t>(1, columns_per_widened_block(width) / group));
  const auto rows = x.reshape({-1, width});
  const auto wide = column_buffer(W, W.dim() > 2 ? width : W.size(0), step * group, at::kFloat);
  const auto out = make::empty({rows.size(0), columns}, rows.options());
  for (std::int64_t first = 0; first < W.size(axis); first += step) {
    const auto block = W.narrow(axis, first, std::min(step, W.size(axis) - first));
    const auto count = block.size(axis) * group;
    const auto wide_block = wide.narrow(1, 0, count);
    wide_block.view(block.sizes()).copy_(block);
    auto part = out.narrow(1, first * group, count);
    make::multiply_into(part, rows, wide_block);
  }
  auto shape = x.sizes().vec();
  shape.back() = columns;
  return out.view(shape);
}

/// The same with a gradient for x. Autograd would keep the widened W until the backward pass; here hooks take what
/// comes back at the product through W's transpose, by blocks again. (A Function of one's own would say so plainly, but
/// its header costs every program seconds to compile.)
[[nodiscard]] inline at::Tensor product_with_gradient(const at::Tensor& x, const at::Tensor& W) {
  const auto came_back = std::make_shared<at::Tensor>();
  const auto read = x.view(x.sizes());  // a tensor of its own, whose gradient is this product's alone
  read.register_hook([came_back, W](const at::Tensor&) { return product_by_blocks(*came_back, transposed(W)); });
  // The product depends on what it reads by zeros, so that the hooks are called.
  auto out = product_by_blocks(x, W).add(read.narrow(-1, 0, 1).mul(0.0));
  out.register_hook([came_back](const at::Tensor& gradient) { *came_back = gradient; });
  return out;
}

}  // namespace circuit::detail

inline at::Tensor circuit::product(const at::Tensor& x, const at::Tensor& W) {
  if (!is_half(W)) return x.matmul(W);
  const bool follows = c10::GradMode::is_enabled() && x.requires_grad();
  return follows ? detail::product_with_gradient(x, W) : detail::product_by_blocks(x, W);
}
