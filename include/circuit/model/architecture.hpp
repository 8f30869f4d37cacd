#pragma once

#include <concepts>
#include <string_view>

#include "circuit/model/mlp.hpp"
#include "circuit/model/norm.hpp"
#include "circuit/model/positions.hpp"

namespace circuit {

/// What differs in kind between transformer families; sizes and numbers are in ModelConfig.
template <class A>
concept Architecture = Norm<typename A::Norm> && Positions<typename A::Positions> && requires {
  { A::Mlp::gated } -> std::convertible_to<bool>;
  { A::name } -> std::convertible_to<std::string_view>;
};

/// GPT-2 (Radford et al. 2019): LayerNorm before each module, learned positions, tanh-GELU MLP.
struct Gpt2 {
  static constexpr std::string_view name = "gpt2";
  using Norm = norm::LayerNorm;
  using Positions = positions::Learned;
  using Mlp = mlp::Plain<activation::GeluNew>;
};

/// Llama's blocks (Touvron et al. 2023): RMSNorm, rotary positions, grouped queries, SiLU-gated MLP.
struct Llama {
  static constexpr std::string_view name = "llama";
  using Norm = norm::RmsNorm;
  using Positions = positions::Rotary;
  using Mlp = mlp::Gated<activation::Silu>;
};

}  // namespace circuit
