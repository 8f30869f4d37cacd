#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <utility>
#include <vector>

namespace circuit::detail {

/// The numbers 0 to n - 1 in the order `less` gives them; equal ones keep theirs. One sort for every kind of thing that
/// is sorted a few times per file, because each instantiation of std::sort over a large type is a second of compile
/// time.
[[nodiscard]] inline std::vector<std::size_t> order_by(std::size_t n,
                                                       const std::function<bool(std::size_t, std::size_t)>& less) {
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return less(a, b); });
  return order;
}

/// `values` in the order `less` gives them; equal ones keep theirs.
template <class T, class Less>
[[nodiscard]] std::vector<T> sorted_by(std::vector<T> values, const Less& less) {
  std::vector<T> sorted;
  sorted.reserve(values.size());
  for (const auto i : order_by(values.size(), [&](auto a, auto b) { return less(values[a], values[b]); })) {
    sorted.push_back(std::move(values[i]));
  }
  return sorted;
}

/// Each of some numbers once, sorted.
[[nodiscard]] inline std::vector<std::int64_t> distinct(std::vector<std::int64_t> numbers) {
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

}  // namespace circuit::detail
