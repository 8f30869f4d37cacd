#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// A recording of scores and patterns. Any cache that holds them will do.
template <class Cache>
concept AttentionCache = Cache::template holds<hook::attn::attn_scores> && Cache::template holds<hook::attn::pattern>;

/// How strongly one head looks from a query to a key in two runs, means over prompts.
struct AttentionChange {
  Layer layer{};
  Head head{};
  Position key{};
  double score_before{};
  double score_after{};
  double pattern_before{};
  double pattern_after{};

  /// 0 also where both scores are minus infinity, of a key outside a sliding window.
  [[nodiscard]] double score_change() const { return score_after == score_before ? 0.0 : score_after - score_before; }
  [[nodiscard]] double pattern_change() const { return pattern_after - pattern_before; }
};

/// Every layer and head's attention from `query` to each of `keys`, before and after an edit. A falling pattern towards
/// one key with its score unchanged means that other keys' scores rose; that is what tells "boosts" from "suppresses".
/// throws  IndexError  for a position the runs do not have, or a key behind the query
template <AttentionCache Before, AttentionCache After>
[[nodiscard]] std::vector<AttentionChange> attention_changes(const Before& before, const After& after, Position query,
                                                             const std::vector<Position>& keys) {
  const c10::AutoGradMode no_gradient{false};
  std::vector<AttentionChange> out;
  const auto row = [&](const at::Tensor& x) {  // [heads, keys]
    check_index(query, x.size(2), "query");
    return x.mean(0).select(1, query.value).to(at::kCPU, at::kDouble).contiguous();
  };
  before.for_each([&]<class P>(P /*point*/, Layer layer, const at::Tensor& value) {
    if constexpr (std::same_as<P, hook::attn::pattern>) {
      const auto rows = std::vector<at::Tensor>{row(before.template get<hook::attn::attn_scores>(layer)),
                                                row(after.template get<hook::attn::attn_scores>(layer)), row(value),
                                                row(after.template get<hook::attn::pattern>(layer))};
      for (std::int32_t h = 0; h < value.size(1); ++h) {
        for (const auto key : keys) {
          check_index(key, query.value + 1, "key");
          const auto entry = [&](std::size_t i) { return data_of<double>(rows[i])[h * value.size(3) + key.value]; };
          out.push_back({layer, Head{h}, key, entry(0), entry(1), entry(2), entry(3)});
        }
      }
    }
  });
  return out;
}

}  // namespace circuit
