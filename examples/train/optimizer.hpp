#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "circuit/core/tensor.hpp"

namespace train {

/// Adam with decoupled weight decay on a list of tensors, updated in place.
/// source  Loshchilov and Hutter 2019, algorithm 2
class AdamW {
 public:
  explicit AdamW(std::vector<at::Tensor> params, double weight_decay = 0.0, double beta2 = 0.98)
      : params_{std::move(params)}, weight_decay_{weight_decay}, beta2_{beta2} {
    for (const auto& param : params_) {
      first_.push_back(at::zeros(param.sizes(), param.options()));
      second_.push_back(at::zeros(param.sizes(), param.options()));
    }
  }

  [[nodiscard]] const std::vector<at::Tensor>& params() const noexcept { return params_; }

  /// grads  one per parameter, from `grads[first_grad]` on
  void step(const std::vector<at::Tensor>& grads, std::size_t first_grad, double rate) {
    const c10::AutoGradMode no_gradient{false};
    ++steps_;
    const double debias1 = 1.0 - std::pow(beta1, steps_);
    const double debias2 = 1.0 - std::pow(beta2_, steps_);
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const auto& grad = grads[first_grad + i];
      first_[i].mul_(beta1).add_(grad, 1.0 - beta1);
      second_[i].mul_(beta2_).addcmul_(grad, grad, 1.0 - beta2_);
      const auto scale = second_[i].div(debias2).sqrt_().add_(1e-8);
      if (weight_decay_ > 0.0) params_[i].mul_(1.0 - rate * weight_decay_);
      params_[i].addcdiv_(first_[i], scale, -rate / debias1);
    }
  }

 private:
  static constexpr double beta1 = 0.9;
  std::vector<at::Tensor> params_;
  std::vector<at::Tensor> first_;
  std::vector<at::Tensor> second_;
  double weight_decay_;
  double beta2_;
  int steps_ = 0;
};

/// Momentum whose every step is brought near an orthogonal matrix, so that all directions of a weight matrix learn at
/// one pace. It finds the induction-like heads of this model in a third of Adam's steps. source  Jordan et al. 2024,
/// "Muon: an optimizer for hidden layers in neural networks"
class Muon {
 public:
  explicit Muon(std::vector<at::Tensor> params) : params_{std::move(params)} {
    for (const auto& param : params_) momentum_.push_back(at::zeros(param.sizes(), param.options()));
  }

  [[nodiscard]] const std::vector<at::Tensor>& params() const noexcept { return params_; }

  void step(const std::vector<at::Tensor>& grads, std::size_t first_grad, double rate) {
    const c10::AutoGradMode no_gradient{false};
    for (std::size_t i = 0; i < params_.size(); ++i) {
      const auto& grad = grads[first_grad + i];
      momentum_[i].mul_(decay).add_(grad);
      const auto tall = static_cast<double>(grad.size(0)) / static_cast<double>(grad.size(1));
      params_[i].add_(orthogonalized(grad.add(momentum_[i], decay)), -rate * std::sqrt(std::max(1.0, tall)));
    }
  }

 private:
  /// Newton-Schulz steps with the paper's quintic coefficients.
  static at::Tensor orthogonalized(const at::Tensor& matrix) {
    const bool is_tall = matrix.size(0) > matrix.size(1);
    auto x = is_tall ? matrix.t() : matrix;
    x = x.div(x.norm().add(1e-7));
    for (int i = 0; i < 5; ++i) {
      const auto a = x.matmul(x.t());
      const auto b = a.mul(-4.7750).add(a.matmul(a), 2.0315);
      x = x.mul(3.4445).add(b.matmul(x));
    }
    return is_tall ? x.t() : x;
  }

  static constexpr double decay = 0.95;
  std::vector<at::Tensor> params_;
  std::vector<at::Tensor> momentum_;
};

/// Rises over `warmup` steps, stays, and falls to a fiftieth over the last `decay` share.
[[nodiscard]] inline double schedule(int step, int steps, int warmup, double decay = 0.5) {
  const double rise = std::min(1.0, (step + 1.0) / warmup);
  const double left = static_cast<double>(steps - step) / (decay * steps);
  return rise * std::clamp(left, 0.02, 1.0);
}

}  // namespace train
