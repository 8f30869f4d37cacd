#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/reading.hpp"

namespace circuit {

/// The tokens that count as answers, one or more for each prompt, and where in it they are asked for: what metrics that
/// name answers share.
class Answers {
 public:
  /// throws  ValueError  for no prompts, a prompt without ids, another number of positions, or all of them
  Answers(std::vector<std::vector<std::int64_t>> ids, Reading reading);

  /// How many prompts there are.
  [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }

  /// The row of logits in which each prompt is read.
  /// logits  [batch, pos, d_vocab]   return  [batch, d_vocab]
  /// throws  ShapeError for other axes or another batch, IndexError for an id or position that the logits do not have
  [[nodiscard]] at::Tensor rows(const at::Tensor& logits) const;
  /// Mean over each prompt's answers.  rows  [batch, d_vocab]   return  [batch]
  [[nodiscard]] at::Tensor mean_of(const at::Tensor& rows) const;
  /// True where a token is an answer.  [batch, d_vocab] bool
  [[nodiscard]] at::Tensor mask(const at::Tensor& rows) const;

 private:
  struct Entries {
    at::Tensor place;   // [answers] int64 into [batch * d_vocab]
    at::Tensor prompt;  // [answers] int64
    at::Tensor share;   // [answers] float64: 1 / how many answers its prompt has
  };
  [[nodiscard]] Entries entries(const at::Tensor& rows) const;

  std::vector<std::vector<std::int64_t>> ids_;
  Reading reading_;
};

}  // namespace circuit

namespace circuit::detail {

/// [batch][ids] of any integer type as int64, which is what ATen indexes with.
template <class Integer>
[[nodiscard]] std::vector<std::vector<std::int64_t>> wide_ids(const std::vector<std::vector<Integer>>& ids) {
  std::vector<std::vector<std::int64_t>> wide;
  wide.reserve(ids.size());
  for (const auto& prompt : ids) wide.emplace_back(prompt.begin(), prompt.end());
  return wide;
}

[[nodiscard]] inline std::vector<std::vector<std::int64_t>> one_each(std::span<const std::int64_t> ids) {
  std::vector<std::vector<std::int64_t>> each;
  each.reserve(ids.size());
  for (const auto id : ids) each.push_back({id});
  return each;
}

}  // namespace circuit::detail

inline circuit::Answers::Answers(std::vector<std::vector<std::int64_t>> ids, Reading reading)
    : ids_{std::move(ids)}, reading_{std::move(reading)} {
  if (ids_.empty()) throw ValueError{{.tensor = "answers", .problem = "the batch is empty"}};
  for (std::size_t b = 0; b < ids_.size(); ++b) {
    if (!ids_[b].empty()) continue;
    throw ValueError{
        {.tensor = "answers of prompt " + std::to_string(b), .expected = "at least one token", .got = "none"}};
  }
  reading_.check(ids_.size());
  if (reading_.reads_every()) {
    throw ValueError{{.tensor = "positions", .expected = "one of each prompt: answers follow it", .got = "all"}};
  }
}

inline at::Tensor circuit::Answers::rows(const at::Tensor& logits) const {
  check_shape(logits, {static_cast<std::int64_t>(ids_.size()), -1, -1}, "logits", {},
              "a metric reads the prompts whose answers it was given");
  return reading_.select(logits).squeeze(1);
}

inline circuit::Answers::Entries circuit::Answers::entries(const at::Tensor& rows) const {
  const auto d_vocab = rows.size(1);
  std::vector<std::int64_t> place;
  std::vector<std::int64_t> prompt;
  std::vector<double> share;
  for (std::size_t b = 0; b < ids_.size(); ++b) {
    for (const auto id : ids_[b]) {
      if (id < 0 || id >= d_vocab) {
        throw IndexError{{.tensor = "answer of prompt " + std::to_string(b),
                          .expected = "a token id from 0 to " + std::to_string(d_vocab - 1),
                          .got = std::to_string(id)}};
      }
      place.push_back(static_cast<std::int64_t>(b) * d_vocab + id);
      prompt.push_back(static_cast<std::int64_t>(b));
      share.push_back(1.0 / static_cast<double>(ids_[b].size()));
    }
  }
  return {detail::tensor_of(place, at::kLong, rows), detail::tensor_of(prompt, at::kLong, rows),
          detail::tensor_of(share, at::kDouble, rows)};
}

inline at::Tensor circuit::Answers::mean_of(const at::Tensor& rows) const {
  const auto [place, prompt, share] = entries(rows);
  // One gather for the whole batch: its gradient is one scatter, however many prompts there are.
  const auto weighted = rows.flatten().index_select(0, place).mul(share.to(rows.scalar_type()));
  return make::zeros({rows.size(0)}, weighted.options()).index_add(0, prompt, weighted);
}

inline at::Tensor circuit::Answers::mask(const at::Tensor& rows) const {
  auto mask = make::zeros({rows.numel()}, rows.options().dtype(at::kBool));
  return mask.index_fill_(0, entries(rows).place, true).view(rows.sizes());
}
