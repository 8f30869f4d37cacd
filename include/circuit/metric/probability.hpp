#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/metric/answer_difference.hpp"
#include "circuit/metric/answers.hpp"

namespace circuit {

/// Log-probability, in nats, that the next token is one of the answers. With several it is the logarithm of the sum of
/// their probabilities; an answer named twice counts once.
class LogProbability {
 public:
  /// throws  as TokenLogit
  explicit LogProbability(std::vector<std::vector<std::int64_t>> ids, Reading reading = {})
      : answers_{std::move(ids), std::move(reading)} {}
  explicit LogProbability(std::span<const std::int64_t> ids, Reading reading = {})
      : LogProbability{detail::one_each(ids), std::move(reading)} {}
  explicit LogProbability(const ContrastBatch& batch, Reading reading = {})
      : LogProbability{detail::wide_ids(batch.answers), std::move(reading)} {}

  /// logits  [batch, pos, d_vocab]   return  [batch]
  /// throws  as TokenLogit::per_prompt
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    const auto rows = answers_.rows(logits);
    const auto others = answers_.mask(rows).logical_not();
    const auto chosen = rows.masked_fill(others, -std::numeric_limits<double>::infinity());
    return chosen.logsumexp(-1).sub(rows.logsumexp(-1));
  }

  [[nodiscard]] std::size_t size() const noexcept { return answers_.size(); }

 private:
  Answers answers_;
};

/// Probability that the next token is one of the answers.
struct Probability : LogProbability {
  using LogProbability::LogProbability;

  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return LogProbability::per_prompt(logits).exp();
  }
};

/// Probability of the right answers minus that of the wrong ones.
using ProbabilityDifference = AnswerDifference<Probability>;
/// The same of log-probabilities; with one of either it is the logit difference.
using LogProbabilityDifference = AnswerDifference<LogProbability>;

}  // namespace circuit
