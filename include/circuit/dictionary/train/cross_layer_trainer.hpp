#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/dictionary/train/adam.hpp"
#include "circuit/dictionary/train/feature_block.hpp"
#include "circuit/dictionary/train/site.hpp"

namespace circuit::train {

/// A cross-layer transcoder in training: an encoder per layer, whose features write into the outputs of their own layer
/// and of all later ones. With L layers, output m = sum over l <= m of acts_l W_dec_l[:, m - l] + b_m, and + x_m W_skip_m
/// for one with skip paths; the loss is the sum over layers of the mean squared error. Every layer is centred and scaled
/// by itself, so that all count alike.
/// source  Ameisen et al. 2025, section on the cross-layer transcoder; sizes and start are our own
template <TrainableActivation A, DeadRule Dead = dead::Ignored, MatrixProducts Products = products::Full>
class CrossLayerTrainer {
 public:
  /// sample  per layer x [tokens, d_in] and y [tokens, d_out], of the same tokens: set means, scales and starts
  /// throws  ShapeError, DTypeError, ValueError (no layer, an empty sample, NaN)
  /// throws  ConfigError  for options that cannot be, among them leaving features out: layers have equally many; for
  ///                      Target::same
  CrossLayerTrainer(std::span<const TokenBatch> sample, Target target, const Options& options, A activation = {},
                    Dead dead_rule = {}, Products products = {});

  /// Learns from a batch, per layer x [n, d_in] and y [n, d_out]. The report's errors and counts are means over layers.
  /// throws  ShapeError;  ValueError  when the loss is not finite any more
  StepReport step(std::span<const TokenBatch> batch);

  /// The gradients that `step` follows, before any clipping: per layer W_enc [d_in, d_sae], b_enc, W_dec [d_sae, later
  /// * d_out] (its own layer's output first), W_skip [d_in, d_out] where there is one, and the activation's own; then
  /// b_out [L * d_out].
  [[nodiscard]] std::vector<at::Tensor> gradients(std::span<const TokenBatch> batch) { return pass(batch).grads; }

  /// A dictionary per layer in the activations' own units, with W_later for what it writes into later layers.
  [[nodiscard]] std::vector<SparseDictionary<>> finish() const;

  [[nodiscard]] std::int64_t steps_done() const noexcept { return step_; }
  [[nodiscard]] std::int64_t n_layers() const noexcept { return static_cast<std::int64_t>(blocks_.size()); }
  [[nodiscard]] const A& activation(Layer layer) const {
    return blocks_[static_cast<std::size_t>(layer.value)].activation();
  }

  /// Calls use(name, tensor or number) for everything that later steps and `finish` depend on, batches apart.
  template <class Use>
  void visit_state(Use&& use);

 private:
  using Block = FeatureBlock<A, Dead, Products>;
  /// One batch forth and back.
  struct Pass {
    StepReport report{};
    std::vector<at::Tensor> x, dead;  // per layer
    at::Tensor error;                 // [n, L * d_out]
    std::vector<at::Tensor> grads{};
  };

  void check(std::span<const TokenBatch> batch) const;
  void start(std::span<const TokenBatch> sample);
  [[nodiscard]] bool has_skip() const noexcept { return target_ == Target::other_with_skip; }
  [[nodiscard]] std::size_t per_layer() const {
    return 3 + (has_skip() ? 1 : 0) + blocks_.front().activation().params().size();
  }
  [[nodiscard]] const at::Tensor& W_skip(std::size_t layer) const { return adam_.params()[layer * per_layer() + 3]; }
  [[nodiscard]] typename Block::Weights weights(std::size_t layer) const {
    const auto& p = adam_.params();
    const auto first = layer * per_layer();
    return {p[first], p[first + 1], p[first + 2]};
  }
  /// The columns of all outputs side by side that a layer's features write into.
  [[nodiscard]] at::Tensor from_layer(const at::Tensor& outputs, std::size_t layer) const {
    const auto before = static_cast<std::int64_t>(layer) * d_out_;
    return outputs.narrow(1, before, outputs.size(1) - before);
  }
  /// The columns of a layer's own output.
  [[nodiscard]] at::Tensor of_layer(const at::Tensor& outputs, std::size_t layer) const {
    return outputs.narrow(1, static_cast<std::int64_t>(layer) * d_out_, d_out_);
  }
  [[nodiscard]] at::Tensor input(std::span<const TokenBatch> batch, std::size_t layer) const {
    return batch[layer].x.sub(center_in_[layer]).div_(size_in_[layer]);
  }
  /// What all layers shall write, side by side.
  [[nodiscard]] at::Tensor targets(std::span<const TokenBatch> batch) const {
    std::vector<at::Tensor> out;
    for (std::size_t l = 0; l < batch.size(); ++l) out.push_back(batch[l].y.sub(center_out_[l]).div_(size_out_[l]));
    return make::cat(out, 1);
  }
  [[nodiscard]] Pass pass(std::span<const TokenBatch> batch);
  void update(Pass& done);

  Target target_;
  Options options_;
  [[no_unique_address]] Products products_;
  std::vector<Block> blocks_;
  std::vector<at::Tensor> center_in_;
  std::vector<at::Tensor> center_out_;
  std::vector<double> size_in_;
  std::vector<double> size_out_;
  std::int64_t d_out_ = 0;
  Adam adam_;
  std::int64_t step_ = 0;
};

}  // namespace circuit::train

namespace circuit::train {

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
CrossLayerTrainer<A, Dead, Products>::CrossLayerTrainer(std::span<const TokenBatch> sample, Target target,
                                                        const Options& options, A activation, Dead dead_rule,
                                                        Products products)
    : target_{target},
      options_{options},
      products_{products},
      blocks_(sample.size(), Block{options, std::move(activation), std::move(dead_rule), std::move(products)}) {
  const c10::AutoGradMode no_gradient{false};
  if (sample.empty()) throw ValueError{{.tensor = "sample", .expected = "at least one layer", .got = "none"}};
  if (target == Target::same) {
    throw ConfigError{{.tensor = "target",
                       .problem = "a cross-layer transcoder does not describe what it reads",
                       .expected = "Target::other or Target::other_with_skip"}};
  }
  if (options_.least_fired > 0.0) {
    throw ConfigError{{.tensor = "least_fired",
                       .problem = "a cross-layer transcoder keeps all features: its layers have equally many",
                       .expected = "0",
                       .got = std::to_string(options_.least_fired)}};
  }
  for (const auto& [x, y] : sample) {
    check_shape(x, {sample.front().x.size(0), -1}, "sample");
    check_shape(y, {sample.front().x.size(0), sample.front().y.size(-1)}, "target of the sample");
    check_compute_dtype(x.scalar_type(), "sample");
    if (x.size(0) < 2) {
      throw ValueError{{.tensor = "sample", .expected = "at least 2 tokens", .got = std::to_string(x.size(0))}};
    }
    check_finite(x, "sample");
    check_finite(y, "target of the sample");
  }
  start(sample);
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void CrossLayerTrainer<A, Dead, Products>::start(std::span<const TokenBatch> sample) {
  d_out_ = sample.front().y.size(1);
  for (const auto& [x, y] : sample) {
    center_in_.push_back(x.mean(0));
    center_out_.push_back(y.mean(0));
    size_in_.push_back(detail::size_of(x.sub(center_in_.back())));
    size_out_.push_back(detail::size_of(y.sub(center_out_.back())));
  }
  std::vector<at::Tensor> params;
  const auto left = targets(sample);  // what no earlier layer has written yet
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const auto x = input(sample, l);
    blocks_[l].start(x);
    const auto w = blocks_[l].initial(x, from_layer(left, l), options_.seed + l);
    from_layer(left, l).sub_(blocks_[l].activate(x, w).matmul(w.W_dec));
    params.insert(params.end(), {w.W_enc, w.b_enc, w.W_dec});
    if (has_skip()) params.push_back(make::zeros({x.size(1), d_out_}, x.options()));
    for (const auto& own : blocks_[l].activation().params()) params.push_back(own);
  }
  params.push_back(make::zeros({left.size(1)}, left.options()));
  adam_ = Adam{std::move(params), options_.adam};
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void CrossLayerTrainer<A, Dead, Products>::check(std::span<const TokenBatch> batch) const {
  if (batch.size() != blocks_.size()) {
    throw ShapeError{
        {.tensor = "layers of a batch", .expected = {n_layers()}, .got = {static_cast<std::int64_t>(batch.size())}}};
  }
  for (std::size_t l = 0; l < batch.size(); ++l) {
    check_shape(batch[l].x, {batch.front().x.size(0), center_in_[l].size(0)}, "input");
    check_shape(batch[l].y, {batch.front().x.size(0), d_out_}, "target");
  }
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
auto CrossLayerTrainer<A, Dead, Products>::pass(std::span<const TokenBatch> batch) -> Pass {
  const c10::AutoGradMode no_gradient{false};
  check(batch);
  const auto n = static_cast<double>(batch.front().x.size(0));
  const auto layers = static_cast<double>(blocks_.size());
  Pass done;
  std::vector<at::Tensor> acts;
  done.error = targets(batch).neg_().add_(adam_.params().back());
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const auto w = weights(l);
    done.x.push_back(input(batch, l));
    acts.push_back(blocks_[l].activate(done.x[l], w));
    products_.add(from_layer(done.error, l), acts[l], w.W_dec);
    if (has_skip()) products_.add(of_layer(done.error, l), done.x[l], W_skip(l));
  }
  done.report.error = done.error.square().sum().template item<double>() / n / layers;
  const auto grad_out = done.error.mul(2.0 / n);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    auto pull =
        blocks_[l].pull_back(done.x[l], weights(l), acts[l], from_layer(done.error, l), from_layer(grad_out, l), step_);
    auto& g = pull.gradients;
    done.grads.insert(done.grads.end(), {g.W_enc, g.b_enc, g.W_dec});
    if (has_skip()) done.grads.push_back(products_.product(done.x[l].t(), of_layer(grad_out, l)));
    for (auto& grad : pull.own) done.grads.push_back(std::move(grad));
    done.report.price += pull.price / layers;
    done.report.revived += pull.revived / layers;
    done.report.active += pull.active / layers;
    done.report.dead += pull.dead.numel();
    done.dead.push_back(pull.dead);
  }
  done.grads.push_back(grad_out.sum(0));
  return done;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
void CrossLayerTrainer<A, Dead, Products>::update(Pass& done) {
  done.report.norm = detail::clip_norm(done.grads, options_.clip);
  detail::check_step(done.report, step_);
  adam_.step(done.grads, options_.schedule.at_step(step_));
  for (std::size_t l = 0; l < blocks_.size() && options_.decoder == DecoderRows::unit; ++l) {
    detail::to_unit_length(weights(l).W_dec);
  }
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
StepReport CrossLayerTrainer<A, Dead, Products>::step(std::span<const TokenBatch> batch) {
  const c10::AutoGradMode no_gradient{false};
  auto done = pass(batch);
  update(done);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    if (done.dead[l].numel() == 0) continue;
    const auto seed = (options_.seed + l) ^ (static_cast<std::uint64_t>(step_ + 1) << 20U);
    detail::replace_features(
        adam_, l * per_layer(),
        blocks_[l].replacement(done.x[l], weights(l), from_layer(done.error, l), done.dead[l], step_, seed),
        options_.decoder);
  }
  ++step_;
  return done.report;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
std::vector<SparseDictionary<>> CrossLayerTrainer<A, Dead, Products>::finish() const {
  const c10::AutoGradMode no_gradient{false};
  const auto b_out = adam_.params().back().view({n_layers(), d_out_});
  std::vector<SparseDictionary<>> out;
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const auto own = static_cast<std::int64_t>(l);
    const auto w = weights(l);
    auto rows = w.W_dec.view({options_.features, n_layers() - own, d_out_}).clone();
    for (auto m = l; m < blocks_.size(); ++m) rows.select(1, static_cast<std::int64_t>(m - l)).mul_(size_out_[m]);
    const auto scale = A::rescales ? rows.flatten(1).norm(2, {-1}).clamp_min_(1e-12)
                                   : make::full({options_.features}, size_out_[l], rows.options());
    rows.div_(scale.view({-1, 1, 1}));
    SparseDictionary<> d;
    d.name = "layer " + std::to_string(l);
    d.W_enc = w.W_enc.mul(scale).div_(size_in_[l]);
    d.b_enc = w.b_enc.mul(scale).sub_(center_in_[l].matmul(d.W_enc));
    d.W_dec = rows.select(1, 0).contiguous();
    if (l + 1 < blocks_.size()) d.W_later = rows.narrow(1, 1, rows.size(1) - 1).contiguous();
    d.b_out = b_out.select(0, own).mul(size_out_[l]).add_(center_out_[l]);
    if (has_skip()) {
      d.W_skip = W_skip(l).mul(size_out_[l] / size_in_[l]);
      d.b_out.sub_(center_in_[l].matmul(d.W_skip));
    }
    d.activation =
        blocks_[l].activation().finish(make::arange(options_.features, scale.options().dtype(at::kLong)), scale);
    out.push_back(std::move(d));
  }
  return out;
}

template <TrainableActivation A, DeadRule Dead, MatrixProducts Products>
template <class Use>
void CrossLayerTrainer<A, Dead, Products>::visit_state(Use&& use) {
  adam_.visit_state(use);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const auto prefix = "layer." + std::to_string(l) + '.';
    const auto named = [&](const std::string& name, auto& value) { use(prefix + name, value); };
    blocks_[l].visit_state(named);
    named("center_in", center_in_[l]);
    named("center_out", center_out_[l]);
    named("size_in", size_in_[l]);
    named("size_out", size_out_[l]);
  }
  use("step", step_);
}

}  // namespace circuit::train
