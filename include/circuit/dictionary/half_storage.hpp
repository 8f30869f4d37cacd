#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/core/parallel.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit {

/// throws  DTypeError  unless W is of the type computed with, or of half precision where that is float32
inline void check_stored_dtype(const at::Tensor& W, at::ScalarType computed, std::string_view name,
                               const std::string& file) {
  if (W.scalar_type() == computed || (is_half(W) && computed == at::kFloat)) return;
  throw DTypeError{{.file = file,
                    .tensor = std::string{name},
                    .expected = at::toString(computed),
                    .got = at::toString(W.scalar_type())}};
}

/// Calls use(columns first, first + 1, ... of W as [rows, n], first) for blocks of columns in ascending order. A matrix
/// of half precision is widened block by block into one buffer, which the next block overwrites. Where it is mapped,
/// the blocks are read from the file, so that memory does not grow with W. pages   where W is mapped, if it is step
/// columns of a block at most throws  FileError  when the file has become shorter
void for_each_column_block(const at::Tensor& W, const MappedPages& pages, std::int64_t step,
                           const std::function<void(const at::Tensor&, std::int64_t)>& use);

/// Rows of W, widened; a mapped matrix's pages are given back. Of half precision a few are touched at a time, since the
/// system maps up to megabytes around a byte that is touched.
/// rows [n] int64  return [n, W.size(1)]
[[nodiscard]] at::Tensor gather_rows(const at::Tensor& W, const MappedPages& pages, const at::Tensor& rows);

/// Columns of W, in the same way. columns [n] int64  return [W.size(0), n]
[[nodiscard]] at::Tensor gather_columns(const at::Tensor& W, const MappedPages& pages, const at::Tensor& columns);

}  // namespace circuit

namespace circuit::detail {

/// Reads columns first, first + 1, ... of a mapped matrix of two-byte elements from its file into `out` [rows, count].
inline void read_columns(const MappedPages& pages, const at::Tensor& W, std::int64_t first, const at::Tensor& out) {
  const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * 2; };
  const auto* const from_file = static_cast<const std::byte*>(W.data_ptr());
  auto* const to = static_cast<std::byte*>(out.data_ptr());
  if (by_column(W)) return pages.read(from_file + bytes(first * W.size(0)), bytes(out.numel()), to);
  parallel_for(W.size(0), 16, [&](std::int64_t from, std::int64_t last) {
    for (auto row = from; row < last; ++row) {
      pages.read(from_file + bytes(row * W.stride(0) + first), bytes(out.size(1)), to + bytes(row * out.stride(0)));
    }
  });
}

}  // namespace circuit::detail

namespace circuit {

inline void for_each_column_block(const at::Tensor& W, const MappedPages& pages, std::int64_t step,
                                  const std::function<void(const at::Tensor&, std::int64_t)>& use) {
  const auto columns = W.size(1);
  if (!is_half(W)) {
    for (std::int64_t first = 0; first < columns; first += step) {
      use(W.narrow(1, first, std::min(step, columns - first)), first);
    }
    return;
  }
  step = std::min({step, columns, detail::columns_per_widened_block(W.size(0))});
  const bool mapped = pages.hold(W.data_ptr()) && (detail::by_column(W) || W.stride(1) == 1);
  const auto wide = detail::column_buffer(W, W.size(0), step, at::kFloat);
  const auto half = mapped ? detail::column_buffer(W, W.size(0), step, W.scalar_type()) : at::Tensor{};
  for (std::int64_t first = 0; first < columns; first += step) {
    const auto count = std::min(step, columns - first);
    auto stored = mapped ? half.narrow(1, 0, count) : W.narrow(1, first, count);
    if (mapped) detail::read_columns(pages, W, first, stored);
    use(wide.narrow(1, 0, count).copy_(stored), first);
  }
}

inline at::Tensor gather_rows(const at::Tensor& W, const MappedPages& pages, const at::Tensor& rows) {
  if (!pages.hold(W.data_ptr())) return widened(W.index_select(0, rows));
  if (!is_half(W)) {
    auto out = W.index_select(0, rows);
    pages.release();
    return out;
  }
  constexpr std::int64_t at_once = 16;
  auto out = make::empty({rows.size(0), W.size(1)}, W.options().dtype(at::kFloat));
  for (std::int64_t first = 0; first < rows.size(0); first += at_once) {
    const auto count = std::min(at_once, rows.size(0) - first);
    out.narrow(0, first, count).copy_(W.index_select(0, rows.narrow(0, first, count)));
    pages.release();
  }
  return out;
}

inline at::Tensor gather_columns(const at::Tensor& W, const MappedPages& pages, const at::Tensor& columns) {
  if (!is_half(W) || !pages.hold(W.data_ptr())) return widened(W.index_select(1, columns));
  if (detail::by_column(W)) return gather_rows(W.t(), pages, columns).t();
  constexpr std::int64_t at_once = 16;
  std::vector<at::Tensor> parts;
  for (std::int64_t first = 0; first < W.size(0); first += at_once) {
    const auto part = W.narrow(0, first, std::min(at_once, W.size(0) - first));
    parts.push_back(widened(part.index_select(1, columns)));
    pages.release();
  }
  return make::cat(parts, 0);
}

}  // namespace circuit
