#pragma once

#include <concepts>
#include <type_traits>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"

namespace circuit {

/// Something that looks at, or replaces, the value that passes hook point P. Attachments are visited in the order in
/// which a call names them, so a recording after an edit sees the edited value.
template <class A, class P>
concept AttachedTo =
    HookPoint<P> && requires(A& attachment, Layer layer, at::Tensor& value) { attachment.visit(P{}, layer, value); };

/// An attachment that goes on from tokens of earlier runs.
template <class A>
concept ContinuesRun = requires(const A& attachment) {
  { attachment.first_position() } -> std::same_as<Position>;
};

/// Where a run's first token stands in its prompt: at 0, unless an attachment goes on from earlier tokens.
template <class... Attached>
[[nodiscard]] Position first_position([[maybe_unused]] const Attached&... attached) {
  Position first{0};
  [[maybe_unused]] const auto one = [&]<class A>(const A& attachment) {
    if constexpr (ContinuesRun<A>) first = attachment.first_position();
  };
  (one(attached), ...);
  return first;
}

/// Shows `value` to every attachment of P. With none, nothing is instantiated and nothing runs.
template <HookPoint P, class... Attached>
void visit_point(P point, Layer layer, at::Tensor& value, Attached&... attached) {
  [[maybe_unused]] const auto one = [&]<class A>(A& attachment) {
    // A recorder passed as const would otherwise be left out without a word.
    static_assert(AttachedTo<A, P> || !AttachedTo<std::remove_const_t<A>, P>, "this attachment must not be const");
    if constexpr (AttachedTo<A, P>) attachment.visit(point, layer, value);
  };
  (one(attached), ...);
}

}  // namespace circuit
