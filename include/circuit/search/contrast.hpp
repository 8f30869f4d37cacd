#pragma once

#include <algorithm>

namespace circuit::contrast {

/// Clean minus corrupt, with its sign.
struct Signed {
  static constexpr bool needs_corrupt = true;
  [[nodiscard]] double activation(double clean, double corrupt) const { return clean - corrupt; }
};

/// Clean minus corrupt, negative differences taken as 0 (the seed's `allow_neg_feature_acts=False`).
struct Positive {
  static constexpr bool needs_corrupt = true;
  [[nodiscard]] double activation(double clean, double corrupt) const { return std::max(0.0, clean - corrupt); }
};

/// The clean activation alone; no corrupt prompts are run.
struct None {
  static constexpr bool needs_corrupt = false;
  [[nodiscard]] double activation(double clean, double /*corrupt*/) const { return clean; }
};

}  // namespace circuit::contrast
