#pragma once

#include <concepts>
#include <cstdint>
#include <utility>

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

/// What a run is recorded for: for its attention's maps too (patterns and what they are made of, most of a long run's
/// memory), or for what modules read and write alone.
enum class RecordedFor : std::uint8_t { maps, values };

/// An attachment that records a FrozenRun. Scores, which are [batch, head, pos, pos] as patterns are, are kept only where
/// they are soft-capped, since nothing else reads them.
class FrozenRunRecorder {
 public:
  explicit FrozenRunRecorder(const ModelConfig& config, RecordedFor use = RecordedFor::maps)
      : maps_{use == RecordedFor::maps}, scores_{maps_ && config.score_soft_cap > 0} {}

  template <HookPoint P>
    requires(FrozenRun::holds<P>)
  void visit(P /*point*/, Layer layer, at::Tensor& value) {
    if (of_maps<P> && !maps_) return;
    if (std::same_as<P, hook::attn::attn_scores> && !scores_) return;
    run_.put<P>(layer, value);
  }

  [[nodiscard]] FrozenRun&& take() && { return std::move(run_); }

 private:
  template <class P>
  static constexpr bool of_maps =
      std::same_as<P, hook::attn::q_norm::scale> || std::same_as<P, hook::attn::k_norm::scale> ||
      std::same_as<P, hook::attn::rot_q> || std::same_as<P, hook::attn::rot_k> || std::same_as<P, hook::attn::v> ||
      std::same_as<P, hook::attn::attn_scores> || std::same_as<P, hook::attn::pattern>;

  bool maps_;
  bool scores_;
  FrozenRun run_;
};

/// tokens  [batch, pos]
template <Architecture A>
[[nodiscard]] FrozenRun record_frozen_run(const HookedTransformer<A>& model, const at::Tensor& tokens) {
  FrozenRunRecorder recorder{model.config()};
  static_cast<void>(model.uncapped_logits(tokens, recorder));
  return std::move(recorder).take();
}

}  // namespace circuit
