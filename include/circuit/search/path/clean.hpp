#pragma once

#include "circuit/search/path/gradient_path.hpp"

namespace circuit::path {

/// At the clean run alone: plain attribution patching.
struct Clean {
  template <class Add>
  void walk(const PathEnds& ends, Add&& add) const {
    add(1.0, ends.prompts.clean);
  }
};

/// At both ends, half each ("clean-corrupted" in EAP-IG's tool).
struct CleanCorrupt {
  template <class Add>
  void walk(const PathEnds& ends, Add&& add) const {
    add(0.5, ends.prompts.clean);
    add(0.5, ends.prompts.corrupt);
  }
};

}  // namespace circuit::path
