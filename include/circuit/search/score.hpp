#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>

namespace circuit {

/// A target on one prompt.
struct TargetState {
  double slope;       ///< d activation / d pre-activation; 0 where inactive
  double nodegrad;    ///< d metric / d activation
  double activation;  ///< clean activation
};

/// Which attribution decides whether an edge is kept.
template <class S>
concept ScoreRule = requires(const S& s, double nn_attrib, const TargetState& target) {
  { s.score(nn_attrib, target) } -> std::same_as<double>;
};

namespace score {

/// Chained to the metric ("em").
struct Chained {
  [[nodiscard]] double score(double nn_attrib, const TargetState& target) const {
    return target.nodegrad * target.slope * nn_attrib;
  }
};

/// Direct, to the target node ("nn").
struct Direct {
  [[nodiscard]] double score(double nn_attrib, const TargetState& /*target*/) const { return nn_attrib; }
};

/// Chained, no larger than the target's own attribution, with its sign kept (the seed's clipping).
struct ChainedClipped {
  [[nodiscard]] double score(double nn_attrib, const TargetState& target) const {
    const double em = target.nodegrad * target.slope * nn_attrib;
    return std::copysign(std::min(std::abs(em), std::abs(target.nodegrad * target.activation)), em);
  }
};

}  // namespace score
}  // namespace circuit
