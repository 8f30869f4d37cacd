#include "circuit/io/flat_yaml.hpp"
#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] { (void)circuit::read_flat_yaml(file.path()).dump(); });
}
