#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/activation.hpp"
#include "circuit/dictionary/train/adam.hpp"
#include "circuit/dictionary/train/dead_features.hpp"
#include "circuit/dictionary/train/initial_weights.hpp"
#include "circuit/dictionary/train/products.hpp"

namespace circuit::train {

/// What a dictionary in training describes.
enum class Target {
  same,             ///< what it reads: an SAE, whose output bias is also subtracted on the way in
  other,            ///< something else: a transcoder
  other_with_skip,  ///< the same beside a linear path from input to output
};

/// What is done about the lengths of decoder rows.
enum class DecoderRows {
  unit,  ///< kept at 1: gradients along a row are taken out, and rows brought back after each step
  free,  ///< trained; a price on activations counts them
};

struct Options {
  std::int64_t features = 1024;
  Schedule schedule{};
  Adam::Options adam{};
  DecoderRows decoder = DecoderRows::unit;
  Start start = Start::tokens;
  double clip = 1.0;               ///< largest norm of a dictionary's gradient; 0: any
  std::int64_t price_warm_up = 0;  ///< steps over which the price of being active rises from 0
  double least_fired = 0.0;        ///< features that fire less often over the last 30 % of the steps are left out
  std::uint64_t seed = 1;
};

/// What one step found, before it changed anything. Squared errors are in units in which targets have mean squared
/// distance 1 from their mean.
struct StepReport {
  double error = 0.0;    ///< mean squared error; 1 - error is the explained variance of this batch
  double price = 0.0;    ///< paid for being active
  double revived = 0.0;  ///< the dead rule's part of the loss
  double active = 0.0;   ///< mean number of active features per token
  double norm = 0.0;     ///< of the gradient, before clipping
  std::int64_t dead = 0;
};

/// The features of one encoder in training: what they make of a batch, and the gradients that they then have. Weights
/// belong to whoever trains it.
template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
class FeatureBlock {
 public:
  struct Weights {
    at::Tensor W_enc;  ///< [d_in, d_sae]
    at::Tensor b_enc;  ///< [d_sae]
    at::Tensor W_dec;  ///< [d_sae, width]: all that a feature writes
  };
  /// What a batch asks of the features.
  struct Pull {
    Gradients gradients{};
    std::vector<at::Tensor> own{};  ///< of the activation's own parameters
    at::Tensor dead{};              ///< [m] int64
    double price = 0.0;
    double active = 0.0;  ///< mean number of active features per token
    double revived = 0.0;
  };

  /// throws  ConfigError  for options that cannot be
  FeatureBlock(const Options& options, A activation, Dead dead_rule, Products products);

  /// Makes what is kept between steps, of a sample's dtype and device.
  /// throws  ConfigError  for an activation's settings that cannot be
  void start(const at::Tensor& sample);

  /// Weights before any training. x [n, d_in] and y [n, width] centred, one tensor for an SAE
  [[nodiscard]] Weights initial(const at::Tensor& x, const at::Tensor& y, std::uint64_t seed) const;

  /// x [n, d_in]  return [n, d_sae]; keeps pre-activations for `pull_back`
  [[nodiscard]] at::Tensor activate(const at::Tensor& x, const Weights& w);

  /// The gradients of what `activate` just did. error [n, width]: all that was written less what was wanted; grad_out
  /// [n, width]: the loss' gradient by it
  [[nodiscard]] Pull pull_back(const at::Tensor& x, const Weights& w, const at::Tensor& acts, const at::Tensor& error,
                               const at::Tensor& grad_out, std::int64_t step);

  /// What is to be set anew after a step; those features count as having fired.
  [[nodiscard]] Replacement replacement(const at::Tensor& x, const Weights& w, const at::Tensor& error,
                                        const at::Tensor& dead, std::int64_t step, std::uint64_t seed) {
    const Batch batch{.x = x, .pre = pre_.narrow(0, 0, x.size(0)), .error = error, .W_enc = w.W_enc, .W_dec = w.W_dec};
    auto out = dead_.replace(batch, dead, step, options_.schedule.steps, seed);
    if (out.features.defined()) unfired_.index_fill_(0, out.features, 0);
    return out;
  }

  [[nodiscard]] const A& activation() const noexcept { return activation_; }
  [[nodiscard]] const at::Tensor& late_fires() const noexcept { return late_fires_; }

  /// Calls use(name, tensor or number) for all that later steps depend on, weights apart.
  template <class Use>
  void visit_state(Use&& use) {
    activation_.visit_state(use);
    use("unfired", unfired_);
    use("late_fires", late_fires_);
  }

 private:
  [[nodiscard]] double price_scale(std::int64_t step) const {
    if (options_.price_warm_up <= 0) return 1.0;
    return std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(options_.price_warm_up));
  }
  void count_fires(const at::Tensor& fires, std::int64_t tokens, std::int64_t step) {
    unfired_.add_(tokens).masked_fill_(fires.gt(0), 0);
    if (step * 10 >= options_.schedule.steps * 7) late_fires_.add_(fires);
  }
  [[nodiscard]] at::Tensor dead_features(std::int64_t batch) const {
    const auto after = dead_.dead_after(batch);
    if (after <= 0) return make::empty({0}, unfired_.options());
    return unfired_.ge(after).nonzero().squeeze(-1);
  }
  /// Memory [n, d_sae] that is used again in every step; new pages each time would cost as much as what is done in
  /// them.
  [[nodiscard]] at::Tensor scratch(at::Tensor& kept, std::int64_t n) const {
    if (!kept.defined() || kept.size(0) < n) kept = make::zeros({n, options_.features}, late_fires_.options());
    return kept.narrow(0, 0, n);
  }

  Options options_;
  A activation_;
  [[no_unique_address]] Dead dead_;
  [[no_unique_address]] Products products_;
  at::Tensor unfired_;     // [d_sae] int64  tokens since a feature fired
  at::Tensor late_fires_;  // [d_sae] of the last 30 % of the steps
  at::Tensor pre_;         // scratch
  at::Tensor grad_acts_;   // scratch
};

}  // namespace circuit::train

namespace circuit::train::detail {

/// Root of the mean squared length of rows.
[[nodiscard]] inline double size_of(const at::Tensor& rows) {
  return std::sqrt(rows.square().sum(-1).mean().template item<double>()) + 1e-9;
}

/// Brings a gradient of all parameters together to a norm of at most `most` (0: any). return the norm it had
inline double clip_norm(std::vector<at::Tensor>& grads, double most) {
  double squares = 0.0;
  for (const auto& grad : grads) squares += std::pow(grad.norm().template item<double>(), 2);
  const double norm = std::sqrt(squares);
  if (most > 0 && norm > most) {
    for (auto& grad : grads) grad.mul_(most / norm);
  }
  return norm;
}

/// throws  ValueError  when a step's loss or gradient is not finite any more
inline void check_step(const StepReport& report, std::int64_t step) {
  if (std::isfinite(report.norm) && std::isfinite(report.error)) return;
  throw ValueError{{.tensor = "loss",
                    .problem = "is not finite any more at step " + std::to_string(step),
                    .hint = "lower the learning rate, or look for NaN among the activations"}};
}

/// What pre-activations are multiplied by so that what is written is nearest the target.
template <TrainableActivation A>
[[nodiscard]] double best_gain(A untrained, const at::Tensor& pre, const at::Tensor& W_dec, const at::Tensor& target) {
  const auto out = untrained.activate(pre).matmul(W_dec);
  const auto squares = out.square().sum().template item<double>();
  const auto gain = squares > 0 ? out.mul(target).sum().template item<double>() / squares : 1.0;
  return std::clamp(gain, 1e-3, 10.0);
}

/// Brings rows to length 1, in place.
inline void to_unit_length(const at::Tensor& rows) {
  rows.div_(rows.norm(2, {-1}, /*keepdim=*/true).clamp_min_(1e-12));
}

/// Sets features anew whose W_enc, b_enc and W_dec are the parameters from `first` on.
inline void replace_features(Adam& adam, std::size_t first, const Replacement& r, DecoderRows decoder) {
  if (!r.features.defined()) return;
  const auto& p = adam.params();
  p[first].index_copy_(1, r.features, r.readers.t());
  p[first + 1].index_copy_(0, r.features, r.b_enc);
  p[first + 2].index_copy_(0, r.features, r.writers.mul(decoder == DecoderRows::unit ? 1.0 : 0.5));
  adam.forget(first, 1, r.features);
  adam.forget(first + 1, 0, r.features);
  adam.forget(first + 2, 0, r.features);
}

}  // namespace circuit::train::detail

namespace circuit::train {

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
FeatureBlock<A, Dead, Products>::FeatureBlock(const Options& options, A activation, Dead dead_rule, Products products)
    : options_{options},
      activation_{std::move(activation)},
      dead_{std::move(dead_rule)},
      products_{std::move(products)} {
  detail::check_number(options_.schedule.rate, "rate", /*zero_allowed=*/false);
  for (const auto& [count, name] : {std::pair{options_.features, "features"}, {options_.schedule.steps, "steps"}}) {
    if (count >= 1) continue;
    throw ConfigError{{.tensor = name, .expected = "at least 1", .got = std::to_string(count)}};
  }
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void FeatureBlock<A, Dead, Products>::start(const at::Tensor& sample) {
  activation_.start(options_.features, sample);
  unfired_ = make::zeros({options_.features}, sample.options().dtype(at::kLong));
  late_fires_ = make::zeros({options_.features}, sample.options());
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
auto FeatureBlock<A, Dead, Products>::initial(const at::Tensor& x, const at::Tensor& y, std::uint64_t seed) const
    -> Weights {
  auto [W_enc, W_dec] = initial_weights(x, y, options_.features, options_.start, seed);
  if (options_.decoder == DecoderRows::free) W_dec.mul_(0.7);
  const double bias = options_.start == Start::tokens ? A::initial_bias : 0.0;
  if (!A::rescales) {
    const auto few = std::min<std::int64_t>(4096, x.size(0));
    W_enc.mul_(detail::best_gain(activation_, x.narrow(0, 0, few).matmul(W_enc), W_dec, y.narrow(0, 0, few)));
  }
  return {W_enc, make::full({options_.features}, bias, x.options()), W_dec};
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
at::Tensor FeatureBlock<A, Dead, Products>::activate(const at::Tensor& x, const Weights& w) {
  auto pre = scratch(pre_, x.size(0));
  products_.write(pre, x, w.W_enc);
  return activation_.activate(pre.add_(w.b_enc));
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
auto FeatureBlock<A, Dead, Products>::pull_back(const at::Tensor& x, const Weights& w, const at::Tensor& acts,
                                                const at::Tensor& error, const at::Tensor& grad_out, std::int64_t step)
    -> Pull {
  const auto tokens = x.size(0);
  const auto pre = scratch(pre_, tokens);
  const auto fires = acts.sign().sum(0);  // [d_sae]; activations are never below 0
  Pull out;
  out.active = fires.sum().template item<double>() / static_cast<double>(tokens);
  const auto lengths = w.W_dec.norm(2, {-1});
  const auto grad_acts = scratch(grad_acts_, tokens);
  products_.write(grad_acts, grad_out, w.W_dec.t());
  auto pull = activation_.pull_back({.pre = pre,
                                     .acts = acts,
                                     .grad_acts = grad_acts,
                                     .lengths = lengths,
                                     .active = out.active,
                                     .price_scale = price_scale(step)});
  out.price = pull.price;
  out.own = std::move(pull.grads);
  out.gradients = {.W_enc = products_.product(x.t(), pull.grad_pre),
                   .b_enc = pull.grad_pre.sum(0),
                   .W_dec = products_.product(acts.t(), grad_out)};
  auto& W_dec = out.gradients.W_dec;
  if (pull.grad_lengths.defined() && options_.decoder == DecoderRows::free) {
    W_dec.add_(w.W_dec.mul(pull.grad_lengths.div(lengths.clamp_min(1e-12)).unsqueeze(-1)));
  }
  count_fires(fires, tokens, step);
  out.dead = dead_features(tokens);
  const Batch batch{.x = x, .pre = pre, .error = error, .W_enc = w.W_enc, .W_dec = w.W_dec};
  if (out.dead.numel() > 0) out.revived = dead_.revive(batch, out.dead, out.gradients);
  if (options_.decoder == DecoderRows::unit) W_dec.sub_(w.W_dec.mul(W_dec.mul(w.W_dec).sum(-1, /*keepdim=*/true)));
  return out;
}

}  // namespace circuit::train
