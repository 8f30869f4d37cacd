#pragma once

#include <functional>
#include <utility>

#include "circuit/search/edge_scores.hpp"

namespace circuit::keep {

/// Any of the rules, chosen at run time. Searches run under this one inside, so that a program with several of them
/// compiles the work once: a rule is asked once per layer and edge type, which a call through a pointer does not slow.
class AnyRule {
 public:
  template <KeepRule K>
  AnyRule(K rule)  // NOLINT(google-explicit-constructor): a rule is a rule
      : counts_prompts_{CountsPrompts<K>},
        keep_{[rule](const EdgeScores& scores) { return rule.keep(scores); }},
        passes_{[rule = std::move(rule)](double score) { return rule.passes(score); }} {}

  [[nodiscard]] EdgeMask keep(const EdgeScores& scores) const { return keep_(scores); }
  [[nodiscard]] bool passes(double score) const { return passes_(score); }
  /// Whether the rule reads `EdgeScores::passed`.
  [[nodiscard]] bool needs_counts() const { return counts_prompts_; }

 private:
  bool counts_prompts_;
  std::function<EdgeMask(const EdgeScores&)> keep_;
  std::function<bool(double)> passes_;
};

}  // namespace circuit::keep
