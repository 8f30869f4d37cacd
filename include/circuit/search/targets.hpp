#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/search/step_targets.hpp"

namespace circuit {

/// Features that wait to be targets.
class TargetSet {
 public:
  void insert(const Node& node) { waiting_.insert(node); }

  /// The waiting features of one module that are active on the clean run of at least one prompt; they wait no longer.
  [[nodiscard]] StepTargets take(NodeKind kind, Layer layer, const ActiveFeatures& features, std::int32_t batch,
                                 std::int64_t length);

 private:
  /// Module by module, of each the last positions first.
  struct LastFirst {
    bool operator()(const Node& a, const Node& b) const {
      return std::tie(a.kind, a.layer, b.position, a.feature) < std::tie(b.kind, b.layer, a.position, b.feature);
    }
  };
  std::set<Node, LastFirst> waiting_;
};

/// Which features become targets: `add` before a module's step, `reached` when a kept edge leaves a feature.
template <class T>
concept TargetRule =
    requires(const T& t, TargetSet& set, const Node& node, const ActiveFeatures& features, Layer layer) {
      t.add(set, NodeKind::mlp_feature, layer, features, std::int64_t{});
      t.reached(set, node);
    };

namespace targets {

/// A feature becomes a target once a kept edge leaves it.
struct FromKept {
  void add(TargetSet& /*set*/, NodeKind /*kind*/, Layer /*layer*/, const ActiveFeatures& /*features*/,
           std::int64_t /*length*/) const {}
  void reached(TargetSet& set, const Node& node) const { set.insert(node); }
};

/// Every feature active on the clean run is a target.
struct AllActive {
  void add(TargetSet& set, NodeKind kind, Layer layer, const ActiveFeatures& features, std::int64_t length) const {
    for (std::int64_t row = 0; row < features.rows(); ++row) {
      for (auto i = features.begin(row); i < features.end(row); ++i) {
        set.insert({kind, layer, Position{static_cast<std::int32_t>(row % length)},
                    Feature{static_cast<std::int32_t>(features.feature[static_cast<std::size_t>(i)])}});
      }
    }
  }
  void reached(TargetSet& /*set*/, const Node& /*node*/) const {}
};

}  // namespace targets
}  // namespace circuit

namespace circuit::detail {

/// Index of a feature's entry in a row, or -1.
[[nodiscard]] inline std::int64_t entry_of(const ActiveFeatures& features, std::int64_t row, std::int64_t feature) {
  const auto first = features.feature.begin() + features.begin(row);
  const auto last = features.feature.begin() + features.end(row);
  const auto found = std::lower_bound(first, last, feature);
  return found == last || *found != feature ? -1 : found - features.feature.begin();
}

[[nodiscard]] inline double value_at(const at::Tensor& values, std::int64_t i) {
  return values.scalar_type() == at::kDouble ? data_of<double>(values)[i]
                                             : static_cast<double>(data_of<float>(values)[i]);
}

/// Activation of a feature at a row; 0 where it is not active.
[[nodiscard]] inline double activation_at(const ActiveFeatures& features, std::int64_t row, std::int64_t feature) {
  const auto entry = entry_of(features, row, feature);
  return entry < 0 ? 0.0 : value_at(features.activation, entry);
}

}  // namespace circuit::detail

namespace circuit {

inline StepTargets TargetSet::take(NodeKind kind, Layer layer, const ActiveFeatures& features, std::int32_t batch,
                                   std::int64_t length) {
  const auto begin = waiting_.lower_bound({kind, layer, Position{std::numeric_limits<std::int32_t>::max()}, {}});
  auto end = begin;
  std::vector<Node> nodes;
  for (; end != waiting_.end() && end->kind == kind && end->layer == layer; ++end) {
    const auto& node = *end;
    bool active = false;
    for (std::int64_t b = 0; b < batch && !active; ++b) {
      active = detail::entry_of(features, b * length + node.position.value, node.feature.value) >= 0;
    }
    if (active) nodes.push_back(node);
  }
  waiting_.erase(begin, end);
  StepTargets out{std::move(nodes), batch};
  for (std::int32_t b = 0; b < batch; ++b) {
    for (std::int64_t t = 0; t < out.size(); ++t) {
      const auto& node = out.node(t);
      const auto entry = detail::entry_of(features, b * length + node.position.value, node.feature.value);
      if (entry < 0) continue;
      auto& state = out.at(Prompt{b}, t);
      state.activation = detail::value_at(features.activation, entry);
      state.slope = detail::value_at(features.slope, entry);
    }
  }
  return out;
}

}  // namespace circuit
