#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation.hpp"

namespace circuit::activation {

/// What becomes of the kept pre-activations.
enum class Inner {
  relu,  ///< max(0, pre)
  none,  ///< as they are, negative ones too
};

/// The k largest pre-activations of a row; all others are 0.
/// source  Gao et al. 2024; without the inner ReLU as circuit-tracer's transcoders
struct TopK {
  std::int64_t k = 1;
  Inner inner = Inner::relu;

  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const {
    const auto places = std::get<1>(pre.topk(k, -1, /*largest=*/true, /*sorted=*/false));
    auto kept = pre.gather(-1, places);
    if (inner == Inner::relu) kept = kept.relu();
    return make::zeros_like(pre).scatter(-1, places, kept);
  }
  /// 1: which features are kept is frozen.
  [[nodiscard]] at::Tensor slope(const at::Tensor& /*pre*/, const at::Tensor& act) const {
    return act.mul(0.0).add(1.0);
  }

  /// throws  ValueError  unless 1 <= k <= d_sae
  void check(std::int64_t d_sae) const {
    if (k < 1 || k > d_sae) {
      throw ValueError{{.tensor = "k", .expected = "1 to " + std::to_string(d_sae), .got = std::to_string(k)}};
    }
  }

  class Selection;
};

/// The k best so far, the worst of them on top of a heap.
class TopK::Selection {
 public:
  Selection(const TopK& activation, std::int64_t /*d_sae*/)
      : k_{static_cast<std::size_t>(activation.k)},
        bar_{activation.inner == Inner::relu ? 0.0 : -std::numeric_limits<double>::infinity()} {}

  /// pre  [count]  of features first, first + 1, ...
  template <class Scalar>
  void offer(const Scalar* pre, std::int64_t first, std::int64_t count) {
    constexpr std::int64_t block = 64;
    for (std::int64_t start = 0; start < count; start += block) {
      const auto stop = std::min(start + block, count);
      const auto bar = static_cast<Scalar>(bar_);  // exact: it came from one
      bool any = false;  // most blocks hold nothing over the bar, and this loop vectorises; NaN counts
      for (auto c = start; c < stop; ++c) any |= !(pre[c] <= bar);
      if (!any) continue;
      for (auto c = start; c < stop; ++c) push({first + c, pre[c], pre[c]});
    }
  }

  /// A NaN among what was offered is kept, as feature -1.
  [[nodiscard]] std::vector<ActiveEntry> kept() const {
    std::vector<ActiveEntry> out;
    for (const auto& best : heap_) {
      if (best.pre != 0) out.push_back(best);
    }
    if (nan_) out.push_back({-1, std::numeric_limits<double>::quiet_NaN(), 0.0});
    return detail::sorted_by(std::move(out), [](const auto& a, const auto& b) { return a.feature < b.feature; });
  }

 private:
  /// The worst is the lowest, and of equals the last feature.
  [[nodiscard]] static bool better(const ActiveEntry& a, const ActiveEntry& b) {
    return a.pre != b.pre ? a.pre > b.pre : a.feature < b.feature;
  }

  void push(const ActiveEntry& candidate) {
    nan_ |= std::isnan(candidate.pre);
    if (!(candidate.pre > bar_)) return;
    if (heap_.size() == k_) {
      std::ranges::pop_heap(heap_, better);
      heap_.pop_back();
    }
    heap_.push_back(candidate);
    std::ranges::push_heap(heap_, better);
    if (heap_.size() == k_) bar_ = heap_.front().pre;
  }

  std::size_t k_;
  double bar_;  // what a feature must be over
  bool nan_ = false;
  std::vector<ActiveEntry> heap_;
};

}  // namespace circuit::activation
