#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/activation.hpp"

namespace circuit::train {

/// The gradients that a feature has, of the mean over the batch.
struct Gradients {
  at::Tensor W_enc;  ///< [d_in, d_sae]
  at::Tensor b_enc;  ///< [d_sae]
  at::Tensor W_dec;  ///< [d_sae, d_out]
};

/// A batch and what the dictionary made of it, for the features that did not fire for long.
struct Batch {
  const at::Tensor& x;      ///< [n, d_in]
  const at::Tensor& pre;    ///< [n, d_sae]
  const at::Tensor& error;  ///< [n, d_out]  output less target
  const at::Tensor& W_enc;
  const at::Tensor& W_dec;
};

/// Features set anew: their encoder columns, biases, and decoder rows.
struct Replacement {
  at::Tensor features;  ///< [m] int64
  at::Tensor readers;   ///< [m, d_in]  of length 1
  at::Tensor b_enc;     ///< [m]
  at::Tensor writers;   ///< [m, d_out]  of length 1
};

/// What is done about features that do not fire.
///   dead_after  tokens without firing that make a feature dead, given those of a batch; 0: none ever is
///   revive      may add to a step's gradients; dead [m] int64. return what it adds to the loss
///   replace     after step `step` of `steps`: the features to be set anew, none as an undefined tensor
template <class D>
concept DeadRule = requires(const D& d, const Batch& batch, const at::Tensor& dead, Gradients& gradients,
                            std::int64_t step, std::uint64_t seed) {
  { d.dead_after(step) } -> std::same_as<std::int64_t>;
  { d.revive(batch, dead, gradients) } -> std::same_as<double>;
  { d.replace(batch, dead, step, step, seed) } -> std::same_as<Replacement>;
};

namespace dead {

/// Nothing.
struct Ignored {
  [[nodiscard]] std::int64_t dead_after(std::int64_t /*batch*/) const { return 0; }
  [[nodiscard]] double revive(const Batch&, const at::Tensor&, Gradients&) const { return 0.0; }
  [[nodiscard]] Replacement replace(const Batch&, const at::Tensor&, std::int64_t, std::int64_t, std::uint64_t) const {
    return {};
  }
};

/// Dead features describe what the others missed: the `k` of them with the largest pre-activations, where over 0, pay
/// `weight` times the squared distance of what they write from the error.
/// source  Gao et al. 2024, appendix on dead latents
struct Auxiliary {
  std::int64_t k = 64;
  double weight = 1.0 / 32;
  std::int64_t after = 200'000;  ///< tokens

  [[nodiscard]] std::int64_t dead_after(std::int64_t /*batch*/) const { return after; }
  [[nodiscard]] double revive(const Batch& batch, const at::Tensor& dead, Gradients& gradients) const;
  [[nodiscard]] Replacement replace(const Batch&, const at::Tensor&, std::int64_t, std::int64_t, std::uint64_t) const {
    return {};
  }
};

/// Every so many steps, as long as `until` of them are not over, features that did not fire for half of that time are
/// set on tokens that are described worst: they read what such a token holds and write what was missing. source Bricken
/// et al. 2023, appendix on resampling; shares and sizes are our own
struct Resampled {
  std::int64_t every = 200;  ///< steps
  double until = 0.6;        ///< share of all steps
  double bias = -0.6;        ///< of the token's length

  [[nodiscard]] std::int64_t dead_after(std::int64_t batch) const {
    return std::max<std::int64_t>(1, every * batch / 2);
  }
  [[nodiscard]] double revive(const Batch&, const at::Tensor&, Gradients&) const { return 0.0; }
  [[nodiscard]] Replacement replace(const Batch& batch, const at::Tensor& dead, std::int64_t step, std::int64_t steps,
                                    std::uint64_t seed) const;
};

}  // namespace dead
}  // namespace circuit::train

namespace circuit::train::detail {

/// Rows brought to length 1.
[[nodiscard]] inline at::Tensor unit_rows(const at::Tensor& rows) {
  return rows.div(rows.norm(2, {-1}, /*keepdim=*/true).clamp_min_(1e-12));
}

/// `count` different rows, drawn with probability proportional to their weight. weights [n]  return [count] int64
/// source  Efraimidis and Spirakis 2006
[[nodiscard]] inline at::Tensor draw_rows(const at::Tensor& weights, std::int64_t count, std::uint64_t seed) {
  const auto host = weights.to(at::kCPU, at::kDouble).contiguous();
  const auto* weight = data_of<double>(host);
  std::mt19937_64 engine{seed};
  auto keys = make::empty({host.numel()}, host.options());
  auto* key = keys.template data_ptr<double>();
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    const double uniform = (static_cast<double>(engine() >> 11U) + 0.5) * 0x1p-53;
    key[i] = std::log(uniform) / std::max(weight[i], std::numeric_limits<double>::min());
  }
  return std::get<1>(keys.topk(count)).to(weights.device());
}

/// `count` different rows of x, in random order. return [count] int64
[[nodiscard]] inline at::Tensor draw_sample(const at::Tensor& x, std::int64_t count, std::uint64_t seed) {
  return draw_rows(make::ones({x.size(0)}, x.options()), count, seed);
}

}  // namespace circuit::train::detail

namespace circuit::train::dead {

inline double Auxiliary::revive(const Batch& batch, const at::Tensor& dead, Gradients& gradients) const {
  const auto n = static_cast<double>(batch.x.size(0));
  const auto pre = batch.pre.index_select(1, dead);
  const auto acts = activation::TopK{.k = std::min(k, dead.numel())}.apply(pre);
  const auto rows = batch.W_dec.index_select(0, dead);
  const auto miss = acts.matmul(rows).add_(batch.error);  // what they write, less what was missing
  const double loss = weight / n * miss.square().sum().template item<double>();
  const auto grad_out = miss.mul_(2.0 * weight / n);
  const auto grad_pre = train::detail::where_positive(grad_out.matmul(rows.t()), acts);
  gradients.W_dec.index_add_(0, dead, acts.t().matmul(grad_out));
  gradients.W_enc.index_add_(1, dead, batch.x.t().matmul(grad_pre));
  gradients.b_enc.index_add_(0, dead, grad_pre.sum(0));
  return loss;
}

inline Replacement Resampled::replace(const Batch& batch, const at::Tensor& dead, std::int64_t step, std::int64_t steps,
                                      std::uint64_t seed) const {
  const bool over = static_cast<double>(step) > until * static_cast<double>(steps);
  const auto count = std::min(dead.numel(), batch.x.size(0) / 2);
  if (over || (step + 1) % every != 0 || count == 0) return {};
  const auto tokens = train::detail::draw_rows(batch.error.square().sum(-1), count, seed);
  const auto read = batch.x.index_select(0, tokens);
  return {.features = dead.narrow(0, 0, count),
          .readers = train::detail::unit_rows(read),
          .b_enc = read.norm(2, {-1}).mul(bias),
          .writers = train::detail::unit_rows(batch.error.index_select(0, tokens)).neg()};
}

}  // namespace circuit::train::dead
