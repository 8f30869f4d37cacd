#pragma once

#include "circuit/data/ioi.hpp"

namespace train {

/// The template of ioi_ABBA.json and ioi_BABA.json: "Then, Alice and Bob went to the store. Then Bob, not Carol, handed
/// the ring to". The third name keeps the last position from just looking at the name before the verb.
inline constexpr circuit::data::IoiOptions demo_story{.distractor = circuit::data::IoiDistractor::none,
                                                      .opening = 0,
                                                      .adverb = 0,
                                                      .action = 1,
                                                      .connective = 1,
                                                      .aside = true,
                                                      .aside_clause = 3};

}  // namespace train
