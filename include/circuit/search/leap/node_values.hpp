#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/sources.hpp"
#include "circuit/search/targets.hpp"

namespace circuit::detail {

/// What a node is worth on every prompt.
struct NodeValues {
  explicit NodeValues(std::int32_t batch) : nodegrad(static_cast<std::size_t>(batch), 0.0), attribution{nodegrad} {}

  std::vector<double> nodegrad;     // d metric / d activation
  std::vector<double> attribution;  // by its (contrasted) activation or vector
};

/// Where a node stands among those of its position, which lie by depth and feature.
[[nodiscard]] inline std::ptrdiff_t index_of(const std::vector<Node>& nodes, const Node& node) {
  const auto place = [](const Node& n) { return std::pair{depth(n), n}; };
  return std::lower_bound(nodes.begin(), nodes.end(), node,
                          [&](const Node& a, const Node& b) { return place(a) < place(b); }) -
         nodes.begin();
}

/// A node's values by the gradients on the outputs that it is part of.
[[nodiscard]] inline NodeValues values_by_gradient(const Node& node, const OutputGradients& outputs,
                                                   const Sources& sources) {
  NodeValues out{sources.batch()};
  const auto& source = sources.at(node.position);
  const bool feature = is_feature(node.kind);
  const auto i = index_of(feature ? source.features : source.rest, node);
  const auto along = [&](const at::Tensor& write, const at::Tensor& grads, std::int32_t b) {
    return write.dot(grads.select(0, b).select(0, node.position.value)).template item<double>();
  };
  for (std::int32_t b = 0; b < sources.batch(); ++b) {
    const auto slot = static_cast<std::size_t>(b);
    if (!feature) {
      const auto& grads = is_embedding(node.kind) ? outputs.embed : outputs.at_depth(depth(node) - 1);
      out.nodegrad[slot] = along(source.rest_writes.select(0, b).select(0, i), grads, b);
      out.attribution[slot] = along(source.rest_effect.select(0, b).select(0, i), grads, b);
    } else if (const auto at_prompt = source.slot(Prompt{b}, i); source.present[at_prompt] != 0) {
      double effect = 0;
      source.for_each_write(i, [&](const at::Tensor& write, std::int64_t at_depth) {
        effect += along(write, outputs.at_depth(at_depth), b);
      });
      out.nodegrad[slot] = effect * source.unit_at(at_prompt);
      out.attribution[slot] = effect * source.activation[at_prompt];
    }
  }
  return out;
}

/// A feature's activation on one run, mean over prompts.
[[nodiscard]] inline double mean_activation(const DescribedRun& run, const Node& node, std::int32_t batch,
                                            std::int64_t length) {
  const auto& modules = is_stream(node.kind) ? run.stream : is_attention(node.kind) ? run.attn : run.mlp;
  const auto& features = modules[static_cast<std::size_t>(node.layer.value)].features;
  double sum = 0;
  for (std::int32_t b = 0; b < batch; ++b) {
    sum += activation_at(features, b * length + node.position.value, node.feature.value);
  }
  return sum / batch;
}

}  // namespace circuit::detail
