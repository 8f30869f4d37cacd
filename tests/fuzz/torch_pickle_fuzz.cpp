#include "circuit/io/torch_pickle.hpp"
#include "input.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const auto read = circuit::read_torch(file.path());
    touch(read.tensors);
    (void)read.values.dump();
  });
}
