#include <ATen/Parallel.h>

#include "circuit/core/make.hpp"
#include "circuit/model/open.hpp"
#include "folder.hpp"
#include "input.hpp"

// A Hugging Face folder of any architecture, config.json and model.safetensors: what opens answers a prompt with as many
// rows as it has tokens, in float32, in double and with matrices that stay in half precision.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Folder folder;
  if (size == 0) return 0;
  at::set_num_threads(1);
  folder.clear();
  const auto contents = split_files({reinterpret_cast<const char*>(data) + 1, size - 1}, 2);
  folder.write("config.json", contents[0]);
  folder.write("model.safetensors", safetensors_of(contents[1]));
  circuit::LoadOptions options;
  if ((data[0] & 1U) != 0) options.dtype = at::kDouble;
  if ((data[0] & 2U) != 0) options.half = circuit::HalfPrecision::mapped;
  if ((data[0] & 4U) != 0) options.processing = circuit::weights::unprocessed;
  return read_or_refuse([&] {
    circuit::open_model(
        folder.path(),
        [](const auto& model) {
          if (model.config().n_ctx < 2) return;
          const auto ids = circuit::make::zeros({1, 2}, at::TensorOptions{}.dtype(at::kLong));
          const auto [logits, cache] = model.run(ids);
          if (logits.size(1) != 2 || logits.size(2) != model.config().d_vocab) __builtin_trap();
        },
        options);
  });
}
