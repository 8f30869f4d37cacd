// rejected: LayerTag core
#include "circuit/core/id.hpp"

int index_of(circuit::Layer layer, circuit::Position position) { return layer.value * 100 + position.value; }

#ifdef CIRCUIT_REJECT
int index() { return index_of(circuit::Position{3}, circuit::Layer{5}); }
#else
int index() { return index_of(circuit::Layer{5}, circuit::Position{3}); }
#endif
