#pragma once

#include <concepts>
#include <string_view>

#include "circuit/model/attention.hpp"
#include "circuit/model/mlp.hpp"
#include "circuit/model/norm.hpp"
#include "circuit/model/positions.hpp"
#include "circuit/model/wiring.hpp"

namespace circuit {

/// What differs in kind between transformer families, part by part; sizes and numbers are in ModelConfig. The families
/// this library brings lie in `architecture/`, one of your own is a struct like them (examples/320_own_architecture.cpp).
template <class A>
concept Architecture =
    Norm<typename A::Norm> && Positions<typename A::Positions> && AttentionKind<typename A::Attention> &&
    MlpKind<typename A::Mlp> && BlockWiring<typename A::Wiring> && requires {
      { A::name } -> std::convertible_to<std::string_view>;
    };

/// Whether blocks have an MLP at all.
template <Architecture A>
inline constexpr bool has_mlp = !std::same_as<typename A::Mlp, mlp::None>;

}  // namespace circuit
