#pragma once

#include <string_view>

#include "circuit/model/architecture.hpp"

namespace circuit {

/// GPT-2 (Radford et al. 2019): LayerNorm before each module, learned positions, tanh-GELU MLP.
struct Gpt2 {
  static constexpr std::string_view name = "gpt2";
  using Norm = norm::LayerNorm;
  using Positions = positions::Learned;
  using Attention = attention::Causal;
  using Mlp = mlp::Plain<activation::GeluNew>;
  using Wiring = wiring::Sequential;
};

}  // namespace circuit
