#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"

namespace circuit {

/// Where an edit acts; an empty list means everywhere. Positions are query positions where a point has two.
struct Where {
  std::vector<Layer> layers{};
  std::vector<Position> positions{};
  std::vector<Head> heads{};
};

/// Turns the value at a hook point into another of the same shape.
template <class F>
concept ActivationEdit = requires(const F& f, const at::Tensor& value, Layer layer) {
  { std::invoke(f, value, layer) } -> std::convertible_to<at::Tensor>;
};

/// An attachment that replaces the value at its points by what a function makes of it. The function sees only the
/// chosen positions and heads, as a value with those axes shortened.
template <ActivationEdit F, HookPoint... Points>
class Edit {
 public:
  Edit(F function, Where where) : function_{std::move(function)}, where_{std::move(where)} {}

  /// throws  ShapeError  when the function changes the shape;  IndexError  for a position or head that is not there
  template <HookPoint P>
    requires(std::same_as<P, Points> || ...)
  void visit(P point, Layer layer, at::Tensor& value) const;

 private:
  F function_;
  Where where_;
};

/// Replaces the value at Points: `edit<hook::attn::pattern>(f, {.layers = {Layer{3}}, .heads = {Head{0}}})`, with
/// `at::Tensor f(const at::Tensor& value, Layer layer)`.
template <HookPoint... Points, ActivationEdit F>
[[nodiscard]] Edit<F, Points...> edit(F function, Where where = {}) {
  return {std::move(function), std::move(where)};
}

}  // namespace circuit

namespace circuit::detail {

template <class Wanted, class... Axis>
consteval std::int64_t axis_index(Axes<Axis...> /*axes*/) {
  std::int64_t found = -1;
  std::int64_t i = 0;
  (((std::same_as<Axis, Wanted> && found < 0) ? found = i : found, ++i), ...);
  return found;
}

/// The axis of positions (of queries, where there are two) and that of heads, of whatever kind; -1 for none.
template <HookPoint P>
inline constexpr std::int64_t position_axis =
    axis_index<axis::Pos>(typename P::axes{}) >= 0 ? axis_index<axis::Pos>(typename P::axes{})
                                                   : axis_index<axis::QueryPos>(typename P::axes{});
template <HookPoint P>
inline constexpr std::int64_t head_axis =
    axis_index<axis::Head>(typename P::axes{}) >= 0 ? axis_index<axis::Head>(typename P::axes{})
                                                    : axis_index<axis::KeyValueHead>(typename P::axes{});

template <class Tag>
[[nodiscard]] at::Tensor index_tensor(const std::vector<Id<Tag>>& ids, std::int64_t size, const at::Tensor& like) {
  auto index = make::empty({static_cast<std::int64_t>(ids.size())}, at::kLong);
  auto* out = index.data_ptr<std::int64_t>();
  for (const auto id : ids) {
    check_index(id, size);
    *out++ = id.value;
  }
  return index.to(like.device());
}

}  // namespace circuit::detail

namespace circuit {

template <ActivationEdit F, HookPoint... Points>
template <HookPoint P>
  requires(std::same_as<P, Points> || ...)
void Edit<F, Points...>::visit(P point, Layer layer, at::Tensor& value) const {
  if (P::per_layer && !detail::is_chosen(where_.layers, layer)) return;
  const auto narrowed_to = [&](const at::Tensor& whole, auto&& rest, const auto& ids, std::int64_t axis) -> at::Tensor {
    if (ids.empty()) return rest(whole);
    if (axis < 0) {
      throw NameError{{.tensor = hook_name(point, layer), .problem = "has no such axis to choose from"}};
    }
    const auto index = detail::index_tensor(ids, whole.size(axis), whole);
    return whole.index_copy(axis, index, rest(whole.index_select(axis, index)));
  };
  const auto whole = [&](const at::Tensor& v) {
    at::Tensor edited = std::invoke(function_, v, layer);
    check_shape(edited, shape_of(v), hook_name(point, layer), {}, "an edit keeps the shape");
    return edited;
  };
  value = narrowed_to(
      value, [&](const at::Tensor& v) { return narrowed_to(v, whole, where_.heads, detail::head_axis<P>); },
      where_.positions, detail::position_axis<P>);
}

}  // namespace circuit
