#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/metric/answers.hpp"

namespace circuit {

/// Whether one of the answers is among the k most likely next tokens: 1 or 0, per prompt. A token as likely as the best
/// answer does not stand before it. It has no gradient: a search that needs one refuses it.
class InTopK {
 public:
  /// throws  ValueError for k below 1, and as TokenLogit
  InTopK(std::int64_t k, std::vector<std::vector<std::int64_t>> ids, Reading reading = {})
      : k_{k}, answers_{std::move(ids), std::move(reading)} {
    check_count(k, "k");
  }
  InTopK(std::int64_t k, std::span<const std::int64_t> ids, Reading reading = {})
      : InTopK{k, detail::one_each(ids), std::move(reading)} {}
  InTopK(std::int64_t k, const ContrastBatch& batch, Reading reading = {})
      : InTopK{k, detail::wide_ids(batch.answers), std::move(reading)} {}

  /// logits  [batch, pos, d_vocab]   return  [batch], 1 or 0
  /// throws  as TokenLogit::per_prompt
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    const auto rows = answers_.rows(logits.detach());
    const auto best = rows.masked_fill(answers_.mask(rows).logical_not(), -std::numeric_limits<double>::infinity());
    // Not "larger": where the answer's logit is NaN, everything stands before it.
    const auto before = rows.le(best.amax(-1, /*keepdim=*/true)).logical_not().sum(-1);
    return before.lt(k_).to(logits.scalar_type());
  }

 private:
  std::int64_t k_;
  Answers answers_;
};

/// Whether the most likely next token is one of the answers.
struct Accuracy : InTopK {
  explicit Accuracy(std::vector<std::vector<std::int64_t>> ids, Reading reading = {})
      : InTopK{1, std::move(ids), std::move(reading)} {}
  explicit Accuracy(std::span<const std::int64_t> ids, Reading reading = {}) : InTopK{1, ids, std::move(reading)} {}
  explicit Accuracy(const ContrastBatch& batch, Reading reading = {}) : InTopK{1, batch, std::move(reading)} {}
};

}  // namespace circuit
