#pragma once

// ATen's factories and free functions, called through their operators. The header a program includes for one of them
// (<ATen/ops/zeros.h> and its like) brings ATen's Context and 240 MB of compiler memory; the operator's own header brings
// nothing beyond Tensor.h. Both generations of LibTorch (1.13, 2.x) have these operators with these arguments.

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange_ops.h>
#include <ATen/ops/concat_ops.h>
#include <ATen/ops/embedding_ops.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full_ops.h>
#include <ATen/ops/gelu_ops.h>
#include <ATen/ops/mm_ops.h>
#include <ATen/ops/ones_ops.h>
#include <ATen/ops/stack_ops.h>
#include <ATen/ops/zeros_like_ops.h>
#include <ATen/ops/zeros_ops.h>

#include <cstdint>

#include "circuit/core/error.hpp"

namespace circuit::make {

namespace detail {

/// throws  ShapeError  for a negative size, which ATen would take for a symbol
[[nodiscard]] inline c10::SymIntArrayRef sizes(at::IntArrayRef values) {
  for (const auto value : values) {
    if (value < 0) throw ShapeError{{.got = values.vec(), .hint = "a tensor has no negative size"}};
  }
  return c10::fromIntArrayRefKnownNonNegative(values);
}

/// Calls a factory's operator with the four options that every factory ends in.
template <class Operator, class... Arguments>
[[nodiscard]] at::Tensor factory(const at::TensorOptions& o, const Arguments&... arguments) {
  return Operator::call(arguments..., c10::optTypeMetaToScalarType(o.dtype_opt()), o.layout_opt(), o.device_opt(),
                        o.pinned_memory_opt());
}

}  // namespace detail

[[nodiscard]] inline at::Tensor empty(at::IntArrayRef sizes, const at::TensorOptions& options = {}) {
  return at::_ops::empty_memory_format::call(detail::sizes(sizes), c10::optTypeMetaToScalarType(options.dtype_opt()),
                                             options.layout_opt(), options.device_opt(), options.pinned_memory_opt(),
                                             options.memory_format_opt());
}

[[nodiscard]] inline at::Tensor zeros(at::IntArrayRef sizes, const at::TensorOptions& options = {}) {
  return detail::factory<at::_ops::zeros>(options, detail::sizes(sizes));
}

[[nodiscard]] inline at::Tensor ones(at::IntArrayRef sizes, const at::TensorOptions& options = {}) {
  return detail::factory<at::_ops::ones>(options, detail::sizes(sizes));
}

[[nodiscard]] inline at::Tensor full(at::IntArrayRef sizes, const at::Scalar& value,
                                     const at::TensorOptions& options = {}) {
  return detail::factory<at::_ops::full>(options, detail::sizes(sizes), value);
}

/// 0, 1, ... below `end`.
[[nodiscard]] inline at::Tensor arange(const at::Scalar& end, const at::TensorOptions& options = {}) {
  return detail::factory<at::_ops::arange>(options, end);
}

[[nodiscard]] inline at::Tensor zeros_like(const at::Tensor& like) {
  return at::_ops::zeros_like::call(like, {}, {}, {}, {}, {});
}

/// Tensors one after another along an axis they have.
[[nodiscard]] inline at::Tensor cat(at::TensorList tensors, std::int64_t axis = 0) {
  return at::_ops::concat::call(tensors, axis);
}

/// Tensors beside each other along a new axis.
[[nodiscard]] inline at::Tensor stack(at::TensorList tensors, std::int64_t axis = 0) {
  return at::_ops::stack::call(tensors, axis);
}

/// Rows of `weight` [rows, width] picked by `indices` [...]: [..., width].
[[nodiscard]] inline at::Tensor embedding(const at::Tensor& weight, const at::Tensor& indices) {
  return at::_ops::embedding::call(weight, indices, /*padding_idx=*/-1, /*scale_grad_by_freq=*/false, /*sparse=*/false);
}

/// out := a b, for matrices of which `out` has the shape already.
inline void multiply_into(at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  at::_ops::mm_out::call(a, b, out);
}

/// approximate  "none" or "tanh"
[[nodiscard]] inline at::Tensor gelu(const at::Tensor& x, const char* approximate) {
  return at::_ops::gelu::call(x, approximate);
}

}  // namespace circuit::make
