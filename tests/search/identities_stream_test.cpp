// The identities on transcoders that read hook_resid_mid, the stream itself.
#include "random_model.hpp"

namespace {
using LayerNormed = circuit::Gpt2;
using RmsNormed = circuit::Llama;
}  // namespace

#define CIRCUIT_IDENTITIES_OF LayerNormed, RmsNormed
#define CIRCUIT_IDENTITIES_LAYERS 3
#define CIRCUIT_IDENTITIES_DICTIONARIES random_model::stream_dictionaries

#include "search/identities.hpp"
