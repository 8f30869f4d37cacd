#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/edit.hpp"

namespace circuit {

/// Which part of an activation an intervention touches; an empty list means all. Positions are query positions where a
/// point has two.
struct Part {
  std::vector<Layer> layers{};
  std::vector<Position> positions{};    ///< the same for all prompts
  std::vector<Position> position_of{};  ///< one for each prompt, such as a role's in prompts of unequal lengths
  std::vector<Head> heads{};
  std::vector<Feature> units{};  ///< of the last axis: dimensions of a head, neurons

  template <HookPoint P>
  [[nodiscard]] bool touches(P /*point*/, Layer layer) const {
    return !P::per_layer || detail::is_chosen(layers, layer);
  }

  /// True where a value is touched, of axes that broadcast to the value's; undefined where all of it is.
  /// throws  IndexError for an index that is not there, NameError for an axis that the point does not have
  /// throws  ValueError unless there is a position for each prompt
  template <HookPoint P>
  [[nodiscard]] at::Tensor mask(P point, Layer layer, const at::Tensor& value) const;
};

}  // namespace circuit

namespace circuit::detail {

/// True at some indices of one axis, as a tensor of `value`'s rank.
template <class Tag>
[[nodiscard]] at::Tensor axis_mask(const std::vector<Id<Tag>>& ids, std::int64_t axis, const at::Tensor& value) {
  const auto size = value.size(axis);
  auto mask = make::zeros({size}, value.options().dtype(at::kBool));
  mask.index_fill_(0, index_tensor(ids, size, value), true);
  std::vector<std::int64_t> shape(static_cast<std::size_t>(value.dim()), 1);
  shape[static_cast<std::size_t>(axis < 0 ? axis + value.dim() : axis)] = size;
  return mask.view(shape);
}

/// throws  ValueError  unless there is a position for each prompt
inline void check_one_per_prompt(const std::vector<Position>& position_of, std::int64_t prompts) {
  if (static_cast<std::int64_t>(position_of.size()) == prompts) return;
  throw ValueError{{.tensor = "position of each prompt",
                    .expected = "one for each of " + std::to_string(prompts) + " prompts",
                    .got = std::to_string(position_of.size())}};
}

/// True at each prompt's own position.
[[nodiscard]] inline at::Tensor position_mask(const std::vector<Position>& position_of, std::int64_t axis,
                                              const at::Tensor& value) {
  check_one_per_prompt(position_of, value.size(0));
  const auto rows = make::arange(value.size(axis), value.options().dtype(at::kLong));
  const auto chosen = index_tensor(position_of, value.size(axis), value).unsqueeze(1);
  std::vector<std::int64_t> shape(static_cast<std::size_t>(value.dim()), 1);
  shape.front() = value.size(0);
  shape[static_cast<std::size_t>(axis)] = value.size(axis);
  return rows.unsqueeze(0).eq(chosen).view(shape);
}

}  // namespace circuit::detail

template <circuit::HookPoint P>
at::Tensor circuit::Part::mask(P point, Layer layer, const at::Tensor& value) const {
  constexpr auto pos = detail::position_axis<P>;
  constexpr auto head = detail::head_axis<P>;
  at::Tensor mask;
  const auto narrow = [&](bool wished, std::int64_t axis, auto&& make_mask) {
    if (!wished) return;
    if (axis < 0) throw NameError{{.tensor = hook_name(point, layer), .problem = "has no such axis to choose from"}};
    const auto one = make_mask();
    mask = mask.defined() ? mask.logical_and(one) : one;
  };
  narrow(!positions.empty(), pos, [&] { return detail::axis_mask(positions, pos, value); });
  narrow(!position_of.empty(), pos, [&] { return detail::position_mask(position_of, pos, value); });
  narrow(!heads.empty(), head, [&] { return detail::axis_mask(heads, head, value); });
  narrow(!units.empty(), value.dim() - 1, [&] { return detail::axis_mask(units, value.dim() - 1, value); });
  return mask;
}
