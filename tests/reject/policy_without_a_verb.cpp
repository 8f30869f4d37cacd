// rejected: KeepRule circuit
#include "circuit/search/leap.hpp"

struct Largest {
#ifndef CIRCUIT_REJECT
  circuit::EdgeMask keep(const circuit::EdgeScores& scores) const { return circuit::top_n(scores.magnitude(), 10); }
#endif
  bool passes(double score) const { return score != 0; }
};

using Search = circuit::Leap<Largest>;
std::size_t size() { return sizeof(Search); }
