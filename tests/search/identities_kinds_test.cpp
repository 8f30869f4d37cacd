// The identities on nonlinearities other than ReLU and on skip paths.
#include "random_model.hpp"

namespace {
using SequentialBlocks = circuit::Llama;
using ParallelBlocks = circuit::GptNeox;
}  // namespace

#define CIRCUIT_IDENTITIES_OF SequentialBlocks, ParallelBlocks
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::mixed_dictionaries

#include "search/identities.hpp"
