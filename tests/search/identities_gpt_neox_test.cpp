#define CIRCUIT_IDENTITIES_OF GptNeox, SequentialGptNeox

#include "search/identities.hpp"
