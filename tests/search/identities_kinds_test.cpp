// The identities on nonlinearities other than ReLU and on skip paths, in sequential and in parallel blocks.
#define CIRCUIT_IDENTITIES_OF Llama, GptNeox
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::mixed_dictionaries

#include "search/identities.hpp"
