#pragma once

#include <algorithm>
#include <cstdint>
#include <random>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/dead_features.hpp"

namespace circuit::train {

/// What a feature reads and writes before any training.
enum class Start {
  tokens,      ///< what one token of the sample held, and what was written there
  directions,  ///< a random direction; an SAE writes it too, a transcoder what was written on average where it fired
};

/// Encoder columns and decoder rows of length 1.
struct InitialWeights {
  at::Tensor W_enc;  ///< [d_in, d_sae]
  at::Tensor W_dec;  ///< [d_sae, d_out]
};

/// x [n, d_in] and y [n, d_out]: a centred sample, one tensor for an SAE.
[[nodiscard]] InitialWeights initial_weights(const at::Tensor& x, const at::Tensor& y, std::int64_t d_sae, Start start,
                                             std::uint64_t seed);

}  // namespace circuit::train

namespace circuit::train::detail {

/// Numbers from -1 to 1, the same on every platform.
[[nodiscard]] inline at::Tensor random_rows(std::int64_t rows, std::int64_t width, const at::TensorOptions& options,
                                            std::uint64_t seed) {
  std::mt19937_64 engine{seed};
  auto out = make::empty({rows, width}, at::TensorOptions{}.dtype(at::kDouble));
  auto* value = out.data_ptr<double>();
  for (std::int64_t i = 0; i < out.numel(); ++i) value[i] = static_cast<double>(engine() >> 11U) * 0x1p-52 - 1.0;
  return out.to(options);
}

/// More features than tokens: the sample again, each time mixed with other tokens, so that no two are alike.
[[nodiscard]] inline InitialWeights weights_of_tokens(const at::Tensor& x, const at::Tensor& y, std::int64_t d_sae,
                                                      std::uint64_t seed) {
  auto read = make::empty({d_sae, x.size(1)}, x.options());
  auto written = make::empty({d_sae, y.size(1)}, x.options());
  for (std::int64_t from = 0, round = 0; from < d_sae; from += x.size(0), ++round) {
    const auto count = std::min(x.size(0), d_sae - from);
    const auto put = [&](at::Tensor& rows, const at::Tensor& values, const at::Tensor& tokens, double share) {
      rows.narrow(0, from, count).add_(unit_rows(values.index_select(0, tokens)), share);
    };
    read.narrow(0, from, count).zero_();
    written.narrow(0, from, count).zero_();
    const auto tokens = draw_sample(x, count, seed + static_cast<std::uint64_t>(round));
    put(read, x, tokens, 1.0);
    put(written, y, tokens, 1.0);
    if (round == 0) continue;
    const auto other = draw_sample(x, count, ~seed - static_cast<std::uint64_t>(round));
    put(read, x, other, 0.5);
    put(written, y, other, 0.5);
  }
  return {unit_rows(read).t().contiguous(), unit_rows(written)};
}

}  // namespace circuit::train::detail

namespace circuit::train {

inline InitialWeights initial_weights(const at::Tensor& x, const at::Tensor& y, std::int64_t d_sae, Start start,
                                      std::uint64_t seed) {
  if (start == Start::tokens) return detail::weights_of_tokens(x, y, d_sae, seed);
  const auto directions = detail::unit_rows(detail::random_rows(d_sae, x.size(1), x.options(), seed));
  const auto W_enc = directions.t().contiguous();
  if (x.is_same(y)) return {W_enc, directions.clone()};
  const auto few = std::min<std::int64_t>(4096, x.size(0));
  const auto fires = x.narrow(0, 0, few).matmul(W_enc).relu_();
  return {W_enc, detail::unit_rows(fires.t().matmul(y.narrow(0, 0, few)))};
}

}  // namespace circuit::train
