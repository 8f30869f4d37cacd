#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "circuit/core/parallel.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/linear/sources.hpp"

namespace circuit {

/// The gradients of some targets on one prompt, with respect to the residual stream.
struct PromptGradients {
  Prompt prompt{};
  std::vector<std::int64_t> target;  ///< [r]  index among the step's targets, ascending
  at::Tensor grad;                   ///< [r, d_model] at each target's own position, or [r, pos, d_model]
};

/// Gradients on the way down: they hold for nodes from one depth on, up to the depth of those before them. Only a
/// transparent module changes them.
struct CarriedGradients {
  std::int64_t from = -1;                  ///< depth; for the last, where what the targets read begins
  std::vector<PromptGradients> gradients;  ///< the same prompts and targets at every depth
};

/// Direct effects of upstream nodes on the targets of one step (one layer and edge type): at each position one matrix
/// product against the packed write vectors that all prompts read, and one per prompt against its own.
class DirectEffects {
 public:
  /// positions  where each target stands; must not ascend, so that the readers of a position are one run of targets
  /// spans      whether a target reads every position up to its own, or only its own
  /// range      which nodes are upstream
  DirectEffects(const Sources& sources, std::vector<std::int64_t> positions, bool spans, const Upstream& range);

  /// Multiplies. carried  by falling depth; each with at most one entry per prompt, prompts ascending
  void multiply(const std::vector<CarriedGradients>& carried) { multiply({this}, {&carried}); }
  /// The same for several types of edge from the same upstream nodes at once: the write vectors are read once for all.
  /// The depths of `carried` are the same for each.
  static void multiply(const std::vector<DirectEffects*>& together,
                       const std::vector<const std::vector<CarriedGradients>*>& carried);

  [[nodiscard]] std::int64_t targets() const { return static_cast<std::int64_t>(positions_.size()); }
  [[nodiscard]] std::int64_t columns() const { return columns_; }

  /// An upstream node as a column of a target: position, and index among that position's nodes; -1 for padding.
  struct Place {
    std::int64_t position;
    std::int64_t index;
  };
  [[nodiscard]] Place place(std::int64_t target, std::int64_t column) const;
  [[nodiscard]] const Node& node(const Place& place) const {
    return sources_->at(Position{static_cast<std::int32_t>(place.position)}).node(place.index, range_);
  }

  /// Calls use(prompt, target, column, effect times activation) for every product, none of which is of a feature that is
  /// active on another prompt alone; targets in parallel, prompts in turn.
  template <class Use>
  void for_each(Use&& use) const;

  /// One upstream node's effect on a target on one prompt.
  struct Effect {
    Prompt prompt;
    double grad;    ///< d target pre-activation / d upstream activation
    double attrib;  ///< share of the target's pre-activation
  };
  /// On every prompt where both are there.
  [[nodiscard]] std::vector<Effect> effects(std::int64_t target, const Place& place) const;

 private:
  /// The products at one position with what one block writes; rows are (prompt, target), prompt by prompt.
  struct BlockProducts {
    std::int64_t first_row = 0;        // the rest's row of the first
    std::vector<std::int64_t> column;  // which of the position's features each column is of, ascending
    at::Tensor effect;                 // [rows, columns]  on the CPU; undefined where no target reads the block
  };
  /// All of them; rows likewise.
  struct Products {
    struct Run {
      Prompt prompt;
      std::int64_t first_row;
      std::vector<std::int64_t> target;  // ascending
    };
    /// The rows that read a block, as {first, count}.
    [[nodiscard]] std::pair<std::int64_t, std::int64_t> rows_of(const WriteBlock& block) const {
      if (!block.only) return {0, rest.defined() ? rest.size(0) : 0};
      const auto run = std::ranges::find(runs, *block.only, &Run::prompt);
      return run == runs.end() ? std::pair<std::int64_t, std::int64_t>{}
                               : std::pair{run->first_row, std::ssize(run->target)};
    }

    std::vector<Run> runs;
    std::vector<BlockProducts> features;  // [block]
    at::Tensor rest;                      // [rows, rest]  with contrasted write vectors
    at::Tensor rest_grad;                 // [rows, rest]  with clean ones
  };

  /// The rows of `target` that read a position, as [first, last).
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> readers_of(Position p,
                                                                 const std::vector<std::int64_t>& target) const;
  /// The products at a position but for those with features.
  /// grads  where the gradients go that read it, upwards  [part] [rows, d_model]
  [[nodiscard]] Products rest_products(Position p, const std::vector<CarriedGradients>& carried,
                                       const std::vector<Upstream>& depths, std::vector<at::Tensor>& grads) const;
  /// of  the rows that read the block, at every depth
  [[nodiscard]] BlockProducts block_products(const PositionSources& source, const WriteBlock& block,
                                             const std::vector<at::Tensor>& of,
                                             const std::vector<Upstream>& depths) const;
  [[nodiscard]] std::int64_t offset(std::size_t position) const { return spans_ ? offsets_[position] : 0; }

  const Sources* sources_;
  std::vector<std::int64_t> positions_;
  bool spans_;
  Upstream range_;
  std::vector<std::int64_t> offsets_;  // [pos]
  std::int64_t columns_ = 0;
  std::vector<Products> products_;  // [pos]
};

}  // namespace circuit

namespace circuit::detail {

/// An element of a contiguous CPU matrix, whatever its floating type.
[[nodiscard]] inline double element(const at::Tensor& matrix, std::int64_t row, std::int64_t column) {
  const auto at_index = row * matrix.size(1) + column;
  return matrix.scalar_type() == at::kDouble ? data_of<double>(matrix)[at_index]
                                             : static_cast<double>(data_of<float>(matrix)[at_index]);
}

/// Calls use(pointer to the elements) with the matrix's own type.
template <class Use>
void with_elements(const at::Tensor& matrix, Use&& use) {
  if (matrix.scalar_type() == at::kDouble) {
    use(data_of<double>(matrix));
  } else {
    use(data_of<float>(matrix));
  }
}

}  // namespace circuit::detail

namespace circuit {

inline DirectEffects::DirectEffects(const Sources& sources, std::vector<std::int64_t> positions, bool spans,
                                    const Upstream& range)
    : sources_{&sources},
      positions_{std::move(positions)},
      spans_{spans},
      range_{range},
      products_(static_cast<std::size_t>(sources.length())) {
  for (std::int32_t p = 0; p < sources.length(); ++p) {
    const auto here = sources.at(Position{p}).count(range_);
    offsets_.push_back(columns_);
    if (spans_) {
      columns_ += here;
    } else if (std::ranges::find(positions_, p) != positions_.end()) {
      columns_ = std::max(columns_, here);
    }
  }
}

inline void DirectEffects::multiply(const std::vector<DirectEffects*>& together,
                                    const std::vector<const std::vector<CarriedGradients>*>& carried) {
  const auto& first = *together.front();
  std::vector<Upstream> depths;  // [part]  upwards, as the nodes lie
  for (auto part = carried.front()->rbegin(); part != carried.front()->rend(); ++part) {
    const auto next = std::next(part);
    depths.push_back({part->from, next == carried.front()->rend() ? first.range_.to : next->from});
  }
  for (std::int32_t p = 0; p < first.sources_->length(); ++p) {
    const auto slot = static_cast<std::size_t>(p);
    std::vector<std::vector<at::Tensor>> grads(together.size());
    for (std::size_t i = 0; i < together.size(); ++i) {
      together[i]->products_[slot] = together[i]->rest_products(Position{p}, *carried[i], depths, grads[i]);
    }
    const auto& source = first.sources_->at(Position{p});
    for (const auto& block : source.blocks) {
      std::vector<std::vector<at::Tensor>> of(depths.size());
      for (std::size_t i = 0; i < together.size(); ++i) {
        const auto [row, rows] = together[i]->products_[slot].rows_of(block);
        for (std::size_t part = 0; part < depths.size() && rows > 0; ++part) {
          of[part].push_back(grads[i][part].narrow(0, row, rows));
        }
      }
      BlockProducts all;
      if (!of.front().empty()) {
        std::vector<at::Tensor> joined;
        for (const auto& rows : of) joined.push_back(make::cat(rows, 0));
        all = first.block_products(source, block, joined, depths);
      }
      std::int64_t at_row = 0;
      for (auto* effects : together) {
        auto& products = effects->products_[slot];
        const auto [row, rows] = products.rows_of(block);
        const bool reads = rows > 0 && all.effect.defined();
        products.features.push_back({row, all.column, reads ? all.effect.narrow(0, at_row, rows) : at::Tensor{}});
        at_row += rows;
      }
    }
  }
}

inline std::pair<std::int64_t, std::int64_t> DirectEffects::readers_of(Position p,
                                                                       const std::vector<std::int64_t>& target) const {
  const auto reads = [&](std::int64_t t) {
    const auto own = positions_[static_cast<std::size_t>(t)];
    return spans_ ? own >= p.value : own == p.value;
  };
  // Positions do not ascend, so the readers of p are one run of rows.
  const auto first = std::ranges::find_if(target, reads);
  const auto last = std::find_if_not(first, target.end(), reads);
  return {first - target.begin(), last - target.begin()};
}

inline DirectEffects::Products DirectEffects::rest_products(Position p, const std::vector<CarriedGradients>& carried,
                                                            const std::vector<Upstream>& depths,
                                                            std::vector<at::Tensor>& grads) const {
  const auto& source = sources_->at(p);
  Products out;
  std::int64_t rows = 0;
  for (const auto& g : carried.front().gradients) {
    const auto [first, last] = readers_of(p, g.target);
    if (first == last) continue;
    out.runs.push_back({g.prompt, rows, {g.target.begin() + first, g.target.begin() + last}});
    rows += last - first;
  }
  if (rows == 0) return out;

  std::vector<at::Tensor> rest;
  std::vector<at::Tensor> rest_grad;
  for (std::size_t part = 0; part < depths.size(); ++part) {
    const auto first_rest = depths[part].first(source.rest_before);
    const auto rests = depths[part].count(source.rest_before);
    std::vector<at::Tensor> by_prompt;
    std::vector<at::Tensor> on_rest;
    std::vector<at::Tensor> on_rest_grad;
    for (const auto& g : carried[carried.size() - 1 - part].gradients) {
      const auto [first, last] = readers_of(p, g.target);
      if (first == last) continue;
      auto grad = g.grad.narrow(0, first, last - first);
      if (spans_) grad = grad.select(1, p.value);
      const auto of_prompt = [&](const at::Tensor& writes) {
        return writes.select(0, g.prompt.value).narrow(0, first_rest, rests).t();
      };
      on_rest.push_back(grad.matmul(of_prompt(source.rest_effect)));
      on_rest_grad.push_back(grad.matmul(of_prompt(source.rest_writes)));
      by_prompt.push_back(grad);
    }
    grads.push_back(make::cat(by_prompt, 0));
    rest.push_back(make::cat(on_rest, 0));
    rest_grad.push_back(make::cat(on_rest_grad, 0));
  }
  out.rest = detail::on_host(make::cat(rest, 1));
  out.rest_grad = detail::on_host(make::cat(rest_grad, 1));
  return out;
}

inline DirectEffects::BlockProducts DirectEffects::block_products(const PositionSources& source,
                                                                  const WriteBlock& block,
                                                                  const std::vector<at::Tensor>& of,
                                                                  const std::vector<Upstream>& depths) const {
  BlockProducts out;
  const auto first_feature = range_.first(source.features_before);
  const auto first = static_cast<std::ptrdiff_t>(range_.first(block.before));
  const auto last = static_cast<std::ptrdiff_t>(range_.last(block.before));
  std::transform(block.feature.begin() + first, block.feature.begin() + last, std::back_inserter(out.column),
                 [&](std::int64_t feature) { return feature - first_feature; });
  if (out.column.empty()) return out;
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < of.size(); ++i) {
    const auto writes = block.writes.narrow(0, depths[i].first(block.before), depths[i].count(block.before));
    parts.push_back(writes.matmul(of[i].t()));  // this way round it is faster where few targets read many features
  }
  auto effect = make::cat(parts, 0);  // [writes, rows]
  const bool once = std::ranges::adjacent_find(out.column, std::greater_equal{}) == out.column.end();
  if (!once) {  // cross-layer features write several times
    auto distinct = detail::distinct(out.column);
    std::vector<std::int64_t> place;
    for (const auto column : out.column) place.push_back(detail::place_of(distinct, column));
    effect = make::zeros({static_cast<std::int64_t>(distinct.size()), effect.size(1)}, effect.options())
                 .index_add_(0, detail::ids_tensor(place).to(effect.device()), effect);
    out.column = std::move(distinct);
  }
  out.effect = detail::on_host(effect.t());
  return out;
}

inline DirectEffects::Place DirectEffects::place(std::int64_t target, std::int64_t column) const {
  auto position = positions_[static_cast<std::size_t>(target)];
  if (spans_) position = (std::upper_bound(offsets_.begin(), offsets_.end(), column) - offsets_.begin()) - 1;
  const auto index = column - offset(static_cast<std::size_t>(position));
  const auto size = sources_->at(Position{static_cast<std::int32_t>(position)}).count(range_);
  return {position, index < size ? index : -1};
}

template <class Use>
void DirectEffects::for_each(Use&& use) const {
  for (std::size_t p = 0; p < products_.size(); ++p) {
    const auto& products = products_[p];
    if (products.runs.empty()) continue;
    const auto& source = sources_->at(Position{static_cast<std::int32_t>(p)});
    const auto start = offset(p);
    const auto features = range_.count(source.features_before);
    const auto rest = products.rest.size(1);
    for (const auto& run : products.runs) {
      const auto* activation = source.activation.data() + source.slot(run.prompt, range_.first(source.features_before));
      detail::parallel_for(static_cast<std::int64_t>(run.target.size()), 4, [&](std::int64_t from, std::int64_t to) {
        for (auto r = from; r < to; ++r) {
          const auto target = run.target[static_cast<std::size_t>(r)];
          const auto row = run.first_row + r;
          for (std::size_t k = 0; k < source.blocks.size(); ++k) {
            const auto& block = products.features[k];
            if (!block.effect.defined() || !source.blocks[k].read_on(run.prompt)) continue;
            const auto columns = block.effect.size(1);
            detail::with_elements(block.effect, [&](const auto* effect) {
              effect += (row - block.first_row) * columns;
              for (std::int64_t c = 0; c < columns; ++c) {
                const auto column = block.column[static_cast<std::size_t>(c)];
                use(run.prompt, target, start + column, static_cast<double>(effect[c]) * activation[column]);
              }
            });
          }
          detail::with_elements(products.rest, [&](const auto* effect) {
            for (std::int64_t c = 0; c < rest; ++c) {
              use(run.prompt, target, start + features + c, static_cast<double>(effect[row * rest + c]));
            }
          });
        }
      });
    }
  }
}

inline std::vector<DirectEffects::Effect> DirectEffects::effects(std::int64_t target, const Place& place) const {
  const auto& products = products_[static_cast<std::size_t>(place.position)];
  const auto& source = sources_->at(Position{static_cast<std::int32_t>(place.position)});
  std::vector<Effect> out;
  for (const auto& run : products.runs) {
    const auto found = std::lower_bound(run.target.begin(), run.target.end(), target);
    if (found == run.target.end() || *found != target) continue;
    const auto row = run.first_row + (found - run.target.begin());
    if (const auto rest = place.index - range_.count(source.features_before); rest >= 0) {
      out.push_back(
          {run.prompt, detail::element(products.rest_grad, row, rest), detail::element(products.rest, row, rest)});
      continue;
    }
    const auto slot = source.slot(run.prompt, range_.first(source.features_before) + place.index);
    if (source.present[slot] == 0) continue;
    for (std::size_t k = 0; k < source.blocks.size(); ++k) {
      const auto& block = products.features[k];
      const auto column = std::ranges::lower_bound(block.column, place.index);
      if (!source.blocks[k].read_on(run.prompt) || column == block.column.end() || *column != place.index) continue;
      const auto grad = detail::element(block.effect, row - block.first_row, column - block.column.begin());
      out.push_back({run.prompt, grad * source.unit_at(slot), grad * source.activation[slot]});
    }
  }
  return out;
}

}  // namespace circuit
