#pragma once

#include <cstdint>
#include <utility>
#include <variant>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/activation.hpp"
#include "circuit/dictionary/activation/group_max.hpp"
#include "circuit/dictionary/activation/jump_relu.hpp"
#include "circuit/dictionary/activation/top_k.hpp"

namespace circuit {

namespace activation {

/// One of the nonlinearities that dictionaries are published with, chosen when a file is read; ReLU by default.
struct Any {
  std::variant<Relu, JumpRelu, TopK, GroupMax> chosen{};

  [[nodiscard]] at::Tensor apply(const at::Tensor& pre) const {
    return std::visit([&](const auto& a) { return a.apply(pre); }, chosen);
  }
  [[nodiscard]] at::Tensor slope(const at::Tensor& pre, const at::Tensor& act) const {
    return std::visit([&](const auto& a) { return a.slope(pre, act); }, chosen);
  }
};

}  // namespace activation

namespace detail {

/// Calls use(activation) with the one that was chosen.
template <SparseActivation A, class Use>
decltype(auto) with_activation(const A& activation, Use&& use) {
  return std::forward<Use>(use)(activation);
}
template <class Use>
decltype(auto) with_activation(const activation::Any& activation, Use&& use) {
  return std::visit(std::forward<Use>(use), activation.chosen);
}

}  // namespace detail
}  // namespace circuit
