#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/answers.hpp"

namespace circuit {

/// The mean logit of some tokens, per prompt: the building block of metrics that name answers.
class TokenLogit {
 public:
  /// ids      one or more token ids for each prompt
  /// reading  where the logits are read
  /// throws   ValueError for no prompts, a prompt without ids, or another number of positions
  explicit TokenLogit(std::vector<std::vector<std::int64_t>> ids, Reading reading = {})
      : answers_{std::move(ids), std::move(reading)} {}

  /// One id per prompt.
  explicit TokenLogit(std::span<const std::int64_t> ids, Reading reading = {})
      : TokenLogit{detail::one_each(ids), std::move(reading)} {}

  /// logits  [batch, pos, d_vocab]   return  [batch], in logits
  /// throws  ShapeError for other axes or another batch, IndexError for an id or position that the logits do not have
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return answers_.mean_of(answers_.rows(logits));
  }

  /// How many prompts it was given.
  [[nodiscard]] std::size_t size() const noexcept { return answers_.size(); }

 private:
  Answers answers_;
};

}  // namespace circuit
