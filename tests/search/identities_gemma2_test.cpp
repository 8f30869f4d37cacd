#define CIRCUIT_IDENTITIES_OF Gemma2, random_model::MixedParts

#include "search/identities.hpp"
