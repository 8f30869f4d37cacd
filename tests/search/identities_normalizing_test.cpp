// The identities on dictionaries that normalise what they read and bring what they write back to its scale.
#include "random_model.hpp"

namespace {
using NormalizingLayerNormed = circuit::Gpt2;
using NormalizingPostNormed = circuit::Gemma2;
}  // namespace

#define CIRCUIT_IDENTITIES_OF NormalizingLayerNormed, NormalizingPostNormed
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::normalizing_dictionaries

#include "search/identities.hpp"
