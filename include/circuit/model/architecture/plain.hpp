#pragma once

#include <string_view>

#include "circuit/model/architecture.hpp"

namespace circuit {

/// The small models of studies: learned positions and no norms, with an MLP or without.
template <MlpKind M>
struct BasicPlain {
  static constexpr std::string_view name = "plain";
  using Norm = norm::None;
  using Positions = positions::Learned;
  using Attention = attention::Causal;
  using Mlp = M;
  using Wiring = wiring::Sequential;
};

using Plain = BasicPlain<mlp::Plain<activation::Gelu>>;
using AttentionOnly = BasicPlain<mlp::None>;

}  // namespace circuit
