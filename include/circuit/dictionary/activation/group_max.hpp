#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation.hpp"

namespace circuit::activation {

/// The features in equal contiguous groups, of each the largest, where it is over 0; all others are 0.
struct GroupMax {
  std::int64_t groups = 1;

  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const {
    auto shape = shape_of(pre);
    const auto d_sae = shape.back();
    shape.back() = groups;
    shape.push_back(d_sae / groups);
    const auto grouped = pre.relu().reshape(shape);
    const auto [largest, places] = grouped.max(-1, /*keepdim=*/true);
    return make::zeros_like(grouped).scatter(-1, places, largest).reshape(shape_of(pre));
  }
  /// 1: which feature is its group's largest is frozen.
  [[nodiscard]] at::Tensor slope(const at::Tensor& /*pre*/, const at::Tensor& act) const {
    return act.mul(0.0).add(1.0);
  }

  /// throws  ValueError  unless d_sae divides into the groups
  void check(std::int64_t d_sae) const {
    if (groups >= 1 && d_sae % groups == 0) return;
    throw ValueError{
        {.tensor = "groups", .expected = "a divisor of " + std::to_string(d_sae), .got = std::to_string(groups)}};
  }

  class Selection;
};

/// The largest of each group so far.
class GroupMax::Selection {
 public:
  Selection(const GroupMax& activation, std::int64_t d_sae)
      : size_{d_sae / activation.groups}, best_(static_cast<std::size_t>(activation.groups), {-1, 0, 0}) {}

  /// pre  [count]  of features first, first + 1, ...
  template <class Scalar>
  void offer(const Scalar* pre, std::int64_t first, std::int64_t count) {
    for (std::int64_t start = 0; start < count;) {
      const auto group = (first + start) / size_;
      const auto stop = std::min(count, (group + 1) * size_ - first);
      auto& best = best_[static_cast<std::size_t>(group)];
      for (auto c = start; c < stop; ++c) {
        if (std::isnan(best.pre) || pre[c] <= best.pre) continue;  // a NaN is taken, and stays
        best = {first + c, pre[c], pre[c]};
      }
      start = stop;
    }
  }

  [[nodiscard]] std::vector<ActiveEntry> kept() const {
    std::vector<ActiveEntry> out;
    for (const auto& best : best_) {
      if (best.feature >= 0) out.push_back(best);
    }
    return out;
  }

 private:
  std::int64_t size_;
  std::vector<ActiveEntry> best_;
};

}  // namespace circuit::activation
