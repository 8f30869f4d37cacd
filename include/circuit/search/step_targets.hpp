#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/search/score.hpp"

namespace circuit {

/// The targets of one module, by position from the last to the first, with their state on every prompt.
class StepTargets {
 public:
  StepTargets() = default;
  StepTargets(std::vector<Node> nodes, std::int32_t batch)
      : nodes_{std::move(nodes)}, states_(nodes_.size() * static_cast<std::size_t>(batch)) {}

  /// The metric as a target that reads every position.
  static StepTargets metric(std::int32_t batch, std::int64_t last_position) {
    StepTargets out{{Node::metric()}, batch};
    out.last_position_ = last_position;
    for (auto& state : out.states_) state = {.slope = 1, .nodegrad = 1, .activation = 0};
    return out;
  }

  [[nodiscard]] std::int64_t size() const { return static_cast<std::int64_t>(nodes_.size()); }
  [[nodiscard]] const Node& node(std::int64_t t) const { return nodes_[static_cast<std::size_t>(t)]; }
  [[nodiscard]] TargetState& at(Prompt b, std::int64_t t) { return states_[index(b, t)]; }
  [[nodiscard]] const TargetState& at(Prompt b, std::int64_t t) const { return states_[index(b, t)]; }

  /// Those whose features are among first_feature and on.
  [[nodiscard]] StepTargets within(std::int64_t first_feature, std::int64_t count) const {
    const auto belongs = [&](const Node& n) {
      return n.feature.value >= first_feature && n.feature.value < first_feature + count;
    };
    StepTargets out;
    out.last_position_ = last_position_;
    for (std::size_t i = 0; i < states_.size(); ++i) {
      if (belongs(nodes_[i % nodes_.size()])) out.states_.push_back(states_[i]);
    }
    std::copy_if(nodes_.begin(), nodes_.end(), std::back_inserter(out.nodes_), belongs);
    return out;
  }

  /// Where each target stands.
  [[nodiscard]] std::vector<std::int64_t> positions() const {
    std::vector<std::int64_t> out;
    for (const auto& n : nodes_) out.push_back(n.kind == NodeKind::metric ? last_position_ : n.position.value);
    return out;
  }
  [[nodiscard]] at::Tensor position_tensor() const { return detail::ids_tensor(positions()); }
  /// [targets] int64
  [[nodiscard]] at::Tensor features() const {
    std::vector<std::int64_t> out;
    for (const auto& n : nodes_) out.push_back(n.feature.value);
    return detail::ids_tensor(out);
  }
  /// The targets that are active on a prompt, ascending.
  [[nodiscard]] std::vector<std::int64_t> active(Prompt b) const {
    std::vector<std::int64_t> out;
    for (std::int64_t t = 0; t < size(); ++t) {
      if (at(b, t).activation != 0.0) out.push_back(t);
    }
    return out;
  }

  /// What each target's dictionary adds to its pre-activation on any run. [targets]
  void set_constant(const at::Tensor& constant) { constant_ = constant.to(at::kCPU, at::kDouble).contiguous(); }
  [[nodiscard]] double constant(std::int64_t t) const { return data_of<double>(constant_)[t]; }

 private:
  [[nodiscard]] std::size_t index(Prompt b, std::int64_t t) const {
    return static_cast<std::size_t>(b.value) * nodes_.size() + static_cast<std::size_t>(t);
  }

  std::vector<Node> nodes_;
  std::vector<TargetState> states_;  // [batch * targets]
  std::int64_t last_position_ = 0;
  at::Tensor constant_;
};

}  // namespace circuit

namespace circuit::detail {

/// What a dictionary adds to the pre-activation of some features on any run: b_enc - b_in W_enc. [n] float64 on the CPU
[[nodiscard]] inline at::Tensor dictionary_constant(const DictionaryWeights& dictionary, const at::Tensor& features) {
  auto constant = dictionary.b_enc.index_select(0, features);
  if (dictionary.b_in.defined()) constant = constant.sub(dictionary.readers(features).matmul(dictionary.b_in));
  return constant.to(at::kCPU, at::kDouble);
}

}  // namespace circuit::detail
