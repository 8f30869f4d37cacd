#pragma once

#include <concepts>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/metric/metric.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/search/for_each_node.hpp"
#include "circuit/search/mask_places.hpp"
#include "circuit/search/mask_units.hpp"
#include "circuit/search/module_nodes.hpp"
#include "circuit/search/node_attributions.hpp"

namespace circuit::detail {

/// Attributions of all nodes of one kind and layer, summed over runs. sum [pos, nodes]
class MaskSums {
 public:
  void add(NodeKind kind, Layer layer, const at::Tensor& sum, double weight) {
    auto& so_far = sums_[{kind, layer}];
    const auto weighted = sum.to(at::kCPU, at::kDouble).mul(weight);
    so_far = so_far.defined() ? so_far.add(weighted) : weighted;
  }

  [[nodiscard]] std::vector<NodeAttribution> nodes(Position first) const {
    std::vector<NodeAttribution> out;
    for (const auto& [key, sum] : sums_) {
      for_each_node(key.first, key.second, sum, [&](const Node& node, double value) {
        if (node.position >= first) out.push_back({node, value});
      });
    }
    return out;
  }

 private:
  std::map<std::pair<NodeKind, Layer>, at::Tensor> sums_;
};

/// One run, one backward pass, and every node's share of it.
template <Architecture A, class Set, Metric M, class Run>
void add_at_strength(const HookedTransformer<A>& model, const Set& set, const at::Tensor& clean, const M& metric,
                     const MaskPlaces& places, Run run, double weight, MaskSums& sums) {
  std::vector<at::Tensor> inputs;
  at::Tensor value;
  {
    const c10::AutoGradMode with_gradient{true};
    value = metric.per_prompt(model.forward(clean, run)).mean();
    inputs.push_back(run.embedding);
    for (const auto& point : run.points) inputs.push_back(point.output);
  }
  const auto gradients = gradient_of(value, inputs);
  if (run.embedding_change.defined()) {
    check_finite(gradients[0], "gradient at hook_embed");
    sums.add(NodeKind::embedding, Layer{0}, run.embedding_change.mul(gradients[0]).sum(-1, true).sum(0), weight);
  }
  for (std::size_t i = 0; i < run.points.size(); ++i) {
    const auto& [module, layer, change, output] = run.points[i];
    const auto& gradient = gradients[i + 1];
    check_finite(gradient, "gradient at " + std::string{name(module)} + '.' + std::to_string(layer.value));
    auto on_features = gradient;
    if constexpr (!std::same_as<Run, UnitsAtStrength>) {
      on_features = gradient.matmul(widened(dictionary_of(set, module, layer)->W_dec).t());
    }
    sums.add(feature_kind(module), layer, change.mul(on_features).sum(0), weight);
    const auto& rest = places.at({module, layer}).rest_change;
    if (!rest.defined()) continue;
    sums.add(error_kind(module), layer, rest.mul(gradient).sum(-1, true).sum(0), weight);
  }
}

}  // namespace circuit::detail
