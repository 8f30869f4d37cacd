#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// The mean logit of some tokens, per prompt: the building block of metrics that name answers.
class TokenLogit {
 public:
  /// ids        one or more token ids for each prompt
  /// positions  where the logits are read: one for all prompts, one each, or none for the last position
  /// throws     ValueError for no prompts, a prompt without ids, or another number of positions
  explicit TokenLogit(std::vector<std::vector<std::int64_t>> ids, std::vector<Position> positions = {});

  /// One id per prompt.
  explicit TokenLogit(std::span<const std::int64_t> ids, std::vector<Position> positions = {});

  /// logits  [batch, pos, d_vocab]   return  [batch], in logits
  /// throws  ShapeError for other axes or another batch, IndexError for an id or position that the logits do not have
  [[nodiscard]] at::Tensor per_prompt(const at::Tensor& logits) const;

  /// How many prompts it was given.
  [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }

 private:
  [[nodiscard]] Position position(std::size_t prompt, std::int64_t length) const;

  std::vector<std::vector<std::int64_t>> ids_;
  std::vector<Position> positions_;
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

namespace circuit {

inline TokenLogit::TokenLogit(std::vector<std::vector<std::int64_t>> ids, std::vector<Position> positions)
    : ids_{std::move(ids)}, positions_{std::move(positions)} {
  if (ids_.empty()) throw ValueError{{.tensor = "answers", .problem = "the batch is empty"}};
  for (std::size_t b = 0; b < ids_.size(); ++b) {
    if (ids_[b].empty()) {
      throw ValueError{
          {.tensor = "answers of prompt " + std::to_string(b), .expected = "at least one token", .got = "none"}};
    }
  }
  if (positions_.size() > 1 && positions_.size() != ids_.size()) {
    throw ValueError{{.tensor = "positions",
                      .expected = "none, one, or one for each of " + std::to_string(ids_.size()) + " prompts",
                      .got = std::to_string(positions_.size())}};
  }
}

inline TokenLogit::TokenLogit(std::span<const std::int64_t> ids, std::vector<Position> positions)
    : TokenLogit{detail::one_each(ids), std::move(positions)} {}

inline Position TokenLogit::position(std::size_t prompt, std::int64_t length) const {
  if (positions_.empty()) return Position{static_cast<std::int32_t>(length - 1)};
  const auto chosen = positions_.size() == 1 ? positions_.front() : positions_[prompt];
  check_index(chosen, length);
  return chosen;
}

inline at::Tensor TokenLogit::per_prompt(const at::Tensor& logits) const {
  const auto batch = static_cast<std::int64_t>(ids_.size());
  check_shape(logits, {batch, -1, -1}, "logits", {}, "a metric reads the prompts whose answers it was given");
  const auto length = logits.size(1);
  const auto d_vocab = logits.size(2);
  std::vector<std::int64_t> row;
  std::vector<std::int64_t> entry;
  std::vector<std::int64_t> prompt_of;
  std::vector<double> share;
  for (std::size_t b = 0; b < ids_.size(); ++b) {
    const auto prompt = static_cast<std::int64_t>(b);
    row.push_back(prompt * length + position(b, length).value);
    for (const auto id : ids_[b]) {
      if (id < 0 || id >= d_vocab) {
        throw IndexError{{.tensor = "answer of prompt " + std::to_string(b),
                          .expected = "a token id from 0 to " + std::to_string(d_vocab - 1),
                          .got = std::to_string(id)}};
      }
      entry.push_back(prompt * d_vocab + id);
      prompt_of.push_back(prompt);
      share.push_back(1.0 / static_cast<double>(ids_[b].size()));
    }
  }
  const auto on_device = [&]<class T>(std::vector<T>& values, at::ScalarType dtype) {
    return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, dtype).clone().to(logits.device());
  };
  // Two gathers for the whole batch: their gradient is one scatter, however many prompts there are.
  const auto at_position = logits.flatten(0, 1).index_select(0, on_device(row, at::kLong));
  const auto chosen = at_position.flatten().index_select(0, on_device(entry, at::kLong));
  const auto weighted = chosen.mul(on_device(share, at::kDouble).to(logits.scalar_type()));
  return make::zeros({batch}, weighted.options()).index_add(0, on_device(prompt_of, at::kLong), weighted);
}

}  // namespace circuit
