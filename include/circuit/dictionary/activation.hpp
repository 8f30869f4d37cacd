#pragma once

#include <concepts>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"

namespace circuit {

/// The nonlinearity of a sparse dictionary and its derivative at a run.
template <class A>
concept SparseActivation = requires(const A& a, const at::Tensor& t) {
  { a.apply(t) } -> std::same_as<at::Tensor>;
  { a.slope(t, t) } -> std::same_as<at::Tensor>;
};

/// A nonlinearity whose value at one feature depends on that feature alone, so that some can be had without the others.
template <class A>
concept ElementwiseActivation = SparseActivation<A> && requires(const A& a, const at::Tensor& features) {
  { a.of_features(features) } -> std::same_as<A>;
};

/// One active feature of a row.
struct ActiveEntry {
  std::int64_t feature;
  double activation;
  double pre;
};

/// A nonlinearity that compares the features of a row, and can do so as they come, block by block in ascending order:
/// `Selection` is one row's choice among what it was offered.
template <class A>
concept SelectiveActivation =
    SparseActivation<A> && std::constructible_from<typename A::Selection, const A&, std::int64_t> &&
    requires(typename A::Selection s, const float* narrow, const double* wide) {
      s.offer(narrow, std::int64_t{}, std::int64_t{});
      s.offer(wide, std::int64_t{}, std::int64_t{});
      { s.kept() } -> std::same_as<std::vector<ActiveEntry>>;
    };

namespace activation {

/// max(0, pre).
struct Relu {
  /// pre [..., d_sae]  return the activations, the same shape; a feature is active where they are not 0
  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const { return pre.relu(); }
  /// The same nonlinearity over a choice of features, which here have no settings of their own.
  [[nodiscard]] Relu of_features(const at::Tensor& /*features*/) const { return {}; }
  /// d activation / d pre-activation of features that are active
  /// pre, act  [n]  of n active features
  [[nodiscard]] at::Tensor slope(const at::Tensor& /*pre*/, const at::Tensor& act) const {
    return act.mul(0.0).add(1.0);
  }
};

}  // namespace activation
}  // namespace circuit
