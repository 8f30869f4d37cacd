#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"

namespace circuit {

/// The activations that one forward pass left at hook points Points. Asking for a point that is not among them does not
/// compile; asking for a layer that was not recorded throws.
template <HookPoint... Points>
class ActivationCache {
 public:
  template <class P>
  static constexpr bool holds = (std::same_as<P, Points> || ...);

  /// throws  NameError  when that layer was not recorded
  template <HookPoint P>
    requires holds<P>
  [[nodiscard]] const at::Tensor& get(Layer layer = Layer{0}) const {
    const auto* value = find(index<P>(), layer);
    return value != nullptr ? *value : throw_unrecorded(hook_name(P{}, layer));
  }

  template <HookPoint P>
    requires holds<P>
  void put(Layer layer, at::Tensor value) {  // NOLINT(performance-unnecessary-value-param): moved from
    put_at(index<P>(), layer, std::move(value));
  }

  /// Calls `use(P{}, layer, value)` for everything recorded.
  template <class Use>
  void for_each(Use&& use) const {
    const auto one = [&]<class P>(P point) {
      const auto& values = values_[index<P>()];
      for (std::size_t l = 0; l < values.size(); ++l) {
        if (values[l].defined()) use(point, Layer{static_cast<std::int32_t>(l)}, values[l]);
      }
    };
    (one(Points{}), ...);
  }

 private:
  template <class P>
  static constexpr std::size_t index() {
    constexpr std::array same{std::same_as<P, Points>...};
    std::size_t i = 0;
    while (!same[i]) ++i;
    return i;
  }

  [[noreturn]] static const at::Tensor& throw_unrecorded(std::string hook) {
    throw NameError{{.tensor = std::move(hook), .problem = "was not recorded"}};
  }
  [[nodiscard]] const at::Tensor* find(std::size_t point, Layer layer) const {
    const auto& values = values_[point];
    const auto slot = static_cast<std::size_t>(layer.value);
    return layer.value >= 0 && slot < values.size() && values[slot].defined() ? &values[slot] : nullptr;
  }
  void put_at(std::size_t point, Layer layer, at::Tensor&& value) {
    auto& values = values_[point];
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= values.size()) values.resize(slot + 1);
    values[slot] = std::move(value);
  }

  std::array<std::vector<at::Tensor>, sizeof...(Points)> values_;  // [point][layer]
};

/// Which layers an attachment touches; empty means all.
struct InLayers {
  std::vector<Layer> layers{};

  [[nodiscard]] bool contains(Layer layer) const { return detail::is_chosen(layers, layer); }
};

/// An attachment that keeps the values at its points. Kept values are the forward pass's own tensors, not copies.
template <HookPoint... Points>
class Recorder {
 public:
  using Cache = ActivationCache<Points...>;

  Recorder() = default;
  explicit Recorder(InLayers in) : in_{std::move(in)} {}

  template <HookPoint P>
    requires(Cache::template holds<P>)
  void visit(P /*point*/, Layer layer, at::Tensor& value) {
    if (!P::per_layer || in_.contains(layer)) cache_.template put<P>(layer, value);
  }

  [[nodiscard]] const Cache& cache() const& { return cache_; }
  [[nodiscard]] Cache&& cache() && { return std::move(cache_); }

 private:
  InLayers in_;
  Cache cache_;
};

/// Keeps the activations at Points, in all layers or those given: `model.run(tokens, record<hook::attn::pattern>())`.
template <HookPoint... Points>
[[nodiscard]] Recorder<Points...> record(InLayers in = {}) {
  return Recorder<Points...>{std::move(in)};
}

}  // namespace circuit
