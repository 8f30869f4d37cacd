// The identities on cross-layer transcoders, of which a feature is one node with a write per layer.
#include "random_model.hpp"

namespace {
using SequentialCrossLayer = circuit::Llama;
using ParallelCrossLayer = circuit::GptNeox;
}  // namespace

#define CIRCUIT_IDENTITIES_OF SequentialCrossLayer, ParallelCrossLayer
#define CIRCUIT_IDENTITIES_LAYERS 3
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::cross_layer_dictionaries

#include "search/identities.hpp"
