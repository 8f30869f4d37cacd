#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/metric/token_logit.hpp"

namespace circuit {

/// Logit of the right answer, per prompt; the mean where a prompt has several. Read from processed weights it is off by
/// a constant per position (a centred unembedding shifts all logits), unlike a difference.
struct CorrectLogit : TokenLogit {
  using TokenLogit::TokenLogit;
  explicit CorrectLogit(const ContrastBatch& batch, std::vector<Position> positions = {})
      : TokenLogit{detail::wide_ids(batch.answers), std::move(positions)} {}
};

/// Logit of the wrong answer, per prompt; the mean where a prompt has several.
struct WrongLogit : TokenLogit {
  using TokenLogit::TokenLogit;
  explicit WrongLogit(const ContrastBatch& batch, std::vector<Position> positions = {})
      : TokenLogit{detail::wide_ids(batch.wrong_answers), std::move(positions)} {}
};

/// Logit of the right answer minus logit of the wrong one, per prompt; means where a prompt has several of one kind.
class LogitDifference {
 public:
  /// throws  ValueError  unless there are as many wrong answers as right ones, or as TokenLogit
  LogitDifference(std::span<const std::int64_t> answers, std::span<const std::int64_t> wrong_answers,
                  std::vector<Position> positions = {})
      : LogitDifference{detail::one_each(answers), detail::one_each(wrong_answers), std::move(positions)} {}
  LogitDifference(std::vector<std::vector<std::int64_t>> answers, std::vector<std::vector<std::int64_t>> wrong_answers,
                  std::vector<Position> positions = {})
      : correct_{std::move(answers), positions}, wrong_{std::move(wrong_answers), std::move(positions)} {
    if (correct_.size() != wrong_.size()) {
      throw ValueError{{.tensor = "wrong answers",
                        .problem = "the prompts do not line up",
                        .expected = std::to_string(correct_.size()) + " prompts",
                        .got = std::to_string(wrong_.size())}};
    }
  }
  explicit LogitDifference(const ContrastBatch& batch, std::vector<Position> positions = {})
      : LogitDifference{detail::wide_ids(batch.answers), detail::wide_ids(batch.wrong_answers), std::move(positions)} {}

  /// logits  [batch, pos, d_vocab]   return  [batch], in logits
  /// throws  as TokenLogit::per_prompt
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return correct_.per_prompt(logits).sub(wrong_.per_prompt(logits));
  }

 private:
  CorrectLogit correct_;
  WrongLogit wrong_;
};

}  // namespace circuit
