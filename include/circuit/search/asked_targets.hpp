#pragma once

#include <cstdint>

#include "circuit/search/targets.hpp"

namespace circuit::targets {

/// Features become targets when the search asks for them; or, where it asks for all, once a kept edge leaves them.
struct Asked {
  bool all = false;

  void add(TargetSet& /*set*/, NodeKind /*kind*/, Layer /*layer*/, const ActiveFeatures& /*features*/,
           std::int64_t /*length*/) const {}
  void reached(TargetSet& set, const Node& node) const {
    if (all) set.insert(node);
  }
};

}  // namespace circuit::targets
