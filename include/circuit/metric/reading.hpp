#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"

namespace circuit {

namespace detail {

/// A row of numbers as a tensor [n] of its own on the device of `like`.
template <class T>
[[nodiscard]] at::Tensor tensor_of(std::vector<T>& values, at::ScalarType dtype, const at::Tensor& like) {
  return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, dtype).clone().to(like.device());
}

/// throws  ValueError  unless there are none, one, or one for each of `prompts`
template <class T>
void check_for_each(const std::vector<T>& values, std::size_t prompts, const char* what) {
  if (values.size() <= 1 || values.size() == prompts) return;
  throw ValueError{{.tensor = what,
                    .expected = "none, one, or one for each of " + std::to_string(prompts) + " prompts",
                    .got = std::to_string(values.size())}};
}

}  // namespace detail

/// Where along its prompts a metric reads: at the last position, at one position for all prompts or one for each, or at
/// all of them. Right-padded prompts are read at their own last positions or up to their own lengths.
class Reading {
 public:
  /// none for the last position
  Reading(std::vector<Position> positions = {})  // NOLINT(google-explicit-constructor): positions say where
      : positions_{std::move(positions)} {}
  Reading(std::initializer_list<Position> positions)  // NOLINT(google-explicit-constructor)
      : positions_{positions} {}

  /// The mean over positions: all, or as many of each prompt as `lengths` [batch] says.
  [[nodiscard]] static Reading every(std::vector<std::int64_t> lengths = {}) {
    Reading reading;
    reading.every_ = true;
    reading.lengths_ = std::move(lengths);
    return reading;
  }

  /// Whether there is a row for each position of a prompt, and not one.
  [[nodiscard]] bool reads_every() const noexcept { return every_; }

  /// throws  ValueError  for neither none, nor one, nor one position or length for each prompt
  void check(std::size_t prompts) const {
    detail::check_for_each(positions_, prompts, "positions");
    detail::check_for_each(lengths_, prompts, "lengths");
  }

  /// What is read.
  /// x       [batch, pos, n]   return  [batch, read positions, n]
  /// throws  IndexError  for a position that is not there
  [[nodiscard]] at::Tensor select(const at::Tensor& x) const {
    if (every_) return x;
    if (positions_.empty()) return x.narrow(1, x.size(1) - 1, 1);
    std::vector<std::int64_t> rows;
    for (std::int64_t b = 0; b < x.size(0); ++b) {
      const auto position = positions_.size() == 1 ? positions_.front() : positions_[static_cast<std::size_t>(b)];
      check_index(position, x.size(1));
      rows.push_back(b * x.size(1) + position.value);
    }
    return x.flatten(0, 1).index_select(0, detail::tensor_of(rows, at::kLong, x)).unsqueeze(1);
  }

  /// One number per prompt of one per position read.
  /// values  [batch, read positions]   return  [batch]
  /// throws  IndexError  for a length that the prompts do not have
  [[nodiscard]] at::Tensor mean(const at::Tensor& values) const {
    if (lengths_.empty()) return values.mean(1);
    auto lengths = lengths_;
    for (const auto length : lengths) check_index(Position{static_cast<std::int32_t>(length - 1)}, values.size(1));
    const auto count = detail::tensor_of(lengths, at::kLong, values).unsqueeze(1);
    const auto counted = make::arange(values.size(1), count.options()).unsqueeze(0).lt(count);
    return values.mul(counted).sum(1).div(count.squeeze(1));
  }

 private:
  std::vector<Position> positions_;
  std::vector<std::int64_t> lengths_;
  bool every_ = false;
};

}  // namespace circuit
