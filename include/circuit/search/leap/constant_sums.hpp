#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/carry.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/stream_constants.hpp"
#include "circuit/search/score.hpp"
#include "circuit/search/step_targets.hpp"

namespace circuit::detail {

/// What constants give the targets of one step, summed over prompts.
struct ConstantSums {
  struct Sum {
    double nn = 0;
    double em = 0;

    void add(double value, const TargetState& target) {
      nn += value;
      em += target.nodegrad * target.slope * value;
    }
  };

  explicit ConstantSums(std::int64_t targets) : bias(static_cast<std::size_t>(targets)), map{bias}, remainder{bias} {}

  std::vector<Sum> bias;
  std::vector<Sum> map;        // only with contrast
  std::vector<Sum> remainder;  // only without
};

/// Adds what some targets get on one prompt.
/// own     their numbers, ascending   values  one for each, on any device
/// offset  offset(target) is added to each value
template <class Offset>
void add_values(const std::vector<std::int64_t>& own, const at::Tensor& values, Prompt prompt,
                const StepTargets& targets, std::vector<ConstantSums::Sum>& into, const Offset& offset) {
  const auto host = values.to(at::kCPU, at::kDouble).contiguous();
  const auto* value = data_of<double>(host);
  for (const auto t : own) into[static_cast<std::size_t>(t)].add(*value++ + offset(t), targets.at(prompt, t));
}

inline void add_values(const std::vector<std::int64_t>& own, const at::Tensor& values, Prompt prompt,
                       const StepTargets& targets, std::vector<ConstantSums::Sum>& into) {
  add_values(own, values, prompt, targets, into, [](std::int64_t) { return 0.0; });
}

/// Adds what the modules' constants, and with contrast the change of transparent modules' maps, give the targets.
inline void add_constants(const std::vector<CarriedGradients>& carried, const Upstream& range,
                          const StepTargets& targets, const Linearization& lin, const StreamConstants& constants,
                          bool contrasts, ConstantSums& sums) {
  const auto positions = targets.position_tensor();
  auto above = range.to;
  for (std::size_t part = 0; part < carried.size(); ++part) {
    const auto from = carried[part].from;
    const bool lowest = part + 1 == carried.size();  // below the lowest transparent module
    const auto constant = constants.between(from, above);
    for (const auto& g : carried[part].gradients) {
      if (constants.count()) {
        add_values(g.target, along_constant(constant, g, positions), g.prompt, targets, sums.bias);
      }
      // What passes a skip path of the stream itself is the same map in both runs.
      if (!contrasts || lowest) continue;
      const auto& change = lin.map_change[static_cast<std::size_t>(from)];
      if (change.defined()) add_values(g.target, along_constant(change, g, positions), g.prompt, targets, sums.map);
    }
    above = from;
  }
}

}  // namespace circuit::detail
