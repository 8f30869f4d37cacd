#pragma once

#include <circuit/core/error.hpp>

/// Whether a call throws FileError.
template <class Load>
bool refused(const Load& load) {
  try {
    load();
  } catch (const circuit::FileError&) {
    return true;
  }
  return false;
}
