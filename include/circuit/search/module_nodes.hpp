#pragma once

#include "circuit/graph/node.hpp"
#include "circuit/intervene/feature.hpp"

namespace circuit::detail {

/// What a node, a feature or an error, is a part of.
[[nodiscard]] constexpr Module module_of(const Node& node) {
  return is_stream(node.kind) ? Module::stream : is_attention(node.kind) ? Module::attn : Module::mlp;
}
[[nodiscard]] constexpr NodeKind feature_kind(Module module) {
  return module == Module::stream ? NodeKind::resid_feature
         : module == Module::attn ? NodeKind::attn_feature
                                  : NodeKind::mlp_feature;
}
[[nodiscard]] constexpr NodeKind error_kind(Module module) {
  return module == Module::stream ? NodeKind::resid_error
         : module == Module::attn ? NodeKind::attn_error
                                  : NodeKind::mlp_error;
}

}  // namespace circuit::detail
