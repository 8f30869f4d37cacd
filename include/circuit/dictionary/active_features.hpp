#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"

namespace circuit {

/// The features of one dictionary that are active (not 0), row by row; a row is one (prompt, position), prompt-major.
/// Entries of row r are [row_begin[r], row_begin[r + 1]), features ascending. On the CPU.
struct ActiveFeatures {
  std::vector<std::int64_t> row_begin{0};  ///< rows + 1 offsets
  std::vector<std::int64_t> feature;       ///< [entries]
  at::Tensor activation;                   ///< [entries]
  at::Tensor slope;                        ///< [entries]  d activation / d pre-activation

  [[nodiscard]] std::int64_t rows() const { return static_cast<std::int64_t>(row_begin.size()) - 1; }
  [[nodiscard]] std::int64_t size() const { return row_begin.back(); }
  [[nodiscard]] std::int64_t begin(std::int64_t row) const { return row_begin[static_cast<std::size_t>(row)]; }
  [[nodiscard]] std::int64_t end(std::int64_t row) const { return row_begin[static_cast<std::size_t>(row) + 1]; }
};

/// Encodes x and keeps what is active. The dense [rows, d_sae] activations live only in here.
/// x       [batch, pos, d_in]
/// throws  ShapeError, ValueError (NaN or infinity among the activations)
template <SparseActivation A>
[[nodiscard]] ActiveFeatures encode_active(const SparseDictionary<A>& dictionary, const at::Tensor& x);

/// What the active features of every row write, without the output bias: sum of activation times decoder row.
/// return  [rows, d_out]
[[nodiscard]] at::Tensor decode_active(const DictionaryWeights& dictionary, const ActiveFeatures& active);

}  // namespace circuit

namespace circuit::detail {

/// Offsets and columns of the non-zero entries of a contiguous [rows, columns] matrix.
template <class Scalar>
void find_nonzero(const at::Tensor& dense, ActiveFeatures& active) {
  const auto rows = dense.size(0);
  const auto columns = dense.size(1);
  const auto* data = dense.data_ptr<Scalar>();
  active.row_begin.assign(static_cast<std::size_t>(rows) + 1, 0);
  std::vector<std::vector<std::int64_t>> found(static_cast<std::size_t>(rows));
  constexpr std::int64_t block = 64;
  at::parallel_for(0, rows, 1, [&](std::int64_t first, std::int64_t last) {
    for (auto r = first; r < last; ++r) {
      auto& columns_of_row = found[static_cast<std::size_t>(r)];
      const auto* row = data + r * columns;
      for (std::int64_t start = 0; start < columns; start += block) {
        const auto stop = std::min(start + block, columns);
        bool any = false;  // most blocks are all zero, and this loop vectorises
        for (auto c = start; c < stop; ++c) any |= row[c] != Scalar{0};
        if (!any) continue;
        for (auto c = start; c < stop; ++c) {
          if (row[c] != Scalar{0}) columns_of_row.push_back(c);
        }
      }
    }
  });
  for (std::size_t r = 0; r < found.size(); ++r) {
    active.row_begin[r + 1] = active.row_begin[r] + static_cast<std::int64_t>(found[r].size());
    active.feature.insert(active.feature.end(), found[r].begin(), found[r].end());
  }
}

/// [entries] flat indices of the active entries into [rows, d_sae]
[[nodiscard]] inline at::Tensor flat_indices(const ActiveFeatures& active, std::int64_t d_sae) {
  auto index = make::empty({active.size()}, at::kLong);
  auto* out = index.data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < active.rows(); ++r) {
    for (auto i = active.begin(r); i < active.end(r); ++i)
      *out++ = r * d_sae + active.feature[static_cast<std::size_t>(i)];
  }
  return index;
}

/// [entries] the row of each entry
[[nodiscard]] inline at::Tensor row_indices(const ActiveFeatures& active) {
  auto index = make::empty({active.size()}, at::kLong);
  auto* out = index.data_ptr<std::int64_t>();
  for (std::int64_t r = 0; r < active.rows(); ++r) out = std::fill_n(out, active.end(r) - active.begin(r), r);
  return index;
}

/// A vector's ids as a tensor of their own.
[[nodiscard]] inline at::Tensor ids_tensor(const std::vector<std::int64_t>& ids) {
  auto index = make::empty({static_cast<std::int64_t>(ids.size())}, at::kLong);
  std::copy(ids.begin(), ids.end(), index.data_ptr<std::int64_t>());
  return index;
}

}  // namespace circuit::detail

namespace circuit {

template <SparseActivation A>
ActiveFeatures encode_active(const SparseDictionary<A>& dictionary, const at::Tensor& x) {
  const c10::AutoGradMode no_gradient{false};
  const auto pre = dictionary.pre_activations(x.reshape({-1, x.size(-1)}));
  const auto acts = dictionary.activation.apply(pre).to(at::kCPU).contiguous();
  ActiveFeatures active;
  if (acts.scalar_type() == at::kDouble) {
    detail::find_nonzero<double>(acts, active);
  } else {
    detail::find_nonzero<float>(acts, active);
  }
  const auto index = detail::flat_indices(active, dictionary.d_sae());
  active.activation = acts.flatten().index_select(0, index);
  check_finite(active.activation, "activations", dictionary.name);
  active.slope = dictionary.activation.slope(pre.flatten().index_select(0, index.to(pre.device())).to(at::kCPU),
                                             active.activation);
  return active;
}

inline at::Tensor decode_active(const DictionaryWeights& dictionary, const ActiveFeatures& active) {
  auto out = make::zeros({active.rows(), dictionary.d_out()}, dictionary.W_dec.options());
  if (active.size() == 0) return out;
  const auto written = dictionary.decoder_rows(detail::ids_tensor(active.feature).to(dictionary.W_dec.device()))
                           .mul(active.activation.to(dictionary.W_dec.device()).unsqueeze(-1));
  return out.index_add_(0, detail::row_indices(active).to(dictionary.W_dec.device()), written);
}

}  // namespace circuit
