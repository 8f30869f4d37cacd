#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/direct_effects.hpp"
#include "circuit/linear/linearization.hpp"

namespace circuit::detail {

/// What the modules' constants (biases, folded values) have put into the residual stream, by depth; with contrast, by how
/// much the clean run's differ from the corrupt run's.
class StreamConstants {
 public:
  StreamConstants() = default;
  StreamConstants(const Linearization& lin, bool contrasts) : counts_{!contrasts} {
    auto sum = make::zeros({lin.clean.embed.size(-1)}, lin.clean.embed.options());
    const auto add = [&](const std::vector<ModuleState>& clean, const std::vector<ModuleState>& corrupt,
                         std::size_t l) {
      sums_.push_back(sum);
      const auto& constant = clean[l].constant;
      if (!constant.defined()) return;
      if (!contrasts) {
        sum = sum.add(constant);
      } else if (constant.dim() > 1) {  // else it is the same in both runs
        sum = sum.add(constant.sub(corrupt[l].constant));
        counts_ = true;
      }
    };
    for (std::size_t l = 0; l < lin.clean.attn.size(); ++l) {
      add(lin.clean.stream, lin.corrupt.stream, l);
      add(lin.clean.attn, lin.corrupt.attn, l);
      add(lin.clean.mlp, lin.corrupt.mlp, l);
    }
    add(lin.clean.stream, lin.corrupt.stream, lin.clean.attn.size());
    sums_.push_back(sum);
  }

  /// Whether there is anything but zeros.
  [[nodiscard]] bool count() const { return counts_; }
  /// What modules at depths [from, to) write: [d_model], or [batch, pos, d_model] where it differs.
  [[nodiscard]] at::Tensor between(std::int64_t from, std::int64_t to) const {
    const auto& upper = sums_[static_cast<std::size_t>(to)];
    return from <= 0 ? upper : upper.sub(sums_[static_cast<std::size_t>(from)]);
  }

 private:
  std::vector<at::Tensor> sums_;
  bool counts_ = false;
};

/// What a constant of the stream, [d_model] or [batch, pos, d_model], gives the targets of one prompt, [g.target].
/// positions  [targets] int64  where each target of the step stands
[[nodiscard]] inline at::Tensor along_constant(const at::Tensor& constant, const PromptGradients& g,
                                               const at::Tensor& positions) {
  const bool spans = g.grad.dim() == 3;
  if (constant.dim() == 1) return (spans ? g.grad.sum(1) : g.grad).matmul(constant);
  const auto here = constant.select(0, g.prompt.value);
  if (spans) return g.grad.mul(here).sum(-1).sum(-1);
  return g.grad.mul(here.index_select(0, positions.index_select(0, ids_tensor(g.target)).to(here.device()))).sum(-1);
}

}  // namespace circuit::detail
