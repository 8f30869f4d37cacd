#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/metric/answers.hpp"
#include "circuit/metric/metric.hpp"

namespace circuit {

/// A metric of answers on the right ones minus the same on the wrong ones, per prompt. Prompts may have any number of
/// either.
template <Metric Part>
class AnswerDifference {
 public:
  /// throws  ValueError  unless there are wrong answers for as many prompts as right ones, and as Part
  AnswerDifference(std::span<const std::int64_t> answers, std::span<const std::int64_t> wrong_answers,
                   Reading reading = {})
      : AnswerDifference{detail::one_each(answers), detail::one_each(wrong_answers), std::move(reading)} {}
  AnswerDifference(std::vector<std::vector<std::int64_t>> answers, std::vector<std::vector<std::int64_t>> wrong_answers,
                   Reading reading = {})
      : right_{std::move(answers), reading}, wrong_{std::move(wrong_answers), std::move(reading)} {
    if (right_.size() != wrong_.size()) {
      throw ValueError{{.tensor = "wrong answers",
                        .problem = "the prompts do not line up",
                        .expected = std::to_string(right_.size()) + " prompts",
                        .got = std::to_string(wrong_.size())}};
    }
  }
  explicit AnswerDifference(const ContrastBatch& batch, Reading reading = {})
      : AnswerDifference{detail::wide_ids(batch.answers), detail::wide_ids(batch.wrong_answers), std::move(reading)} {}

  /// logits  [batch, pos, d_vocab]   return  [batch], in Part's unit
  /// throws  as Part
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return right_.per_prompt(logits).sub(wrong_.per_prompt(logits));
  }

 private:
  Part right_;
  Part wrong_;
};

}  // namespace circuit
