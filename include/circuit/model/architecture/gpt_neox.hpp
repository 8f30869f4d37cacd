#pragma once

#include <string_view>

#include "circuit/model/architecture.hpp"

namespace circuit {

/// GPT-NeoX (Black et al. 2022), with either wiring.
template <BlockWiring W>
struct BasicGptNeox {
  static constexpr std::string_view name = "gpt_neox";
  using Norm = norm::LayerNorm;
  using Positions = positions::Rotary;
  using Attention = attention::Causal;
  using Mlp = mlp::Plain<activation::Gelu>;
  using Wiring = W;
};

/// As Pythia has it: attention and MLP side by side, a part of each head turned.
using GptNeox = BasicGptNeox<wiring::Parallel>;
/// The same with `use_parallel_residual` off.
using SequentialGptNeox = BasicGptNeox<wiring::Sequential>;

}  // namespace circuit
