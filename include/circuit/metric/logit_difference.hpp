#pragma once

#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/metric/answer_difference.hpp"
#include "circuit/metric/token_logit.hpp"

namespace circuit {

/// Logit of the right answer, per prompt; the mean where a prompt has several. Read from processed weights it is off by
/// a constant per position (a centred unembedding shifts all logits), unlike a difference.
struct CorrectLogit : TokenLogit {
  using TokenLogit::TokenLogit;
  explicit CorrectLogit(const ContrastBatch& batch, Reading reading = {})
      : TokenLogit{detail::wide_ids(batch.answers), std::move(reading)} {}
};

/// Logit of the wrong answer, per prompt; the mean where a prompt has several.
struct WrongLogit : TokenLogit {
  using TokenLogit::TokenLogit;
  explicit WrongLogit(const ContrastBatch& batch, Reading reading = {})
      : TokenLogit{detail::wide_ids(batch.wrong_answers), std::move(reading)} {}
};

/// Logit of the right answer minus logit of the wrong one, per prompt; means where a prompt has several of one kind.
using LogitDifference = AnswerDifference<TokenLogit>;

}  // namespace circuit
