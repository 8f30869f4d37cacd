#define CIRCUIT_IDENTITIES_OF Plain, AttentionOnly

#include "search/identities.hpp"
