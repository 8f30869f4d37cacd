#pragma once

#include "circuit/graph/circuit.hpp"
#include "circuit/graph/edge.hpp"

namespace circuit::detail {

/// Adds an edge's own fields, as files and pages have them, to what says between which nodes it is.
/// item  a JSON object, of sorted keys or of ordered ones
template <class Json>
void add_fields(Json& item, const Edge& edge) {
  item["type"] = name(edge.type);
  item["nn_grad"] = edge.nn_grad;
  item["nn_attrib"] = edge.nn_attrib;
  item["em_grad"] = edge.em_grad;
  item["em_attrib"] = edge.em_attrib;
  item["prompts"] = edge.prompts;
}

/// The same of what constants give a target.
template <class Json>
void add_fields(Json& item, const BiasRow& row) {
  item["type"] = name(row.type);
  item["nn_attrib"] = row.nn_attrib;
  item["em_attrib"] = row.em_attrib;
  item["nn_map"] = row.nn_map;
  item["em_map"] = row.em_map;
  item["nn_remainder"] = row.nn_remainder;
  item["em_remainder"] = row.em_remainder;
}

}  // namespace circuit::detail
