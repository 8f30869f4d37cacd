#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/dictionary/train/activation.hpp"
#include "circuit/dictionary/train/adam.hpp"
#include "circuit/dictionary/train/dead_features.hpp"
#include "circuit/dictionary/train/initial_weights.hpp"

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

/// One dictionary in training. Inputs and targets are centred at a first sample's mean and scaled by its size;
/// gradients are written out, so that a step costs five matrix products and little else.
template <TrainableActivation A, DeadRule Dead = dead::Ignored>
class Trainer {
 public:
  /// x  [tokens, d_in] and y [tokens, d_out]: the sample that sets means, scales and where features start.
  /// throws  ShapeError, DTypeError, ValueError (an empty sample, NaN), ConfigError (options that cannot be)
  Trainer(const at::Tensor& x, const at::Tensor& y, Target target, const Options& options, A activation = {},
          Dead dead_rule = {});

  /// Learns from a batch. x [n, d_in]  y [n, d_out]
  /// throws  ShapeError;  ValueError  when the loss is not finite any more
  StepReport step(const at::Tensor& x, const at::Tensor& y);

  /// The gradients that `step` follows, before any clipping: W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_out], b_out,
  /// W_skip where there is one, and the activation's own.
  [[nodiscard]] std::vector<at::Tensor> gradients(const at::Tensor& x, const at::Tensor& y) { return pass(x, y).grads; }

  /// The dictionary in the activations' own units, its decoder rows of length 1 where the activation allows that.
  [[nodiscard]] SparseDictionary<> finish(const std::string& name = {}) const;

  [[nodiscard]] std::int64_t steps_done() const noexcept { return step_; }
  [[nodiscard]] const A& activation() const noexcept { return activation_; }
  [[nodiscard]] std::int64_t d_in() const { return center_in_.size(0); }
  [[nodiscard]] std::int64_t d_out() const { return center_out_.size(0); }

  /// Calls use(name, tensor or number) for everything that later steps and `finish` depend on, batches apart.
  template <class Use>
  void visit_state(Use&& use);

 private:
  struct Weights {
    at::Tensor W_enc, b_enc, W_dec, b_out, W_skip;
  };
  /// One batch forth and back.
  struct Pass {
    StepReport report{};
    at::Tensor x, pre, error, dead;
    std::vector<at::Tensor> grads{};
  };
  static constexpr std::size_t i_W_enc = 0, i_b_enc = 1, i_W_dec = 2, i_b_out = 3, i_W_skip = 4;

  void check(const at::Tensor& x, const at::Tensor& y) const;
  void start(const at::Tensor& x, const at::Tensor& y);
  /// What pre-activations are multiplied by so that what is written is nearest the target.
  [[nodiscard]] double best_gain(const at::Tensor& pre, const at::Tensor& W_dec, const at::Tensor& target) const;
  [[nodiscard]] Weights weights() const {
    const auto& p = adam_.params();
    return {p[i_W_enc], p[i_b_enc], p[i_W_dec], p[i_b_out], has_skip() ? p[i_W_skip] : at::Tensor{}};
  }
  [[nodiscard]] bool has_skip() const noexcept { return target_ == Target::other_with_skip; }
  [[nodiscard]] double price_scale() const {
    if (options_.price_warm_up <= 0) return 1.0;
    return std::min(1.0, static_cast<double>(step_ + 1) / static_cast<double>(options_.price_warm_up));
  }
  void count_fires(const at::Tensor& fires, std::int64_t tokens);
  [[nodiscard]] at::Tensor dead_features(std::int64_t batch) const;
  /// Memory [n, d_sae] that is used again in every step; new pages each time would cost as much as what is done in
  /// them.
  [[nodiscard]] at::Tensor scratch(at::Tensor& kept, std::int64_t n) const {
    if (!kept.defined() || kept.size(0) < n) kept = make::zeros({n, options_.features}, center_in_.options());
    return kept.narrow(0, 0, n);
  }
  [[nodiscard]] Pass pass(const at::Tensor& raw_x, const at::Tensor& raw_y);
  void update(std::vector<at::Tensor>& grads, StepReport& report);
  void replace(const Replacement& replacement);

  Target target_;
  Options options_;
  A activation_;
  [[no_unique_address]] Dead dead_;
  at::Tensor center_in_;
  at::Tensor center_out_;
  double size_in_ = 1.0;
  double size_out_ = 1.0;
  Adam adam_;
  at::Tensor unfired_;     // [d_sae] int64  tokens since a feature fired
  at::Tensor late_fires_;  // [d_sae] of the last 30 % of the steps
  std::int64_t step_ = 0;
  at::Tensor pre_;        // scratch
  at::Tensor grad_acts_;  // scratch
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

}  // namespace circuit::train::detail

namespace circuit::train {

template <TrainableActivation A, DeadRule Dead>
Trainer<A, Dead>::Trainer(const at::Tensor& x, const at::Tensor& y, Target target, const Options& options, A activation,
                          Dead dead_rule)
    : target_{target}, options_{options}, activation_{std::move(activation)}, dead_{std::move(dead_rule)} {
  const c10::AutoGradMode no_gradient{false};
  check_shape(x, {-1, -1}, "sample");
  check_shape(y, {x.size(0), target == Target::same ? x.size(1) : -1}, "target of the sample");
  check_compute_dtype(x.scalar_type(), "sample");
  if (x.size(0) < 2) {
    throw ValueError{{.tensor = "sample", .expected = "at least 2 tokens", .got = std::to_string(x.size(0))}};
  }
  check_finite(x, "sample");
  check_finite(y, "target of the sample");
  detail::check_number(options_.schedule.rate, "rate", /*zero_allowed=*/false);
  for (const auto& [count, name] : {std::pair{options_.features, "features"}, {options_.schedule.steps, "steps"}}) {
    if (count >= 1) continue;
    throw ConfigError{{.tensor = name, .expected = "at least 1", .got = std::to_string(count)}};
  }
  activation_.start(options_.features, x);
  start(x, y);
}

template <TrainableActivation A, DeadRule Dead>
void Trainer<A, Dead>::start(const at::Tensor& x, const at::Tensor& y) {
  center_in_ = x.mean(0);
  center_out_ = y.mean(0);
  size_in_ = detail::size_of(x.sub(center_in_));
  size_out_ = detail::size_of(y.sub(center_out_));
  const auto F = options_.features;
  const auto like = x.options();
  const auto centered = x.sub(center_in_).div_(size_in_);
  const auto target = target_ == Target::same ? centered : y.sub(center_out_).div_(size_out_);
  auto [W_enc, W_dec] = initial_weights(centered, target, F, options_.start, options_.seed);
  if (options_.decoder == DecoderRows::free) W_dec.mul_(0.7);
  const double bias = options_.start == Start::tokens ? A::initial_bias : 0.0;
  if (!A::rescales) {
    const auto few = std::min<std::int64_t>(4096, x.size(0));
    W_enc.mul_(best_gain(centered.narrow(0, 0, few).matmul(W_enc), W_dec, target.narrow(0, 0, few)));
  }
  std::vector<at::Tensor> params{W_enc, make::full({F}, bias, like), W_dec, make::zeros({y.size(1)}, like)};
  if (has_skip()) params.push_back(make::zeros({x.size(1), y.size(1)}, like));
  for (const auto& own : activation_.params()) params.push_back(own);
  adam_ = Adam{std::move(params), options_.adam};
  unfired_ = make::zeros({F}, like.dtype(at::kLong));
  late_fires_ = make::zeros({F}, like);
}

template <TrainableActivation A, DeadRule Dead>
double Trainer<A, Dead>::best_gain(const at::Tensor& pre, const at::Tensor& W_dec, const at::Tensor& target) const {
  auto untrained = activation_;
  const auto out = untrained.activate(pre).matmul(W_dec);
  const auto squares = out.square().sum().template item<double>();
  const auto gain = squares > 0 ? out.mul(target).sum().template item<double>() / squares : 1.0;
  return std::clamp(gain, 1e-3, 10.0);
}

template <TrainableActivation A, DeadRule Dead>
void Trainer<A, Dead>::check(const at::Tensor& x, const at::Tensor& y) const {
  check_shape(x, {-1, d_in()}, "input");
  check_shape(y, {x.size(0), d_out()}, "target");
}

template <TrainableActivation A, DeadRule Dead>
StepReport Trainer<A, Dead>::step(const at::Tensor& x, const at::Tensor& y) {
  const c10::AutoGradMode no_gradient{false};
  auto done = pass(x, y);
  update(done.grads, done.report);
  if (done.report.dead > 0) {
    const auto w = weights();
    const Batch batch{.x = done.x, .pre = done.pre, .error = done.error, .W_enc = w.W_enc, .W_dec = w.W_dec};
    const auto seed = options_.seed ^ (static_cast<std::uint64_t>(step_ + 1) << 20U);
    replace(dead_.replace(batch, done.dead, step_, options_.schedule.steps, seed));
  }
  ++step_;
  return done.report;
}

template <TrainableActivation A, DeadRule Dead>
auto Trainer<A, Dead>::pass(const at::Tensor& raw_x, const at::Tensor& raw_y) -> Pass {
  const c10::AutoGradMode no_gradient{false};
  check(raw_x, raw_y);
  const auto x = raw_x.sub(center_in_).div_(size_in_);
  const auto y = target_ == Target::same ? x : raw_y.sub(center_out_).div_(size_out_);
  const auto n = static_cast<double>(x.size(0));
  const auto w = weights();
  auto pre = scratch(pre_, x.size(0)).addmm_(x, w.W_enc, /*beta=*/0).add_(w.b_enc);
  const auto acts = activation_.activate(pre);
  const auto fires = acts.sign().sum(0);  // [d_sae]; activations are never below 0
  auto error = w.b_out.addmm(acts, w.W_dec);
  if (has_skip()) error.addmm_(x, w.W_skip);
  error.sub_(y);

  Pass done{.x = x, .pre = pre, .error = error, .dead = {}};
  const auto grad_out = error.mul(2.0 / n);
  const double active = fires.sum().template item<double>() / n;
  const auto lengths = w.W_dec.norm(2, {-1});
  auto pull =
      activation_.pull_back({.pre = pre,
                             .acts = acts,
                             .grad_acts = scratch(grad_acts_, x.size(0)).addmm_(grad_out, w.W_dec.t(), /*beta=*/0),
                             .lengths = lengths,
                             .active = active,
                             .price_scale = price_scale()});
  Gradients gradients{
      .W_enc = x.t().matmul(pull.grad_pre), .b_enc = pull.grad_pre.sum(0), .W_dec = acts.t().matmul(grad_out)};
  if (pull.grad_lengths.defined() && options_.decoder == DecoderRows::free) {
    gradients.W_dec.add_(w.W_dec.mul(pull.grad_lengths.div(lengths.clamp_min(1e-12)).unsqueeze(-1)));
  }
  count_fires(fires, x.size(0));
  done.dead = dead_features(x.size(0));
  done.report = {.error = error.square().sum().template item<double>() / n,
                 .price = pull.price,
                 .active = active,
                 .dead = done.dead.numel()};
  const Batch batch{.x = x, .pre = pre, .error = error, .W_enc = w.W_enc, .W_dec = w.W_dec};
  if (done.report.dead > 0) done.report.revived = dead_.revive(batch, done.dead, gradients);
  if (options_.decoder == DecoderRows::unit) {
    gradients.W_dec.sub_(w.W_dec.mul(gradients.W_dec.mul(w.W_dec).sum(-1, /*keepdim=*/true)));
  }
  done.grads = {gradients.W_enc, gradients.b_enc, gradients.W_dec, grad_out.sum(0)};
  if (has_skip()) done.grads.push_back(x.t().matmul(grad_out));
  for (auto& grad : pull.grads) done.grads.push_back(std::move(grad));
  return done;
}

template <TrainableActivation A, DeadRule Dead>
void Trainer<A, Dead>::count_fires(const at::Tensor& fires, std::int64_t tokens) {
  unfired_.add_(tokens).masked_fill_(fires.gt(0), 0);
  if (step_ * 10 >= options_.schedule.steps * 7) late_fires_.add_(fires);
}

template <TrainableActivation A, DeadRule Dead>
at::Tensor Trainer<A, Dead>::dead_features(std::int64_t batch) const {
  const auto after = dead_.dead_after(batch);
  if (after <= 0) return make::empty({0}, unfired_.options());
  return unfired_.ge(after).nonzero().squeeze(-1);
}

template <TrainableActivation A, DeadRule Dead>
void Trainer<A, Dead>::update(std::vector<at::Tensor>& grads, StepReport& report) {
  report.norm = detail::clip_norm(grads, options_.clip);
  if (!std::isfinite(report.norm) || !std::isfinite(report.error)) {
    throw ValueError{{.tensor = "loss",
                      .problem = "is not finite any more at step " + std::to_string(step_),
                      .hint = "lower the learning rate, or look for NaN among the activations"}};
  }
  adam_.step(grads, options_.schedule.at_step(step_));
  if (options_.decoder == DecoderRows::free) return;
  const auto W_dec = weights().W_dec;
  W_dec.div_(W_dec.norm(2, {-1}, /*keepdim=*/true).clamp_min_(1e-12));
}

template <TrainableActivation A, DeadRule Dead>
void Trainer<A, Dead>::replace(const Replacement& r) {
  if (!r.features.defined()) return;
  const auto w = weights();
  w.W_enc.index_copy_(1, r.features, r.readers.t());
  w.b_enc.index_copy_(0, r.features, r.b_enc);
  w.W_dec.index_copy_(0, r.features, r.writers.mul(options_.decoder == DecoderRows::unit ? 1.0 : 0.5));
  adam_.forget(i_W_enc, 1, r.features);
  adam_.forget(i_b_enc, 0, r.features);
  adam_.forget(i_W_dec, 0, r.features);
  unfired_.index_fill_(0, r.features, 0);
}

template <TrainableActivation A, DeadRule Dead>
SparseDictionary<> Trainer<A, Dead>::finish(const std::string& name) const {
  const c10::AutoGradMode no_gradient{false};
  const auto w = weights();
  const auto kept = late_fires_.ge(options_.least_fired).nonzero().squeeze(-1);
  const auto rows = w.W_dec.index_select(0, kept);
  const auto length = A::rescales ? rows.norm(2, {-1}).clamp_min_(1e-12) : make::ones({kept.numel()}, rows.options());
  const auto scale = length.mul(size_out_);  // of a feature's activations
  SparseDictionary<> d;
  d.name = name;
  d.W_enc = w.W_enc.index_select(1, kept).mul_(scale).div_(size_in_).contiguous();
  d.W_dec = rows.div(length.unsqueeze(-1)).contiguous();
  d.b_out = w.b_out.mul(size_out_).add_(center_out_);
  if (has_skip()) {
    d.W_skip = w.W_skip.mul(size_out_ / size_in_);
    d.b_out = d.b_out.sub(center_in_.matmul(d.W_skip));
  }
  // What the encoder reads is x - b_in here and x - center_in_ in training.
  auto moved = center_in_.neg();
  if (target_ == Target::same) {
    d.b_in = d.b_out;
    moved = moved.add(d.b_in);
  }
  d.b_enc = w.b_enc.index_select(0, kept).mul(scale).add_(moved.matmul(d.W_enc));
  d.activation = activation_.finish(kept, scale);
  return d;
}

template <TrainableActivation A, DeadRule Dead>
template <class Use>
void Trainer<A, Dead>::visit_state(Use&& use) {
  adam_.visit_state(use);
  activation_.visit_state(use);
  use("center_in", center_in_);
  use("center_out", center_out_);
  use("size_in", size_in_);
  use("size_out", size_out_);
  use("unfired", unfired_);
  use("late_fires", late_fires_);
  use("step", step_);
}

}  // namespace circuit::train
