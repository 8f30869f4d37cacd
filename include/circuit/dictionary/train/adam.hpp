#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"

namespace circuit::train {

/// Rises over the first `warm_up` steps, stays, and falls to `floor` over the last `decay` share of all steps.
struct Schedule {
  std::int64_t steps = 1000;
  double rate = 1e-3;
  std::int64_t warm_up = 50;
  double decay = 0.4;
  double floor = 0.02;  ///< of the rate, at the end

  /// The learning rate of a step, counted from 0.
  [[nodiscard]] double at_step(std::int64_t step) const {
    const auto done = static_cast<double>(step);
    const auto all = static_cast<double>(steps);
    const double rise = warm_up > 0 ? std::min(1.0, (done + 1.0) / static_cast<double>(warm_up)) : 1.0;
    const double left = decay > 0 ? (all - done) / (decay * all) : 1.0;
    return rate * rise * std::clamp(left, floor, 1.0);
  }
};

/// Adam on a list of tensors, updated in place.
/// source  Kingma and Ba 2015, algorithm 1
class Adam {
 public:
  struct Options {
    double beta1 = 0.9;
    double beta2 = 0.99;
    double epsilon = 1e-8;
  };

  Adam() = default;
  /// params  contiguous
  Adam(std::vector<at::Tensor> params, const Options& options) : params_{std::move(params)}, options_{options} {
    for (const auto& param : params_) {
      first_.push_back(make::zeros_like(param));
      second_.push_back(make::zeros_like(param));
    }
  }

  [[nodiscard]] const std::vector<at::Tensor>& params() const noexcept { return params_; }

  /// grads  one per parameter, of its shape
  void step(const std::vector<at::Tensor>& grads, double rate) {
    ++steps_;
    const auto count = static_cast<double>(steps_);
    const double size = -rate / (1.0 - std::pow(options_.beta1, count));
    const double debias = 1.0 / std::sqrt(1.0 - std::pow(options_.beta2, count));
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const auto param = params_[i].view({-1});
      const auto grad = grads[i].reshape({-1});
      // On a CPU in pieces that stay in the cache through all passes.
      const auto piece = param.is_cpu() ? std::int64_t{1} << 15U : param.numel();
      for (std::int64_t from = 0; from < param.numel(); from += piece) {
        const auto part = [&](const at::Tensor& t) { return t.narrow(0, from, std::min(piece, t.numel() - from)); };
        update(part(param), part(grad), part(first_[i].view({-1})), part(second_[i].view({-1})), size, debias);
      }
    }
  }

  /// Forgets what is known about some columns (or rows) of a parameter, after they were set anew.
  void forget(std::size_t param, std::int64_t axis, const at::Tensor& indices) {
    first_[param].index_fill_(axis, indices, 0.0);
    second_[param].index_fill_(axis, indices, 0.0);
  }

  /// Calls use(name, tensor or number) for all that the next step depends on.
  template <class Use>
  void visit_state(Use&& use) {
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const auto number = std::to_string(i);
      use("param." + number, params_[i]);
      use("first." + number, first_[i]);
      use("second." + number, second_[i]);
    }
    use("adam_steps", steps_);
  }

 private:
  void update(const at::Tensor& param, const at::Tensor& grad, const at::Tensor& first, const at::Tensor& second,
              double size, double debias) const {
    first.mul_(options_.beta1).add_(grad, 1.0 - options_.beta1);
    second.mul_(options_.beta2).addcmul_(grad, grad, 1.0 - options_.beta2);
    param.addcdiv_(first, second.sqrt().mul_(debias).add_(options_.epsilon), size);
  }

  std::vector<at::Tensor> params_;
  Options options_{};
  std::vector<at::Tensor> first_;
  std::vector<at::Tensor> second_;
  std::int64_t steps_ = 0;
};

}  // namespace circuit::train
