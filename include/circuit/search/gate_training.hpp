#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/search/gated_nodes.hpp"
#include "circuit/search/hard_concrete.hpp"
#include "circuit/search/node_attributions.hpp"

namespace circuit::detail {

/// Gates of one step, and what they were drawn from.
struct DrawnGates {
  NodeGates gates{};
  std::vector<at::Tensor> log_odds{};  ///< leaves of the gradient graph, in the order of `NodeGates::with`
  at::Tensor open{};                   ///< scalar: how many gates are open, in expectation
};

/// Log odds of hard-concrete gates while they are trained. A node that is not among the first has no gate and stays shut.
class GateTraining {
 public:
  /// none    gates that are all 0, of the shapes to come
  /// start   nodes with a gate: the first starts at log odds of `spread`, the last near -`spread`
  GateTraining(const NodeGates& none, std::span<const Node> start, double spread)
      : log_odds_{none.with([](const at::Tensor& gates) { return make::zeros_like(gates); })} {
    for (const auto& node : start) found_.push_back({node, 1});
    auto present = none.with([](const at::Tensor& gates) { return make::zeros_like(gates); });
    present.put(found_);
    masks_ = present.all();
    for (const auto& mask : masks_) adam_.emplace_back(mask);
    for (std::size_t i = 0; i < found_.size(); ++i) {
      found_[i].attribution = spread * (1 - 2 * static_cast<double>(i) / static_cast<double>(found_.size()));
    }
    log_odds_.put(found_);
  }

  /// Under a gradient mode.
  [[nodiscard]] DrawnGates draw(std::mt19937_64& bits) const {
    DrawnGates out;
    out.gates = log_odds_.with([&](const at::Tensor& odds) {
      const auto& mask = masks_[out.log_odds.size()];
      const auto& leaf = out.log_odds.emplace_back(odds.detach().requires_grad_(true));
      const auto kept = hard_concrete::open_probability(leaf).mul(mask).sum();
      out.open = out.open.defined() ? out.open.add(kept) : kept;
      return hard_concrete::draw(leaf, bits).mul(mask);
    });
    return out;
  }

  /// One step of Adam against the gradients of a loss by `DrawnGates::log_odds`.
  /// throws  ValueError  for a gradient that is not finite
  void update(const std::vector<at::Tensor>& gradients, std::int64_t step, double rate) {
    std::size_t i = 0;
    log_odds_ = log_odds_.with([&](const at::Tensor& odds) {
      check_finite(gradients[i], "gradient of gates");
      const auto moved = adam_[i].change(gradients[i], step).mul(masks_[i]);
      ++i;
      return odds.sub(moved, rate).detach();
    });
  }

  /// Every node with its log odds, in the order of the start.
  [[nodiscard]] std::vector<NodeAttribution> found() && {
    auto host = log_odds_.with([](const at::Tensor& odds) { return odds.to(at::kCPU, at::kDouble).contiguous(); });
    for (auto& each : found_) {
      const auto [tensor, number] = host.find(each.node);
      each.attribution = data_of<double>(*tensor)[number];
    }
    return std::move(found_);
  }

 private:
  NodeGates log_odds_;
  std::vector<NodeAttribution> found_{};
  std::vector<at::Tensor> masks_{};
  std::vector<hard_concrete::AdamStep> adam_{};
};

}  // namespace circuit::detail
