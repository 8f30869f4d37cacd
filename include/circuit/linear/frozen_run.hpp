#pragma once

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// What a search keeps of one forward pass: the frozen scales and patterns, and what dictionaries read and describe. All
/// searches record this one set, so a program instantiates one recording forward pass per architecture.
using FrozenRun = ActivationCache<hook::embed, hook::pos_embed, hook::ln1::scale, hook::attn::q_norm::scale,
                                  hook::attn::k_norm::scale, hook::attn::rot_q, hook::attn::rot_k, hook::attn::v,
                                  hook::attn::attn_scores, hook::attn::pattern, hook::attn::z, hook::ln1_post::scale,
                                  hook::attn_out, hook::ln2::scale, hook::ln2::normalized, hook::ln2_post::scale,
                                  hook::mlp_out, hook::resid_post, hook::ln_final::scale>;

namespace detail {

template <class Cache>
struct RecorderOf;
template <HookPoint... Points>
struct RecorderOf<ActivationCache<Points...>> {
  using type = Recorder<Points...>;
};

}  // namespace detail

/// An attachment that records a FrozenRun.
using FrozenRunRecorder = detail::RecorderOf<FrozenRun>::type;

/// tokens  [batch, pos]
template <Architecture A>
[[nodiscard]] FrozenRun record_frozen_run(const HookedTransformer<A>& model, const at::Tensor& tokens) {
  return model.run(tokens, FrozenRunRecorder{}).cache;
}

}  // namespace circuit
