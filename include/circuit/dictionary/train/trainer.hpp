#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/dictionary/train/adam.hpp"
#include "circuit/dictionary/train/feature_block.hpp"

namespace circuit::train {

/// One dictionary in training. Inputs and targets are centred at a first sample's mean and scaled by its size;
/// gradients are written out, so that a step costs five matrix products and little else.
template <TrainableActivation A, DeadRule Dead = dead::Ignored, MatrixProducts Products = products::Full>
class Trainer {
 public:
  /// x  [tokens, d_in] and y [tokens, d_out]: the sample that sets means, scales and where features start.
  /// throws  ShapeError, DTypeError, ValueError (an empty sample, NaN), ConfigError (options that cannot be)
  Trainer(const at::Tensor& x, const at::Tensor& y, Target target, const Options& options, A activation = {},
          Dead dead_rule = {}, Products products = {});

  /// Learns from a batch. x [n, d_in]  y [n, d_out]
  /// throws  ShapeError;  ValueError  when the loss is not finite any more
  StepReport step(const at::Tensor& x, const at::Tensor& y);

  /// The gradients that `step` follows, before any clipping: W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_out], b_out,
  /// W_skip where there is one, and the activation's own. What a pass moves it moves too: the price of being active, the
  /// counts of fires and a threshold.
  [[nodiscard]] std::vector<at::Tensor> gradients(const at::Tensor& x, const at::Tensor& y) { return pass(x, y).grads; }

  /// The dictionary in the activations' own units, its decoder rows of length 1 where the activation allows that.
  [[nodiscard]] SparseDictionary<> finish(const std::string& name = {}) const;

  [[nodiscard]] std::int64_t steps_done() const noexcept { return step_; }
  [[nodiscard]] const A& activation() const noexcept { return block_.activation(); }
  [[nodiscard]] std::int64_t d_in() const { return center_in_.size(0); }
  [[nodiscard]] std::int64_t d_out() const { return center_out_.size(0); }

  /// Calls use(name, tensor or number) for everything that later steps and `finish` depend on, batches apart.
  template <class Use>
  void visit_state(Use&& use);

 private:
  using Block = FeatureBlock<A, Dead, Products>;
  /// One batch forth and back.
  struct Pass {
    StepReport report{};
    at::Tensor x, error, dead;
    std::vector<at::Tensor> grads{};
  };
  static constexpr std::size_t i_W_enc = 0, i_b_enc = 1, i_W_dec = 2, i_b_out = 3, i_W_skip = 4;

  void check(const at::Tensor& x, const at::Tensor& y) const;
  void start(const at::Tensor& x, const at::Tensor& y);
  [[nodiscard]] typename Block::Weights weights() const {
    const auto& p = adam_.params();
    return {p[i_W_enc], p[i_b_enc], p[i_W_dec]};
  }
  [[nodiscard]] bool has_skip() const noexcept { return target_ == Target::other_with_skip; }
  [[nodiscard]] Pass pass(const at::Tensor& raw_x, const at::Tensor& raw_y);
  void update(std::vector<at::Tensor>& grads, StepReport& report);

  Target target_;
  Options options_;
  [[no_unique_address]] Products products_;
  Block block_;
  at::Tensor center_in_;
  at::Tensor center_out_;
  double size_in_ = 1.0;
  double size_out_ = 1.0;
  Adam adam_;
  std::int64_t step_ = 0;
};

}  // namespace circuit::train

namespace circuit::train {

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
Trainer<A, Dead, Products>::Trainer(const at::Tensor& x, const at::Tensor& y, Target target, const Options& options,
                                    A activation, Dead dead_rule, Products products)
    : target_{target},
      options_{options},
      products_{products},
      block_{options, std::move(activation), std::move(dead_rule), std::move(products)} {
  const c10::AutoGradMode no_gradient{false};
  check_shape(x, {-1, -1}, "sample");
  check_shape(y, {x.size(0), target == Target::same ? x.size(1) : -1}, "target of the sample");
  check_compute_dtype(x.scalar_type(), "sample");
  if (x.size(0) < 2) {
    throw ValueError{{.tensor = "sample", .expected = "at least 2 tokens", .got = std::to_string(x.size(0))}};
  }
  check_finite(x, "sample");
  check_finite(y, "target of the sample");
  block_.start(x);
  start(x, y);
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void Trainer<A, Dead, Products>::start(const at::Tensor& x, const at::Tensor& y) {
  center_in_ = x.mean(0);
  center_out_ = y.mean(0);
  size_in_ = detail::size_of(x.sub(center_in_));
  size_out_ = detail::size_of(y.sub(center_out_));
  const auto centered = x.sub(center_in_).div_(size_in_);
  const auto target = target_ == Target::same ? centered : y.sub(center_out_).div_(size_out_);
  const auto w = block_.initial(centered, target, options_.seed);
  std::vector<at::Tensor> params{w.W_enc, w.b_enc, w.W_dec, make::zeros({y.size(1)}, x.options())};
  if (has_skip()) params.push_back(make::zeros({x.size(1), y.size(1)}, x.options()));
  for (const auto& own : activation().params()) params.push_back(own);
  adam_ = Adam{std::move(params), options_.adam};
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void Trainer<A, Dead, Products>::check(const at::Tensor& x, const at::Tensor& y) const {
  check_shape(x, {-1, d_in()}, "input");
  check_shape(y, {x.size(0), d_out()}, "target");
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
StepReport Trainer<A, Dead, Products>::step(const at::Tensor& x, const at::Tensor& y) {
  const c10::AutoGradMode no_gradient{false};
  auto done = pass(x, y);
  update(done.grads, done.report);
  if (done.report.dead > 0) {
    const auto seed = options_.seed ^ (static_cast<std::uint64_t>(step_ + 1) << 20U);
    detail::replace_features(adam_, i_W_enc, block_.replacement(done.x, weights(), done.error, done.dead, step_, seed),
                             options_.decoder);
  }
  ++step_;
  return done.report;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
auto Trainer<A, Dead, Products>::pass(const at::Tensor& raw_x, const at::Tensor& raw_y) -> Pass {
  const c10::AutoGradMode no_gradient{false};
  check(raw_x, raw_y);
  const auto x = raw_x.sub(center_in_).div_(size_in_);
  const auto y = target_ == Target::same ? x : raw_y.sub(center_out_).div_(size_out_);
  const auto n = static_cast<double>(x.size(0));
  const auto w = weights();
  const auto acts = block_.activate(x, w);
  const auto& p = adam_.params();
  auto error = p[i_b_out].expand(y.sizes()).clone();
  products_.add(error, acts, w.W_dec);
  if (has_skip()) products_.add(error, x, p[i_W_skip]);
  error.sub_(y);

  const auto grad_out = error.mul(2.0 / n);
  auto pull = block_.pull_back(x, w, acts, error, grad_out, step_);
  Pass done{.x = x, .error = error, .dead = pull.dead};
  done.report = {.error = error.square().sum().template item<double>() / n,
                 .price = pull.price,
                 .revived = pull.revived,
                 .active = pull.active,
                 .dead = pull.dead.numel()};
  done.grads = {pull.gradients.W_enc, pull.gradients.b_enc, pull.gradients.W_dec, grad_out.sum(0)};
  if (has_skip()) done.grads.push_back(products_.product(x.t(), grad_out));
  for (auto& grad : pull.own) done.grads.push_back(std::move(grad));
  return done;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void Trainer<A, Dead, Products>::update(std::vector<at::Tensor>& grads, StepReport& report) {
  report.norm = detail::clip_norm(grads, options_.clip);
  detail::check_step(report, step_);
  adam_.step(grads, options_.schedule.at_step(step_));
  if (options_.decoder == DecoderRows::unit) detail::to_unit_length(weights().W_dec);
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
SparseDictionary<> Trainer<A, Dead, Products>::finish(const std::string& name) const {
  const c10::AutoGradMode no_gradient{false};
  const auto w = weights();
  const auto kept = block_.late_fires().ge(options_.least_fired).nonzero().squeeze(-1);
  const auto rows = w.W_dec.index_select(0, kept);
  const auto length = A::rescales ? rows.norm(2, {-1}).clamp_min_(1e-12) : make::ones({kept.numel()}, rows.options());
  const auto scale = length.mul(size_out_);  // of a feature's activations
  SparseDictionary<> d;
  d.name = name;
  d.W_enc = w.W_enc.index_select(1, kept).mul_(scale).div_(size_in_).contiguous();
  d.W_dec = rows.div(length.unsqueeze(-1)).contiguous();
  d.b_out = adam_.params()[i_b_out].mul(size_out_).add_(center_out_);
  if (has_skip()) {
    d.W_skip = adam_.params()[i_W_skip].mul(size_out_ / size_in_);
    d.b_out = d.b_out.sub(center_in_.matmul(d.W_skip));
  }
  // What the encoder reads is x - b_in here and x - center_in_ in training.
  auto moved = center_in_.neg();
  if (target_ == Target::same) {
    d.b_in = d.b_out;
    moved = moved.add(d.b_in);
  }
  d.b_enc = w.b_enc.index_select(0, kept).mul(scale).add_(moved.matmul(d.W_enc));
  d.activation = activation().finish(kept, scale);
  return d;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
template <class Use>
void Trainer<A, Dead, Products>::visit_state(Use&& use) {
  adam_.visit_state(use);
  block_.visit_state(use);
  use("center_in", center_in_);
  use("center_out", center_out_);
  use("size_in", size_in_);
  use("size_out", size_out_);
  use("step", step_);
}

}  // namespace circuit::train
