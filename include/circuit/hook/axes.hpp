#pragma once

#include <cstddef>

namespace circuit {

/// What an axis of an activation counts.
namespace axis {
struct Batch {};
struct Pos {};
struct QueryPos {};
struct KeyPos {};
struct Head {};
struct KeyValueHead {};
struct DModel {};
struct DHead {};
struct DMlp {};
struct One {};
}  // namespace axis

/// The axes of an activation, outermost first.
template <class... Axis>
struct Axes {
  static constexpr std::size_t rank = sizeof...(Axis);
};

}  // namespace circuit
