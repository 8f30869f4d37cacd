#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "circuit/core/error.hpp"
#include "circuit/core/make.hpp"
#include "circuit/core/parallel.hpp"
#include "circuit/io/ggml/dequantize.hpp"
#include "circuit/io/gguf.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit {

/// Writes rows first, ..., first + n - 1 of a tensor that can be widened into `out`, float32 [n, row], contiguous on
/// the CPU, on all of ATen's threads: one buffer serves a matrix of any size. A tensor of more axes counts as a matrix
/// of its last one.
/// throws  DTypeError  when the tensor cannot be widened or `out` is not float32
/// throws  ShapeError  when `out` is no such matrix
/// throws  IndexError  when the tensor has not that many rows
inline void widen_rows(const GgufTensor& tensor, std::size_t first, const at::Tensor& out);

/// A CPU tensor of the same shape. Plain numbers keep their type and stay mapped, as in to_tensor of any other file;
/// quantised ones are widened to float32.
/// throws  DTypeError  naming file and tensor when it is quantised in a way that cannot be widened
[[nodiscard]] inline at::Tensor to_tensor(const GgufTensor& tensor) {
  if (const auto plain = plain_view(tensor)) return to_tensor(*plain);
  detail::check_dequantizable(tensor.type, tensor.owner ? tensor.owner->path() : "", tensor.name);
  auto values = make::empty(tensor.shape, at::TensorOptions{}.dtype(at::kFloat));
  widen_rows(tensor, 0,
             values.view({static_cast<std::int64_t>(tensor.rows()), static_cast<std::int64_t>(tensor.row_size())}));
  return values;
}

namespace detail {

inline void check_widen_rows(const GgufTensor& tensor, std::size_t first, const at::Tensor& out) {
  const auto file = tensor.owner ? tensor.owner->path() : "";
  check_dequantizable(tensor.type, file, tensor.name);
  if (out.scalar_type() != at::kFloat || !out.device().is_cpu()) {
    throw DTypeError{{.file = file,
                      .tensor = tensor.name,
                      .problem = "cannot be written into this buffer",
                      .expected = "float32 on the CPU",
                      .got = std::string{out.dtype().name()} + " on " + out.device().str()}};
  }
  const auto row = tensor.row_size();
  if (out.dim() != 2 || out.size(1) != static_cast<std::int64_t>(row) || !out.is_contiguous()) {
    throw ShapeError{{.file = file,
                      .tensor = tensor.name,
                      .expected = {-1, static_cast<std::int64_t>(row)},
                      .got = out.sizes().vec(),
                      .hint = "the buffer must be contiguous rows"}};
  }
  const auto count = static_cast<std::size_t>(out.size(0));
  if (first > tensor.rows() || count > tensor.rows() - first) {
    throw IndexError{{.file = file,
                      .tensor = tensor.name,
                      .problem = "there are no such rows",
                      .expected = "rows within " + std::to_string(tensor.rows()),
                      .got = std::to_string(count) + " rows from row " + std::to_string(first)}};
  }
}

}  // namespace detail

inline void widen_rows(const GgufTensor& tensor, std::size_t first, const at::Tensor& out) {
  detail::check_widen_rows(tensor, first, out);
  const auto block = ggml_layout(tensor.type);
  const auto stored = tensor.row_range(first, static_cast<std::size_t>(out.size(0)));
  const std::span values{out.data_ptr<float>(), static_cast<std::size_t>(out.numel())};
  constexpr std::size_t values_per_task = std::size_t{1} << 16U;
  detail::parallel_for(static_cast<std::int64_t>(values.size() / block.values),
                       static_cast<std::int64_t>(values_per_task / block.values),
                       [&](std::int64_t from, std::int64_t to) {
                         const auto begin = static_cast<std::size_t>(from);
                         const auto size = static_cast<std::size_t>(to - from);
                         dequantize(tensor.type, stored.subspan(begin * block.bytes, size * block.bytes),
                                    values.subspan(begin * block.values, size * block.values));
                       });
}

}  // namespace circuit
