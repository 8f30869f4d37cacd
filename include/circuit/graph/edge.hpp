#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <string>
#include <string_view>

#include "circuit/core/error.hpp"
#include "circuit/graph/node.hpp"

namespace circuit {

/// The path by which a target reads an upstream node.
enum class EdgeType : std::uint8_t {
  ov,      ///< an attention feature, through values with the pattern frozen; a head, through its values
  q,       ///< an attention feature or head, through queries and the softmax
  k,       ///< an attention feature or head, through keys and the softmax
  mlp,     ///< an MLP feature, at its own position, or a whole MLP
  metric,  ///< the metric or a logit, through the last residual stream
  resid,   ///< a feature of the residual stream itself
};

inline constexpr std::array all_edge_types{EdgeType::ov,  EdgeType::q,      EdgeType::k,
                                           EdgeType::mlp, EdgeType::metric, EdgeType::resid};

[[nodiscard]] constexpr std::string_view name(EdgeType type) {
  constexpr std::array<std::string_view, 6> names{"ov", "q", "k", "mlp", "metric", "resid"};
  return names[static_cast<std::size_t>(type)];
}

inline std::ostream& operator<<(std::ostream& out, EdgeType type) { return out << name(type); }

/// The type that `name` spells.
/// throws  NameError  when there is none
[[nodiscard]] inline EdgeType parse_edge_type(std::string_view text) {
  for (const auto type : all_edge_types) {
    if (name(type) == text) return type;
  }
  throw NameError{{.problem = "no such type of edge",
                   .expected = "ov, q, k, mlp, metric or resid",
                   .got = '"' + std::string{text} + '"'}};
}

/// Whether a target of this kind has readers of this type.
[[nodiscard]] constexpr bool reads_by(NodeKind target, EdgeType type) {
  switch (type) {
    case EdgeType::metric: return is_output(target);
    case EdgeType::resid: return target == NodeKind::resid_feature;
    case EdgeType::mlp: return is_mlp(target) && target != NodeKind::mlp_error;
    default: return is_attention(target) && target != NodeKind::attn_error;
  }
}

/// Whether an edge of this type may enter such a target: its readers, or those of an error where a search follows it down.
[[nodiscard]] constexpr bool may_enter(NodeKind target, EdgeType type) {
  if (target == NodeKind::mlp_error) return type == EdgeType::mlp;
  if (target == NodeKind::resid_error) return type == EdgeType::resid;
  if (target == NodeKind::attn_error) return type == EdgeType::ov || type == EdgeType::q || type == EdgeType::k;
  return reads_by(target, type);
}

/// One direct effect. Numbers are means over the prompts, a prompt where the target is inactive counting 0, so that
/// an attribution is not its gradient times the mean activation.
struct Edge {
  EdgeType type{};
  double nn_grad{};         ///< d target pre-activation / d upstream activation
  double nn_attrib{};       ///< share of the target's pre-activation, first order in the upstream activation
  double em_grad{};         ///< d metric / d upstream activation along this edge
  double em_attrib{};       ///< share of the metric along this edge, metric units
  std::int32_t prompts{1};  ///< in how many prompts the edge passed

  friend bool operator==(const Edge&, const Edge&) = default;
};

/// Which attribution a picture, a threshold or a ranking looks at.
enum class Attribution : std::uint8_t {
  nn,  ///< to the target node
  em,  ///< chained to the metric
};

[[nodiscard]] constexpr std::string_view name(Attribution which) { return which == Attribution::nn ? "nn" : "em"; }

/// Attribution of the chosen kind, with its sign.
[[nodiscard]] constexpr double value(const Edge& edge, Attribution which) {
  return which == Attribution::nn ? edge.nn_attrib : edge.em_attrib;
}

/// Size of the attribution of the chosen kind.
[[nodiscard]] inline double magnitude(const Edge& edge, Attribution which) { return std::abs(value(edge, which)); }

}  // namespace circuit
