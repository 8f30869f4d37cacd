#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/reading.hpp"

namespace circuit {

/// Which tokens of each prompt are judged: those from `first` on, up to the prompt's own length where it is padded.
struct JudgedTokens {
  std::vector<Position> first{};        ///< none for the second token, the first that is predicted; or one, or one each
  std::vector<std::int64_t> lengths{};  ///< none for all, one, or one for each prompt
};

/// Log-probability, in nats, of each prompt's own tokens, such as those of an answer of several tokens: the sum over
/// judged tokens of the log-probability of each after those before it. The run has the answer behind its prompt.
class SequenceLogProbability {
 public:
  /// tokens  [batch, pos] int64: what was run
  /// throws  ShapeError; ValueError for another number of positions or lengths, or a prompt of which nothing is judged
  /// throws  IndexError  for a position or length that the prompts do not have
  explicit SequenceLogProbability(at::Tensor tokens, const JudgedTokens& judged = {});

  /// logits  [batch, pos, d_vocab]   return  [batch]
  /// throws  ShapeError for another run's logits, IndexError for a token they do not have
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const;

  /// How many tokens of each prompt are judged.  [batch] int64
  [[nodiscard]] at::Tensor count() const { return judged_.sum(1); }

 private:
  at::Tensor tokens_;
  at::Tensor judged_;  // [batch, pos - 1] bool: by the position before the token
};

/// Mean loss of a prompt's tokens, in nats per token: minus their log-probability by their number.
struct Loss : SequenceLogProbability {
  using SequenceLogProbability::SequenceLogProbability;

  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const {
    return SequenceLogProbability::per_prompt(logits).neg().div(count().to(logits.device()));
  }
};

}  // namespace circuit

inline circuit::SequenceLogProbability::SequenceLogProbability(at::Tensor tokens, const JudgedTokens& judged)
    : tokens_{std::move(tokens)} {
  check_shape(tokens_, {-1, -1}, "tokens");
  const auto batch = tokens_.size(0);
  const auto length = tokens_.size(1);
  detail::check_for_each(judged.first, static_cast<std::size_t>(batch), "first judged positions");
  detail::check_for_each(judged.lengths, static_cast<std::size_t>(batch), "lengths");
  const auto of = [](const auto& values, std::int64_t b, auto otherwise) {
    return values.empty() ? otherwise : values[values.size() == 1 ? 0 : static_cast<std::size_t>(b)];
  };
  std::vector<std::int64_t> firsts;
  std::vector<std::int64_t> ends;
  for (std::int64_t b = 0; b < batch; ++b) {
    const auto first = of(judged.first, b, Position{1});
    const auto end = of(judged.lengths, b, length);
    check_index(first, length);
    check_index(Position{static_cast<std::int32_t>(end - 1)}, length);
    if (first.value < 1 || first.value >= end) {
      throw ValueError{{.tensor = "judged tokens of prompt " + std::to_string(b),
                        .expected = "at least one, behind the first token of the prompt",
                        .got = std::to_string(first.value) + " up to " + std::to_string(end)}};
    }
    firsts.push_back(first.value - 1);
    ends.push_back(end - 1);
  }
  const auto before = make::arange(length - 1, tokens_.options()).unsqueeze(0);
  judged_ = before.ge(detail::tensor_of(firsts, at::kLong, tokens_).unsqueeze(1))
                .logical_and(before.lt(detail::tensor_of(ends, at::kLong, tokens_).unsqueeze(1)));
}

inline at::Tensor circuit::SequenceLogProbability::per_prompt(const at::Tensor& logits) const {
  check_shape(logits, {tokens_.size(0), tokens_.size(1), -1}, "logits", {}, "a run of the tokens that are judged");
  const auto unjudged = judged_.logical_not().to(logits.device());
  const auto next = tokens_.narrow(1, 1, tokens_.size(1) - 1).to(logits.device()).masked_fill(unjudged, 0);
  for (const auto& extreme : {next.min(), next.max()}) {
    const auto id = extreme.item<std::int64_t>();
    if (id >= 0 && id < logits.size(2)) continue;
    throw IndexError{{.tensor = "judged token",
                      .expected = "a token id from 0 to " + std::to_string(logits.size(2) - 1),
                      .got = std::to_string(id)}};
  }
  const auto all = logits.narrow(1, 0, next.size(1)).log_softmax(-1);
  return all.gather(2, next.unsqueeze(-1)).squeeze(-1).masked_fill(unjudged, 0.0).sum(1);
}
