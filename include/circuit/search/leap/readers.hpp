#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/pull_back.hpp"

namespace circuit::detail {

/// Readers that are the same on every prompt and at every position, but for the dictionary's own normalisation.
/// readers   [targets, d]
/// constant  [targets]  of what lies between the dictionary and what is read; undefined: 0
/// return    read(prompt, rows, positions): what some of the targets read there
[[nodiscard]] inline auto by_row(const at::Tensor& readers, const ModuleState& module,
                                 const at::Tensor& constant = {}) {
  return [readers, constant, divisor = module.input_norm.divisor](Prompt b, const at::Tensor& rows,
                                                                  const at::Tensor& positions) {
    Pulled out{readers.index_select(0, rows), constant.defined() ? constant.index_select(0, rows) : at::Tensor{}};
    if (!divisor.defined()) return out;
    const auto by = divisor.select(0, b.value).index_select(0, positions);
    out.grad = out.grad.div(by);
    if (constant.defined()) out.constant = out.constant.div(by.squeeze(-1));
    return out;
  };
}

/// Readers that stand at each position of each prompt, [batch, pos, d].
[[nodiscard]] inline auto by_position(const at::Tensor& readers) {
  return [readers](Prompt b, const at::Tensor& /*rows*/, const at::Tensor& positions) {
    return Pulled{readers.select(0, b.value).index_select(0, positions), {}};
  };
}

/// The gradient on a module's output as one on its write vectors, [batch, pos, d_model].
[[nodiscard]] inline at::Tensor on_writes(const at::Tensor& grad, const ModuleState& module) {
  return module.write_scale.defined() ? grad.div(module.write_scale) : grad;
}

}  // namespace circuit::detail
