#pragma once

#include <string_view>

#include "circuit/model/architecture.hpp"

namespace circuit {

/// Llama's blocks (Touvron et al. 2023): RMSNorm, rotary positions, grouped queries, SiLU-gated MLP. With biases (Qwen2),
/// a sliding window (Mistral) or a norm on every query and key (Qwen3) where the config and the weights have them.
struct Llama {
  static constexpr std::string_view name = "llama";
  using Norm = norm::RmsNorm;
  using Positions = positions::Rotary;
  using Attention = attention::HeadNormed;
  using Mlp = mlp::Gated<activation::Silu>;
  using Wiring = wiring::Sequential;
};

}  // namespace circuit
