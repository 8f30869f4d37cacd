#pragma once

// The border to ATen: the factories this library uses, and checks that end in our own exceptions. Differences between
// LibTorch's generations (1.13 and 2.x) are hidden here and nowhere else.

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/id.hpp"
#include "circuit/core/make.hpp"
#include "circuit/core/product.hpp"

namespace circuit {

/// The sizes of a tensor as plain integers.
[[nodiscard]] inline std::vector<std::int64_t> shape_of(const at::Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

/// The elements of a contiguous CPU tensor, to be read. (1.13 has no `const_data_ptr`.)
template <class T>
[[nodiscard]] const T* data_of(const at::Tensor& tensor) {
  return tensor.data_ptr<T>();
}

/// throws  ShapeError  unless `tensor` has the sizes `expected` (-1: any)
inline void check_shape(const at::Tensor& tensor, const std::vector<std::int64_t>& expected, std::string_view name,
                        const std::filesystem::path& file = {}, std::string_view hint = {}) {
  const auto got = shape_of(tensor);
  bool same = got.size() == expected.size();
  for (std::size_t i = 0; same && i < got.size(); ++i) same = expected[i] < 0 || expected[i] == got[i];
  if (!same) {
    throw ShapeError{
        {.file = file, .tensor = std::string{name}, .expected = expected, .got = got, .hint = std::string{hint}}};
  }
}

/// throws  ValueError  when `tensor` holds NaN or infinity
inline void check_finite(const at::Tensor& tensor, std::string_view name, const std::filesystem::path& file = {}) {
  // A sum is one pass and no temporary; it is non-finite whenever an element is (and, rarely, when it overflows).
  if (tensor.sum().isfinite().template item<bool>() || tensor.isfinite().all().template item<bool>()) return;
  throw ValueError{{.file = file, .tensor = std::string{name}, .expected = "finite values", .got = "NaN or infinity"}};
}

/// throws  DTypeError  unless `dtype` is float32 or float64
inline void check_compute_dtype(at::ScalarType dtype, std::string_view name) {
  if (dtype == at::kFloat || dtype == at::kDouble) return;
  throw DTypeError{{.tensor = std::string{name}, .expected = "float32 or float64", .got = at::toString(dtype)}};
}

/// Rows of token ids as a tensor [batch, pos] of int64.
/// throws  ValueError  for an empty batch, an empty prompt or rows of unequal length
[[nodiscard]] inline at::Tensor to_tokens(std::span<const std::vector<std::int32_t>> rows) {
  if (rows.empty() || rows.front().empty()) {
    throw ValueError{{.tensor = "tokens", .expected = "at least one prompt of at least one token", .got = "none"}};
  }
  const auto length = rows.front().size();
  auto tokens = make::empty({static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(length)}, at::kLong);
  auto* out = tokens.data_ptr<std::int64_t>();
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (rows[row].size() != length) {
      throw ValueError{{.tensor = "tokens",
                        .problem = "prompts do not line up",
                        .expected = std::to_string(length) + " tokens, as prompt 0 has",
                        .got = std::to_string(rows[row].size()) + " in prompt " + std::to_string(row)}};
    }
    for (const auto id : rows[row]) *out++ = id;
  }
  return tokens;
}

/// `x W + b` over the last axis of x, as `product`; an undefined b adds nothing.
/// x  [..., d_in]   W  [d_in, d_out]   b  [d_out]   return  [..., d_out]
[[nodiscard]] inline at::Tensor affine(const at::Tensor& x, const at::Tensor& W, const at::Tensor& b = {}) {
  auto out = product(x, W);
  return b.defined() ? out.add(b) : out;
}

/// `cap tanh(x / cap)`; a cap of 0 leaves x as it is.
[[nodiscard]] inline at::Tensor soft_cap(const at::Tensor& x, double cap) {
  return cap > 0 ? x.div(cap).tanh().mul(cap) : x;
}

/// throws  IndexError  unless 0 <= index < size
inline void check_index(std::int64_t index, std::int64_t size, std::string_view what) {
  if (index >= 0 && index < size) return;
  throw IndexError{
      {.tensor = std::string{what}, .expected = "0 to " + std::to_string(size - 1), .got = std::to_string(index)}};
}
template <class Tag>
void check_index(Id<Tag> index, std::int64_t size, std::string_view what = Tag::name) {
  check_index(std::int64_t{index.value}, size, what);
}

/// throws  ValueError  for a count below 1
inline void check_count(std::int64_t count, std::string_view what) {
  if (count >= 1) return;
  throw ValueError{{.tensor = std::string{what}, .expected = "at least 1", .got = std::to_string(count)}};
}

}  // namespace circuit
