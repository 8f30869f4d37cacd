#pragma once

#include <string_view>

#include "circuit/model/architecture.hpp"

namespace circuit {

/// Gemma 2 (Gemma Team 2024): RMSNorm before and behind each module, rotary positions, grouped queries, GELU-gated MLP;
/// soft caps, sliding windows and the embedding's scale are in the config, the gains are 1 + the stored weight.
struct Gemma2 {
  static constexpr std::string_view name = "gemma2";
  using Norm = norm::RmsNorm;
  using Positions = positions::Rotary;
  using Attention = attention::Causal;
  using Mlp = mlp::Gated<activation::GeluNew>;
  using Wiring = wiring::PostNormed;
};

}  // namespace circuit
