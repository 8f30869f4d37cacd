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

/// The gradients along all that a feature writes, on one prompt.
/// i  its index among its position's features
[[nodiscard]] inline double along_writes(const PositionSources& source, std::ptrdiff_t i, const Node& node,
                                         Prompt prompt, const OutputGradients& outputs) {
  const auto along = [&](std::int64_t write, const at::Tensor& grads) {
    const auto grad = grads.select(0, prompt.value).select(0, node.position.value);
    return source.writes.select(0, write).dot(grad).template item<double>();
  };
  if (!source.writer.defined()) {
    return along(i, outputs.at_depth(depth(node) - 1));
  }
  const auto* writer = data_of<std::int64_t>(source.writer);
  double sum = 0;
  for (std::int64_t write = 0; write < source.writer.size(0); ++write) {
    if (writer[write] != i) continue;
    const auto after = std::ranges::upper_bound(source.writes_before, write) - source.writes_before.begin();
    sum += along(write, outputs.at_depth(after - 1));
  }
  return sum;
}

/// A node's values by the gradients on the outputs that it is part of.
[[nodiscard]] inline NodeValues values_by_gradient(const Node& node, const OutputGradients& outputs,
                                                   const Sources& sources) {
  NodeValues out{sources.batch()};
  const auto& grads = is_embedding(node.kind) ? outputs.embed : outputs.at_depth(depth(node) - 1);
  const auto& source = sources.at(node.position);
  const bool feature = is_feature(node.kind);
  const auto i = index_of(feature ? source.features : source.rest, node);
  for (std::int32_t b = 0; b < sources.batch(); ++b) {
    const auto slot = static_cast<std::size_t>(b);
    const auto grad = grads.select(0, b).select(0, node.position.value);
    const auto along = [&](const at::Tensor& write) { return write.dot(grad).template item<double>(); };
    if (!feature) {
      out.nodegrad[slot] = along(source.rest_writes.select(0, b).select(0, i));
      out.attribution[slot] = along(source.rest_effect.select(0, b).select(0, i));
    } else if (const auto at_prompt = source.slot(Prompt{b}, i); source.present[at_prompt] != 0) {
      const double effect = along_writes(source, i, node, Prompt{b}, outputs);
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
