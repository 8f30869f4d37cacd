#pragma once

#include <concepts>

#include "circuit/linear/path_gradient.hpp"

namespace circuit {

/// How a target's effect on the metric (its nodegrad) is known. Either from gradients on every module's output, asked
/// for once, or (`from_edges`) summed over the edges kept so far, from the metric downwards.
template <class C>
concept ChainRule = requires {
  { C::from_edges } -> std::convertible_to<bool>;
};

namespace chain {

/// One true backward pass of the original model: sees every nonlinear path (the seed's choice).
struct ModelGradient {
  static constexpr bool from_edges = false;

  template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
  [[nodiscard]] OutputGradients gradients(const HookedTransformer<A>& /*model*/, const Set& /*dictionaries*/,
                                          const Linearization& linearization, const PullBack<A, Softmax>& /*pull_back*/,
                                          AttentionPaths /*paths*/) const {
    return linearization.gradients;
  }
};

/// Signed sum over the paths of kept edges.
struct GraphPath {
  static constexpr bool from_edges = true;
};

/// Signed sum over all paths of the replacement model, kept or not.
struct AllPaths {
  static constexpr bool from_edges = false;

  template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
  [[nodiscard]] OutputGradients gradients(const HookedTransformer<A>& model, const Set& dictionaries,
                                          const Linearization& linearization, const PullBack<A, Softmax>& pull_back,
                                          AttentionPaths paths) const {
    return path_gradients(model, dictionaries, linearization, pull_back, paths);
  }
};

/// Gradients on every module's output that the caller knows, such as integrated ones.
struct Given {
  static constexpr bool from_edges = false;

  OutputGradients outputs{};

  template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
  [[nodiscard]] OutputGradients gradients(const HookedTransformer<A>& /*model*/, const Set& /*dictionaries*/,
                                          const Linearization& /*linearization*/,
                                          const PullBack<A, Softmax>& /*pull_back*/, AttentionPaths /*paths*/) const {
    return outputs;
  }
};

}  // namespace chain
}  // namespace circuit
