#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/edge.hpp"
#include "circuit/linear/direct_effects.hpp"
#include "circuit/search/edge_scores.hpp"
#include "circuit/search/step_targets.hpp"

namespace circuit::detail {

/// Scores every candidate edge into some targets and lets the policy decide.
/// return  [kept, 2] int64 on the CPU: the target and the column of the products
/// throws  ValueError  for scores that are not finite
template <class Policies>
[[nodiscard]] at::Tensor kept_pairs(const Policies& policies, EdgeType type, const StepTargets& targets,
                                    const DirectEffects& effects, std::int32_t batch) {
  const auto shape = std::vector<std::int64_t>{effects.targets(), effects.columns()};
  EdgeScores scores{.type = type, .mean = make::zeros(shape, at::kDouble), .passed = {}, .prompts = batch};
  auto* mean = scores.mean.template data_ptr<double>();
  std::int32_t* passed = nullptr;
  if (policies.keep.needs_counts()) {
    scores.passed = make::zeros(shape, at::kInt);
    passed = scores.passed.template data_ptr<std::int32_t>();
  }
  const double share = 1.0 / batch;
  const auto columns = effects.columns();
  effects.for_each([&](Prompt b, std::int64_t target, std::int64_t column, double attrib) {
    const double value = policies.score.score(attrib, targets.at(b, target));
    mean[target * columns + column] += share * value;
    if (passed != nullptr) passed[target * columns + column] += policies.keep.passes(value) ? 1 : 0;
  });
  check_finite(scores.mean, std::string{name(type)} + " attributions of " + to_string(targets.node(0)));
  return policies.keep.keep(scores).kept.nonzero().contiguous();
}

}  // namespace circuit::detail
