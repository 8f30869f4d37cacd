#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>

#include "circuit/core/id.hpp"

namespace circuit {

/// A stage of long work is over: its name ("runs and encodings", "packing", ...) and how long it took.
struct StageDone {
  std::string_view stage;
  double seconds;
};

/// A search is through with a layer; `edges` counts those kept so far.
struct LayerDone {
  Layer layer;
  std::size_t edges;
};

/// A search that goes by rounds is through with one; counts are of all so far.
struct RoundDone {
  std::size_t targets;
  std::size_t edges;
};

/// Anything that can be called with at least one kind of event, on the thread that called the long work. A callable that
/// takes none of them does not compile here, instead of never being called.
template <class O>
concept Observer = std::invocable<O&, const StageDone&> || std::invocable<O&, const LayerDone&> ||
                   std::invocable<O&, const RoundDone&>;

/// Tells `event` to every observer that takes it.
template <class Event, Observer... Observers>
void notify(const Event& event, Observers&... observers) {
  [[maybe_unused]] const auto one = [&](auto& observer) {
    if constexpr (std::invocable<decltype(observer), const Event&>) observer(event);
  };
  (one(observers), ...);
}

}  // namespace circuit
