#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/part.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// What stands in an activation's place at a point: a tensor whose axes are the activation's or 1.
template <class R, class P>
concept Replacement = HookPoint<P> && requires(const R& r, Layer layer, const at::Tensor& value) {
  { r.instead(P{}, layer, value) } -> std::same_as<at::Tensor>;
};

/// The answers there are; one of your own is a struct like them.
namespace with {

struct Zero {
  template <HookPoint P>
  [[nodiscard]] at::Tensor instead(P /*point*/, Layer /*layer*/, const at::Tensor& value) const {
    return make::zeros_like(value);
  }
};

/// A fixed value, such as an optimal one: every axis the activation's, 1, or left out in front.
struct Value {
  at::Tensor value;

  template <HookPoint P>
  [[nodiscard]] at::Tensor instead(P /*point*/, Layer /*layer*/, const at::Tensor& /*value*/) const {
    return value;
  }
};

/// The activation times a factor.
struct Scale {
  double factor = 1.0;

  template <HookPoint P>
  [[nodiscard]] at::Tensor instead(P /*point*/, Layer /*layer*/, const at::Tensor& value) const {
    return value.mul(factor);
  }
};

/// The activation plus a vector: steering.
struct Plus {
  at::Tensor added;

  template <HookPoint P>
  [[nodiscard]] at::Tensor instead(P /*point*/, Layer /*layer*/, const at::Tensor& value) const {
    return value.add(added);
  }
};

/// Another run's activation at the same place: corrupt prompts', prompts drawn anew (`pick_prompts`), or a data set's
/// mean (`mean_activations`). throws in the run  NameError for a layer that was not recorded
template <class Cache>
struct Run {
  Cache cache;

  template <HookPoint P>
    requires(Cache::template holds<P>)
  [[nodiscard]] at::Tensor instead(P /*point*/, Layer layer, const at::Tensor& /*value*/) const {
    return cache.template get<P>(layer);
  }
};
template <class Cache>
Run(Cache) -> Run<Cache>;

/// Part of the way from the activation (share 0) to a replacement (share 1): noising from clean prompts towards the
/// corrupt run, denoising from corrupt prompts towards the clean run.
template <class R>
struct Blend {
  double share = 0.5;
  R other;

  template <HookPoint P>
    requires Replacement<R, P>
  [[nodiscard]] at::Tensor instead(P point, Layer layer, const at::Tensor& value) const {
    return value.mul(1.0 - share).add(other.instead(point, layer, value), share);
  }
};
template <class R>
Blend(double, R) -> Blend<R>;

}  // namespace with

/// An attachment that puts a replacement in the place of a part of what passes Points.
template <class With, HookPoint... Points>
class Replace {
 public:
  Replace(With with, Part part) : with_{std::move(with)}, part_{std::move(part)} {}

  /// throws  ShapeError  for a replacement that does not fit, and as Part::mask
  template <HookPoint P>
    requires(std::same_as<P, Points> || ...)
  void visit(P point, Layer layer, at::Tensor& value) const {
    if (!part_.touches(point, layer)) return;
    const auto other = with_.instead(point, layer, value);
    check_fits(other, value, hook_name(point, layer));
    const auto mask = part_.mask(point, layer, value);
    value = mask.defined() ? other.expand(value.sizes()).where(mask, value) : other.expand(value.sizes());
  }

 private:
  static void check_fits(const at::Tensor& other, const at::Tensor& value, const std::string& name) {
    bool fits = other.dim() <= value.dim();
    for (std::int64_t i = 1; fits && i <= other.dim(); ++i)
      fits = other.size(-i) == 1 || other.size(-i) == value.size(-i);
    if (fits) return;
    throw ShapeError{{.tensor = name,
                      .expected = shape_of(value),
                      .got = shape_of(other),
                      .hint = "a replacement has the activation's axes, or 1 in their place"}};
  }

  With with_;
  Part part_;
};

/// `model.run(tokens, replace<hook::attn::z>(with::Zero{}, {.layers = {Layer{3}}, .heads = {Head{0}}}))`.
template <HookPoint... Points, class With>
  requires(sizeof...(Points) > 0 && (Replacement<With, Points> && ...))
[[nodiscard]] Replace<With, Points...> replace(With with, Part part = {}) {
  return {std::move(with), std::move(part)};
}

}  // namespace circuit
