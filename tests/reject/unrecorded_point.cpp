// rejected: holds circuit
#include "circuit/model/record.hpp"

using Cache = circuit::ActivationCache<circuit::hook::attn::z>;

#ifdef CIRCUIT_REJECT
at::Tensor get(const Cache& cache) { return cache.get<circuit::hook::attn::pattern>(circuit::Layer{0}); }
#else
at::Tensor get(const Cache& cache) { return cache.get<circuit::hook::attn::z>(circuit::Layer{0}); }
#endif
