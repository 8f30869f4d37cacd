#include <ATen/Parallel.h>

#include "circuit/core/make.hpp"
#include "circuit/model/open.hpp"
#include "input.hpp"

// Every architecture that a GGUF file can name: what opens answers a prompt with as many rows as it has tokens. Files of
// absurd sizes are refused, since every weight must be in the file.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  at::set_num_threads(1);
  const InputFile file{data, size};
  return read_or_refuse([&] {
    circuit::open_model(file.path(), [](const auto& model) {
      const auto ids = circuit::make::zeros({1, 2}, at::TensorOptions{}.dtype(at::kLong));
      const auto [logits, cache] = model.run(ids);
      if (logits.size(1) != 2 || logits.size(2) != model.config().d_vocab) __builtin_trap();
    });
  });
}
