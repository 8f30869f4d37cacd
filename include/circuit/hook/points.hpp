#pragma once

#include <algorithm>
#include <concepts>
#include <span>
#include <string>
#include <string_view>

#include "circuit/core/id.hpp"
#include "circuit/hook/axes.hpp"

namespace circuit {

/// A named point of a forward pass. The type is the name: a point that does not exist does not compile.
template <class P>
concept HookPoint = requires {
  { P::name } -> std::convertible_to<std::string_view>;
  { P::per_layer } -> std::convertible_to<bool>;
  { P::axes::rank } -> std::convertible_to<std::size_t>;
};

namespace detail {

template <class... Axis>
struct LayerPoint {
  static constexpr bool per_layer = true;
  using axes = Axes<Axis...>;
};
template <class... Axis>
struct OncePoint {
  static constexpr bool per_layer = false;
  using axes = Axes<Axis...>;
};

}  // namespace detail

/// TransformerLens' names, in the order in which a forward pass meets them.
// NOLINTBEGIN(readability-identifier-naming)
namespace hook {

struct embed : detail::OncePoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_embed";
};
struct pos_embed : detail::OncePoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_pos_embed";
};

struct resid_pre : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_resid_pre";
};

/// What each query head's queries, keys and values are made of, before ln1; keys and values too, one for every query
/// head. They exist only in a run in which something is attached to one of them, which then projects head by head:
/// there hook_k and hook_v hold one entry per query head as well, and of ln1's points only head_scale passes.
struct q_input : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DModel> {
  static constexpr std::string_view name = "hook_q_input";
};
struct k_input : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DModel> {
  static constexpr std::string_view name = "hook_k_input";
};
struct v_input : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DModel> {
  static constexpr std::string_view name = "hook_v_input";
};

/// The norm before attention.
namespace ln1 {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::One> {
  static constexpr std::string_view name = "ln1.hook_scale";
};
/// The same in a run that splits head inputs, which passes it instead: once for queries, once for keys, once for
/// values.
struct head_scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::One> {
  static constexpr std::string_view name = "ln1.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "ln1.hook_normalized";
};
}  // namespace ln1

namespace attn {
struct q : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_q";
};
struct k : detail::LayerPoint<axis::Batch, axis::Pos, axis::KeyValueHead, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_k";
};
struct v : detail::LayerPoint<axis::Batch, axis::Pos, axis::KeyValueHead, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_v";
};
/// The norm on each query, where a model has one. (TransformerLens' tensor has batch, position and head as one axis.)
namespace q_norm {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::One> {
  static constexpr std::string_view name = "attn.q_norm.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DHead> {
  static constexpr std::string_view name = "attn.q_norm.hook_normalized";
};
}  // namespace q_norm
/// The norm on each key.
namespace k_norm {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::KeyValueHead, axis::One> {
  static constexpr std::string_view name = "attn.k_norm.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::KeyValueHead, axis::DHead> {
  static constexpr std::string_view name = "attn.k_norm.hook_normalized";
};
}  // namespace k_norm
/// Queries after their norm and the rotary map, where there are any.
struct rot_q : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_rot_q";
};
/// Keys after their norm and the rotary map.
struct rot_k : detail::LayerPoint<axis::Batch, axis::Pos, axis::KeyValueHead, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_rot_k";
};
/// Scaled, capped and masked scores (minus infinity at masked keys).
struct attn_scores : detail::LayerPoint<axis::Batch, axis::Head, axis::QueryPos, axis::KeyPos> {
  static constexpr std::string_view name = "attn.hook_attn_scores";
};
struct pattern : detail::LayerPoint<axis::Batch, axis::Head, axis::QueryPos, axis::KeyPos> {
  static constexpr std::string_view name = "attn.hook_pattern";
};
struct z : detail::LayerPoint<axis::Batch, axis::Pos, axis::Head, axis::DHead> {
  static constexpr std::string_view name = "attn.hook_z";
};
}  // namespace attn

/// The norm that what attention adds passes in some models.
namespace ln1_post {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::One> {
  static constexpr std::string_view name = "ln1_post.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "ln1_post.hook_normalized";
};
}  // namespace ln1_post

/// What attention adds to the residual stream.
struct attn_out : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_attn_out";
};
struct resid_mid : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_resid_mid";
};

/// What the MLP reads, before ln2: the stream, but editing it changes this reader alone.
struct mlp_in : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_mlp_in";
};

/// The norm before the MLP.
namespace ln2 {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::One> {
  static constexpr std::string_view name = "ln2.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "ln2.hook_normalized";
};
}  // namespace ln2

namespace mlp {
struct pre : detail::LayerPoint<axis::Batch, axis::Pos, axis::DMlp> {
  static constexpr std::string_view name = "mlp.hook_pre";
};
/// The branch that a gated MLP multiplies with its activated gate.
struct pre_linear : detail::LayerPoint<axis::Batch, axis::Pos, axis::DMlp> {
  static constexpr std::string_view name = "mlp.hook_pre_linear";
};
struct post : detail::LayerPoint<axis::Batch, axis::Pos, axis::DMlp> {
  static constexpr std::string_view name = "mlp.hook_post";
};
}  // namespace mlp

/// The norm that what the MLP adds passes in some models.
namespace ln2_post {
struct scale : detail::LayerPoint<axis::Batch, axis::Pos, axis::One> {
  static constexpr std::string_view name = "ln2_post.hook_scale";
};
struct normalized : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "ln2_post.hook_normalized";
};
}  // namespace ln2_post

/// What the MLP adds to the residual stream.
struct mlp_out : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_mlp_out";
};
struct resid_post : detail::LayerPoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "hook_resid_post";
};

/// The norm before the unembedding.
namespace ln_final {
struct scale : detail::OncePoint<axis::Batch, axis::Pos, axis::One> {
  static constexpr std::string_view name = "ln_final.hook_scale";
};
struct normalized : detail::OncePoint<axis::Batch, axis::Pos, axis::DModel> {
  static constexpr std::string_view name = "ln_final.hook_normalized";
};
}  // namespace ln_final

}  // namespace hook
// NOLINTEND(readability-identifier-naming)

namespace detail {

[[nodiscard]] inline std::string name_in_block(Layer layer, std::string_view point) {
  return "blocks." + std::to_string(layer.value) + '.' + std::string{point};
}

}  // namespace detail

/// The full name as TransformerLens writes it: `blocks.3.attn.hook_z`, or `hook_embed` where a point has no layer.
template <HookPoint P>
[[nodiscard]] std::string hook_name(P /*point*/, Layer layer = Layer{0}) {
  if constexpr (P::per_layer) {
    return detail::name_in_block(layer, P::name);
  } else {
    return std::string{P::name};
  }
}

namespace detail {

/// Whether a layer is among those that somebody chose; none chosen means all.
[[nodiscard]] inline bool is_chosen(std::span<const Layer> layers, Layer layer) {
  return layers.empty() || std::ranges::find(layers, layer) != layers.end();
}

}  // namespace detail

}  // namespace circuit
