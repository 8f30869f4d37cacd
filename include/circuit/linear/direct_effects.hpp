#pragma once

#include <ATen/Parallel.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/sources.hpp"

namespace circuit {

/// The gradients of some targets on one prompt, with respect to the residual stream.
struct PromptGradients {
  Prompt prompt{};
  std::vector<std::int64_t> target;  ///< [r]  index among the step's targets, ascending
  at::Tensor grad;                   ///< [r, d_model] at each target's own position, or [r, pos, d_model]
};

/// Direct effects of upstream nodes on the targets of one step (one layer and edge type): one matrix product per prompt
/// and position against the packed write vectors.
class DirectEffects {
 public:
  /// positions  where each target stands; must not ascend, so that the targets that read a position are a prefix
  /// spans      whether a target reads every position up to its own, or only its own
  /// depth      nodes before this depth are upstream
  DirectEffects(const Sources& sources, std::vector<std::int64_t> positions, bool spans, std::int64_t depth);

  void add(const PromptGradients& gradients);

  [[nodiscard]] std::int64_t targets() const { return static_cast<std::int64_t>(positions_.size()); }
  [[nodiscard]] std::int64_t columns() const { return columns_; }

  /// An upstream node as a column of a target: position and index into that position's table; id is -1 for padding.
  struct Place {
    std::int64_t position;
    std::int64_t id;
  };
  [[nodiscard]] Place place(std::int64_t target, std::int64_t column) const;

  /// Calls use(prompt, target, column, effect times activation) for every product, targets in parallel.
  template <class Use>
  void for_each(Use&& use) const;

  /// One upstream node's effect on a target on one prompt.
  struct Effect {
    Prompt prompt;
    double grad;        ///< d target pre-activation / d upstream activation
    double activation;  ///< contrast activation of the upstream node
    double attrib;      ///< share of the target's pre-activation
  };
  /// On every prompt where both are there.
  [[nodiscard]] std::vector<Effect> effects(std::int64_t target, const Place& place) const;

 private:
  struct Block {
    Prompt prompt;
    std::vector<std::int64_t> target;  // [r]
    at::Tensor effect;                 // [r, rows]  on the CPU
    at::Tensor rest;                   // [r, rest rows]
  };

  [[nodiscard]] std::int64_t offset(std::int64_t position) const { return spans_ ? offsets_[static_cast<std::size_t>(position)] : 0; }

  const Sources* sources_;
  std::vector<std::int64_t> positions_;
  bool spans_;
  std::size_t depth_;
  std::vector<std::int64_t> offsets_;  // [pos]
  std::int64_t columns_ = 0;
  std::vector<std::vector<Block>> blocks_;  // [pos]
};

}  // namespace circuit

namespace circuit::detail {

/// An element of a contiguous CPU matrix, whatever its floating type.
[[nodiscard]] inline double element(const at::Tensor& matrix, std::int64_t row, std::int64_t column) {
  const auto at_index = row * matrix.size(1) + column;
  return matrix.scalar_type() == at::kDouble ? data_of<double>(matrix)[at_index]
                                             : static_cast<double>(data_of<float>(matrix)[at_index]);
}

}  // namespace circuit::detail

namespace circuit {

inline DirectEffects::DirectEffects(const Sources& sources, std::vector<std::int64_t> positions, bool spans,
                                    std::int64_t depth)
    : sources_{&sources}, positions_{std::move(positions)}, spans_{spans}, depth_{static_cast<std::size_t>(depth)},
      blocks_(static_cast<std::size_t>(sources.length())) {
  for (std::int32_t p = 0; p < sources.length(); ++p) {
    const auto here = sources.table(Position{p}).before[depth_];
    offsets_.push_back(columns_);
    if (spans_) {
      columns_ += here;
    } else if (std::find(positions_.begin(), positions_.end(), p) != positions_.end()) {
      columns_ = std::max(columns_, here);
    }
  }
}

inline void DirectEffects::add(const PromptGradients& g) {
  const auto rest_rows = static_cast<std::int64_t>(depth_);
  for (std::int32_t p = 0; p < sources_->length(); ++p) {
    const auto reads = [&](std::int64_t target) {
      const auto own = positions_[static_cast<std::size_t>(target)];
      return spans_ ? own >= p : own == p;
    };
    // Positions do not ascend, so the readers of p are one run of rows.
    const auto first = std::find_if(g.target.begin(), g.target.end(), reads);
    const auto last = std::find_if_not(first, g.target.end(), reads);
    if (first == last) continue;
    const auto& source = sources_->block(g.prompt, Position{p});
    const auto before = source.before[depth_];
    const auto rest_before = rest_rows + source.rest.size(0) - (static_cast<std::int64_t>(source.before.size()) - 1);
    auto grad = g.grad.narrow(0, first - g.target.begin(), last - first);
    if (spans_) grad = grad.select(1, p);
    blocks_[static_cast<std::size_t>(p)].push_back(
        {g.prompt, std::vector<std::int64_t>(first, last),
                       grad.matmul(source.effect.narrow(0, 0, before).t()).to(at::kCPU).contiguous(),
                       grad.matmul(source.rest.narrow(0, 0, rest_before).t()).to(at::kCPU).contiguous()});
  }
}

inline DirectEffects::Place DirectEffects::place(std::int64_t target, std::int64_t column) const {
  auto position = positions_[static_cast<std::size_t>(target)];
  if (spans_) {
    const auto next = std::upper_bound(offsets_.begin(), offsets_.end(), column);
    position = (next - offsets_.begin()) - 1;
  }
  const auto id = column - offset(position);
  const auto size = sources_->table(Position{static_cast<std::int32_t>(position)}).before[depth_];
  return {position, id < size ? id : -1};
}

template <class Use>
void DirectEffects::for_each(Use&& use) const {
  for (std::size_t p = 0; p < blocks_.size(); ++p) {
    const auto start = offset(static_cast<std::int64_t>(p));
    for (const auto& block : blocks_[p]) {
      const auto& source = sources_->block(block.prompt, Position{static_cast<std::int32_t>(p)});
      const auto columns = block.effect.size(1);
      const auto rows = [&]<class Scalar>(const Scalar* data) {
        at::parallel_for(0, static_cast<std::int64_t>(block.target.size()), 8, [&](std::int64_t from, std::int64_t to) {
          for (auto r = from; r < to; ++r) {
            for (std::int64_t c = 0; c < columns; ++c) {
              const auto i = static_cast<std::size_t>(c);
              use(block.prompt, block.target[static_cast<std::size_t>(r)], start + source.ids[i],
                  static_cast<double>(data[r * columns + c]) * source.activation[i]);
            }
          }
        });
      };
      if (block.effect.scalar_type() == at::kDouble) {
        rows(data_of<double>(block.effect));
      } else {
        rows(data_of<float>(block.effect));
      }
    }
  }
}

inline std::vector<DirectEffects::Effect> DirectEffects::effects(std::int64_t target, const Place& place) const {
  std::vector<Effect> out;
  for (const auto& block : blocks_[static_cast<std::size_t>(place.position)]) {
    const auto found = std::lower_bound(block.target.begin(), block.target.end(), target);
    if (found == block.target.end() || *found != target) continue;
    const auto& source = sources_->block(block.prompt, Position{static_cast<std::int32_t>(place.position)});
    const auto column = source.row_of(place.id);
    if (column < 0) continue;
    const auto row = found - block.target.begin();
    const auto i = static_cast<std::size_t>(column);
    const auto contrasted = detail::element(block.effect, row, column);
    const auto rest = source.rest_of[i];
    out.push_back({block.prompt, rest < 0 ? contrasted : detail::element(block.rest, row, rest), source.activation[i],
                   contrasted * source.activation[i]});
  }
  return out;
}

}  // namespace circuit
