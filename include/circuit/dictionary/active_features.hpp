#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "circuit/core/parallel.hpp"
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

  /// Some of the rows, as features of their own.
  [[nodiscard]] ActiveFeatures slice(std::int64_t first_row, std::int64_t rows) const;
};

/// Encodes x and keeps what is active. Dense activations live only in here: of a block of features at a time where the
/// nonlinearity is elementwise or selects as features come, so that memory does not grow with d_sae and each block
/// stays in the cache.
/// x       [batch, pos, d_in]
/// throws  ShapeError, ValueError (NaN or infinity among the activations)
template <SparseActivation A>
[[nodiscard]] ActiveFeatures encode_active(const SparseDictionary<A>& dictionary, const at::Tensor& x);

/// What the active features of every row write, without the output bias: sum of activation times decoder row.
/// ahead   how many layers after the dictionary's own: 0, or more for a cross-layer transcoder
/// return  [rows, d_out]
[[nodiscard]] at::Tensor decode_active(const DictionaryWeights& dictionary, const ActiveFeatures& active,
                                       std::int64_t ahead = 0);

}  // namespace circuit

namespace circuit::detail {

[[nodiscard]] inline at::Tensor on_host(const at::Tensor& t) { return t.to(at::kCPU).contiguous(); }

/// Gathers the non-zero entries of [rows, d_sae] activations that come block by block of features, in ascending order.
class ActiveCollector {
 public:
  explicit ActiveCollector(std::int64_t rows) : found_(static_cast<std::size_t>(rows)) {}

  /// pre, acts  [rows, n]  float32 or float64: features first_feature, first_feature + 1, ...
  void add(const at::Tensor& pre, const at::Tensor& acts, std::int64_t first_feature) {
    return acts.scalar_type() == at::kDouble ? add_as<double>(on_host(pre), on_host(acts), first_feature)
                                             : add_as<float>(on_host(pre), on_host(acts), first_feature);
  }

  /// Takes what each row's selection kept.
  template <class Selection>
  void take(const std::vector<Selection>& selections) {
    for (std::size_t r = 0; r < found_.size(); ++r) found_[r] = selections[r].kept();
  }

  /// Everything found; `pre` [entries] are the pre-activations, for the slopes that are still to be set.
  [[nodiscard]] ActiveFeatures finish(at::ScalarType dtype, at::Tensor& pre) const;

 private:
  template <class Scalar>
  void add_as(const at::Tensor& pre, const at::Tensor& acts, std::int64_t first_feature) {
    const auto columns = acts.size(1);
    const auto* act = data_of<Scalar>(acts);
    const auto* before = data_of<Scalar>(pre);
    constexpr std::int64_t block = 64;
    parallel_for(acts.size(0), 1, [&](std::int64_t first, std::int64_t last) {
      for (auto r = first; r < last; ++r) {
        auto& of_row = found_[static_cast<std::size_t>(r)];
        const auto* row = act + r * columns;
        for (std::int64_t start = 0; start < columns; start += block) {
          const auto stop = std::min(start + block, columns);
          bool any = false;  // most blocks are all zero, and this loop vectorises
          for (auto c = start; c < stop; ++c) any |= row[c] != Scalar{0};
          if (!any) continue;
          for (auto c = start; c < stop; ++c) {
            if (row[c] != Scalar{0}) of_row.push_back({first_feature + c, row[c], before[r * columns + c]});
          }
        }
      }
    });
  }

  std::vector<std::vector<ActiveEntry>> found_;
};

inline ActiveFeatures ActiveCollector::finish(at::ScalarType dtype, at::Tensor& pre) const {
  ActiveFeatures active;
  for (const auto& of_row : found_) {
    active.row_begin.push_back(active.row_begin.back() + static_cast<std::int64_t>(of_row.size()));
  }
  active.activation = make::empty({active.size()}, at::kDouble);
  pre = make::empty({active.size()}, at::kDouble);
  active.feature.reserve(static_cast<std::size_t>(active.size()));
  auto* act = active.activation.data_ptr<double>();
  auto* before = pre.data_ptr<double>();
  for (const auto& of_row : found_) {
    for (const auto& entry : of_row) {
      active.feature.push_back(entry.feature);
      *act++ = entry.activation;
      *before++ = entry.pre;
    }
  }
  active.activation = active.activation.to(dtype);
  pre = pre.to(dtype);
  return active;
}

/// Features per block: dense activations of about a megabyte.
[[nodiscard]] inline std::int64_t features_per_block(std::int64_t rows, std::int64_t d_sae) {
  constexpr std::int64_t elements = std::int64_t{1} << 19;
  const auto fit = elements / std::max<std::int64_t>(1, rows) / 64 * 64;
  return std::clamp<std::int64_t>(fit, 256, std::max<std::int64_t>(256, d_sae));
}

/// Shows each row's selection the pre-activations of a block. pre [rows, n] contiguous, on the CPU
template <class Scalar, class Selection>
void offer_block(std::vector<Selection>& selections, const at::Tensor& pre, std::int64_t first_feature) {
  const auto* values = data_of<Scalar>(pre);
  const auto columns = pre.size(1);
  parallel_for(pre.size(0), 1, [&](std::int64_t first, std::int64_t last) {
    for (auto r = first; r < last; ++r) {
      selections[static_cast<std::size_t>(r)].offer(values + r * columns, first_feature, columns);
    }
  });
}

/// Calls use(pre-activations [rows, n] of a block of features, the first of them) for all blocks, in ascending order.
inline void for_each_block(const DictionaryWeights& d, const at::Tensor& x, std::int64_t step,
                           const std::function<void(const at::Tensor&, std::int64_t)>& use) {
  for_each_column_block(d.W_enc, d.W_enc_pages, step, [&](const at::Tensor& W, std::int64_t first) {
    use(d.b_enc.narrow(0, first, W.size(1)).addmm(x, W), first);
  });
}

/// x  [rows, d_in]  less the input bias, float32 or float64
template <SparseActivation A>
[[nodiscard]] ActiveFeatures encode_active_by(const A& activation, const DictionaryWeights& dictionary,
                                              const at::Tensor& x) {
  const auto rows = x.size(0);
  const auto block = features_per_block(rows, dictionary.d_sae());
  ActiveCollector found{rows};
  if constexpr (SelectiveActivation<A>) {
    std::vector<typename A::Selection> selections(static_cast<std::size_t>(rows), {activation, dictionary.d_sae()});
    for_each_block(dictionary, x, block, [&](const at::Tensor& pre, std::int64_t first) {
      pre.scalar_type() == at::kDouble ? offer_block<double>(selections, on_host(pre), first)
                                       : offer_block<float>(selections, on_host(pre), first);
    });
    found.take(selections);
  } else if constexpr (ElementwiseActivation<A>) {
    for_each_block(dictionary, x, block, [&](const at::Tensor& pre, std::int64_t first) {
      const auto features = make::arange(pre.size(1), pre.options().dtype(at::kLong)).add(first);
      found.add(pre, activation.of_features(features).apply(pre), first);
    });
  } else {
    for_each_block(dictionary, x, dictionary.d_sae(),
                   [&](const at::Tensor& pre, std::int64_t first) { found.add(pre, activation.apply(pre), first); });
  }
  at::Tensor pre;
  auto active = found.finish(x.scalar_type(), pre);
  check_finite(active.activation, "activations", dictionary.name);
  active.slope = activation.slope(pre, active.activation);
  return active;
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
  std::ranges::copy(ids, index.data_ptr<std::int64_t>());
  return index;
}

}  // namespace circuit::detail

namespace circuit {

inline ActiveFeatures ActiveFeatures::slice(std::int64_t first_row, std::int64_t rows) const {
  const auto first = begin(first_row);
  const auto count = begin(first_row + rows) - first;
  ActiveFeatures out;
  for (std::int64_t r = first_row; r < first_row + rows; ++r) out.row_begin.push_back(end(r) - first);
  const auto from = feature.begin() + first;
  out.feature.assign(from, from + count);
  out.activation = activation.narrow(0, first, count);
  out.slope = slope.narrow(0, first, count);
  return out;
}

template <SparseActivation A>
ActiveFeatures encode_active(const SparseDictionary<A>& dictionary, const at::Tensor& x) {
  const c10::AutoGradMode no_gradient{false};
  dictionary.check_input(x);
  const auto rows = dictionary.encoder_input(x.reshape({-1, x.size(-1)}));
  return detail::with_activation(dictionary.activation, [&](const auto& activation) {
    return detail::encode_active_by(activation, dictionary, rows);
  });
}

inline at::Tensor decode_active(const DictionaryWeights& dictionary, const ActiveFeatures& active, std::int64_t ahead) {
  auto out = make::zeros({active.rows(), dictionary.d_out()}, dictionary.options());
  if (active.size() == 0) return out;
  const auto device = dictionary.W_dec.device();
  const auto written = dictionary.decoder_rows(detail::ids_tensor(active.feature).to(device), ahead)
                           .mul(active.activation.to(device).unsqueeze(-1));
  return out.index_add_(0, detail::row_indices(active).to(device), written);
}

}  // namespace circuit
