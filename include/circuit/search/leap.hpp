#pragma once

#include <chrono>
#include <cstdint>
#include <stop_token>
#include <string_view>
#include <utility>

#include "circuit/core/progress.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/graph/circuit.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/modules.hpp"
#include "circuit/search/batching.hpp"
#include "circuit/search/chain.hpp"
#include "circuit/search/contrast.hpp"
#include "circuit/search/keep/above.hpp"
#include "circuit/search/keep/any_rule.hpp"
#include "circuit/search/leap/run.hpp"
#include "circuit/search/prompt_pair.hpp"
#include "circuit/search/score.hpp"
#include "circuit/search/targets.hpp"

namespace circuit {

/// Linear edge attribution patching with sparse features: from the metric downwards, the direct effect of every upstream
/// feature, error and embedding on each target, through frozen scales and patterns (ov, mlp, metric) or through the
/// exact softmax (q, k). Each policy answers one question; docs/leap.md lists the answers there are.
/// source  circuit-finder's LEAP; docs/leap.md says where its formulas are corrected
template <KeepRule Keep = keep::Above, ChainRule Chain = chain::ModelGradient, ContrastRule Contrast = contrast::Signed,
          BatchRule Batching = batching::Exact, ScoreRule Score = score::Chained,
          TargetRule Targets = targets::FromKept, SoftmaxJacobian Softmax = softmax::Exact,
          FinalNorm Final = final_norm::Frozen, ModuleRule Modules = modules::ReadElseOpaque>
struct Leap {
  [[no_unique_address]] Keep keep{};               ///< which edges stay
  [[no_unique_address]] Chain chain{};             ///< how a target's effect on the metric is known
  [[no_unique_address]] Contrast contrast{};       ///< what an upstream activation counts for
  [[no_unique_address]] Batching batching{};       ///< whether prompts are averaged before or after the products
  [[no_unique_address]] Score score{};             ///< which attribution decides
  [[no_unique_address]] Targets targets{};         ///< which features become targets
  [[no_unique_address]] Softmax softmax{};         ///< how scores move the pattern
  [[no_unique_address]] Final final_norm{};        ///< whether the final scale moves
  [[no_unique_address]] Modules modules{};         ///< which modules are read, opaque or transparent
  AttentionPaths attention = AttentionPaths::all;  ///< whether q and k edges are searched
  SourceOptions sources{};                         ///< which nodes besides features count as upstream
  std::stop_token stop{};                          ///< read once per layer
  Scales scales = Scales::frozen;  ///< whether norms' scales move; with live ones nothing sums to what targets read

  /// return  the kept edges with nn and em gradients and attributions, means over prompts
  /// throws  Cancelled, ShapeError, IndexError, ValueError (empty batch, NaN), ConfigError, DTypeError
  template <Architecture A, Dictionaries Set, Metric M, Observer... Observers>
  [[nodiscard]] Circuit operator()(const HookedTransformer<A>& model, const Set& dictionaries,
                                   const PromptPair& prompts, const M& metric, Observers&&... observers) const;
};

/// The Python seed's behaviour where it is a choice and not a defect: averages first, keeps positive chained attributions
/// clipped at their target's own, and counts no negative contrast.
using SeedLeap =
    Leap<keep::PositiveAbove, chain::ModelGradient, contrast::Positive, batching::MeanFirst, score::ChainedClipped>;
[[nodiscard]] inline SeedLeap seed_policies(double threshold) { return {.keep = {.threshold = threshold}}; }

}  // namespace circuit

namespace circuit {

template <KeepRule Keep, ChainRule Chain, ContrastRule Contrast, BatchRule Batching, ScoreRule Score,
          TargetRule Targets, SoftmaxJacobian Softmax, FinalNorm Final, ModuleRule Modules>
template <Architecture A, Dictionaries Set, Metric M, Observer... Observers>
Circuit Leap<Keep, Chain, Contrast, Batching, Score, Targets, Softmax, Final, Modules>::operator()(
    const HookedTransformer<A>& model, const Set& dictionaries, const PromptPair& prompts, const M& metric,
    Observers&&... observers) const {
  const c10::AutoGradMode no_gradient{false};
  using Clock = std::chrono::steady_clock;
  auto start = Clock::now();
  const auto stage = [&](std::string_view what) {
    const auto now = Clock::now();
    notify(StageDone{what, std::chrono::duration<double>(now - start).count()}, observers...);
    start = now;
    if (stop.stop_requested()) throw Cancelled{"the search"};
  };
  if (Contrast::needs_corrupt && !prompts.corrupt.defined()) {
    throw ValueError{{.tensor = "corrupt prompts",
                      .problem = "a contrast needs them and there are none",
                      .hint = "give corrupt prompts, or search with contrast::None"}};
  }
  const DictionariesByRole read{dictionaries, modules};
  auto linearization = batching.prepare(
      linearize<Final>(model, read, prompts.clean, Contrast::needs_corrupt ? prompts.corrupt : at::Tensor{}, metric));
  stage("runs and encodings");
  using Policies = Leap<keep::AnyRule, Chain, Contrast, Batching, Score, Targets, Softmax, Final, Modules>;
  const Policies policies{keep,       chain,   contrast,  batching, score, targets, softmax,
                          final_norm, modules, attention, sources,  stop,  scales};
  detail::LeapRun<Policies, A, DictionariesByRole<Set, Modules>> run{policies, model, read, std::move(linearization)};
  stage("packing");
  run.metric_step();
  run.stream_step(Layer{static_cast<std::int32_t>(model.config().n_layers)});
  for (auto l = static_cast<std::int32_t>(model.config().n_layers) - 1; l >= 0; --l) {
    if (stop.stop_requested()) throw Cancelled{"the search"};
    run.mlp_step(Layer{l});
    run.attention_steps(Layer{l});
    run.stream_step(Layer{l});
    notify(LayerDone{Layer{l}, run.found().edges().size()}, observers...);
  }
  stage("edges");
  auto found = run.circuit();
  stage("graph");
  return found;
}

}  // namespace circuit
