#pragma once

#include <cstdint>

#include "circuit/search/path/gradient_path.hpp"
#include "circuit/search/receiver_gradients.hpp"

namespace circuit::path {

/// Along a straight line between the embeddings, from corrupt (0) to clean (1): at (k + offset) / steps, k from 0.
/// source  Hanna et al. 2024 take k = 1..steps (offset 1), their tool k = 0..steps-1 (offset 0); 0.5 is the midpoint
/// rule
struct Inputs {
  std::int64_t steps = 5;
  double offset = 0.0;

  template <class Add>
  void walk(const PathEnds& ends, Add&& add) const {
    check_count(steps, "steps");
    const auto corrupt = ends.corrupt.select(0, 0);
    const auto change = ends.clean.select(0, 0).sub(corrupt);
    for (std::int64_t k = 0; k < steps; ++k) {
      const auto share = (static_cast<double>(k) + offset) / static_cast<double>(steps);
      add(1.0 / static_cast<double>(steps), ends.prompts.clean, StartFrom{corrupt.add(change.mul(share))});
    }
  }
};

}  // namespace circuit::path
