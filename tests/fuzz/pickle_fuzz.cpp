#include <span>

#include "circuit/io/pickle.hpp"
#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return read_or_refuse([&] {
    const auto pickle = circuit::read_pickle(std::as_bytes(std::span{data, size}));
    for (const auto& node : pickle.nodes) {
      for (const auto item : node.items) {
        if (item >= pickle.nodes.size()) __builtin_trap();
      }
    }
  });
}
