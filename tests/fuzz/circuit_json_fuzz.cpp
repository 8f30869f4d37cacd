#include <string_view>

#include "circuit/graph/io.hpp"
#include "input.hpp"

// A circuit that is read is written and read again without a change.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const auto text = circuit::circuit_json(circuit::load_circuit(file.path()));
    if (circuit::circuit_json(circuit::parse_circuit(text)) != text) __builtin_trap();
  });
}
