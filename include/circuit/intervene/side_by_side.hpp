#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

namespace detail {

template <class A, class P>
inline constexpr bool any_attached = AttachedTo<A, P>;
template <class... As, class P>
inline constexpr bool any_attached<std::variant<As...>, P> = (AttachedTo<As, P> || ...);

/// Shows a value to an attachment, or to the one that a variant holds.
template <class A, HookPoint P>
void show(A& attachment, P point, Layer layer, at::Tensor& value) {
  if constexpr (AttachedTo<A, P>) attachment.visit(point, layer, value);
}
template <class... As, HookPoint P>
void show(std::variant<As...>& attachment, P point, Layer layer, at::Tensor& value) {
  std::visit([&](auto& a) { show(a, point, layer, value); }, attachment);
}

}  // namespace detail

/// An attachment that runs interventions beside each other: the batch is the prompts once for each, and each
/// intervention sees its own share as if it ran alone. Of different kinds they are a std::variant.
template <class A>
class SideBySide {
 public:
  /// throws  ValueError  for none
  explicit SideBySide(std::vector<A> interventions) : interventions_{std::move(interventions)} {
    if (interventions_.empty()) {
      throw ValueError{{.tensor = "interventions", .expected = "at least one", .got = "none"}};
    }
  }

  [[nodiscard]] std::int64_t size() const noexcept { return static_cast<std::int64_t>(interventions_.size()); }

  /// throws  ValueError  for a batch that cannot be shared out, and as the interventions
  template <HookPoint P>
    requires(detail::any_attached<A, P>)
  void visit(P point, Layer layer, at::Tensor& value) {
    if (value.size(0) % size() != 0) {
      throw ValueError{{.tensor = hook_name(point, layer),
                        .expected = "the same prompts for each of " + std::to_string(size()) + " interventions",
                        .got = std::to_string(value.size(0)) + " prompts",
                        .hint = "run_side_by_side repeats them"}};
    }
    auto shares = value.chunk(size(), 0);
    for (std::size_t i = 0; i < shares.size(); ++i) detail::show(interventions_[i], point, layer, shares[i]);
    value = make::cat(shares, 0);
  }

 private:
  std::vector<A> interventions_;
};

/// The logits of every intervention on the same prompts, from one forward pass: memory grows with their number.
/// return  [interventions, batch, pos, d_vocab]
/// throws  ValueError  for no interventions, and as a run
template <Architecture A, class Intervention>
[[nodiscard]] at::Tensor run_side_by_side(const HookedTransformer<A>& model, const at::Tensor& tokens,
                                          std::vector<Intervention> interventions) {
  check_shape(tokens, {-1, -1}, "tokens");
  SideBySide<Intervention> together{std::move(interventions)};
  const auto repeated = tokens.repeat({together.size(), 1});
  const auto logits = model.run(repeated, together).logits;
  return logits.view({together.size(), tokens.size(0), logits.size(1), logits.size(2)});
}

}  // namespace circuit
