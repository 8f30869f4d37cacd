#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/reading.hpp"

namespace circuit {

/// What a run is compared with: another run's next-token distributions where a metric reads.
class CleanDistributions {
 public:
  /// logits  [batch, pos, d_vocab]  of the run without an intervention
  /// throws  ShapeError for other axes, ValueError for NaN or infinity, and as Reading::check
  explicit CleanDistributions(const at::Tensor& logits, Reading reading = {}) : reading_{std::move(reading)} {
    check_shape(logits, {-1, -1, -1}, "clean logits");
    check_finite(logits, "clean logits");
    reading_.check(static_cast<std::size_t>(logits.size(0)));
    shape_ = shape_of(logits);
    clean_ = reading_.select(logits.detach()).log_softmax(-1);
  }

 protected:
  /// Log-probabilities of the run at hand, as those of the clean one.  [batch, read positions, d_vocab]
  [[nodiscard]] at::Tensor own(const at::Tensor& logits) const {
    check_shape(logits, shape_, "logits", {}, "the clean run has the same prompts");
    return reading_.select(logits).log_softmax(-1);
  }
  [[nodiscard]] const at::Tensor& clean() const noexcept { return clean_; }
  [[nodiscard]] at::Tensor mean(const at::Tensor& by_position) const { return reading_.mean(by_position); }

 private:
  Reading reading_;
  std::vector<std::int64_t> shape_;
  at::Tensor clean_;
};

/// Kullback-Leibler divergence of a run's next token from the clean run's, in nats: sum of p log(p / q), p the clean.
/// Its gradient at the clean run itself is 0.
struct KlToClean : CleanDistributions {
  using CleanDistributions::CleanDistributions;

  /// logits  [batch, pos, d_vocab]   return  [batch]
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    const auto q = own(logits);
    return mean(clean().exp().mul(clean().sub(q)).sum(-1));
  }
};

/// Jensen-Shannon divergence between a run's next token and the clean run's, in nats: 0 to log 2. Like any divergence
/// it has gradient 0 at the clean run itself.
struct JsToClean : CleanDistributions {
  using CleanDistributions::CleanDistributions;

  /// logits  [batch, pos, d_vocab]   return  [batch]
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    const auto q = own(logits);
    const auto middle = clean().logaddexp(q).sub(std::log(2.0));
    const auto one = [&](const at::Tensor& p) { return p.exp().mul(p.sub(middle)).sum(-1); };
    return mean(one(clean()).add(one(q)).div(2.0));
  }
};

}  // namespace circuit
