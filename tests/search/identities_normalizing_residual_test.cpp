// The identities on normalising SAEs of the residual stream and of what an MLP writes.
#include "random_model.hpp"

namespace {
using NormalizingResidual = circuit::Llama;
}  // namespace

#define CIRCUIT_IDENTITIES_OF NormalizingResidual
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::normalizing_residual_dictionaries

#include "search/identities.hpp"
