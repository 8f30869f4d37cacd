#include <ATen/Parallel.h>

#include <string>
#include <vector>

#include "circuit/core/make.hpp"
#include "circuit/dictionary/train/activation/jump_relu.hpp"
#include "circuit/dictionary/train/checkpoint.hpp"
#include "circuit/dictionary/train/trainer.hpp"
#include "folder.hpp"
#include "input.hpp"

namespace {

using namespace circuit;

/// A checkpoint that is refused leaves the trainer as it was; one that is read can be gone on from.
void resume(const std::filesystem::path& path) {
  const auto x = make::full({4, 3}, 0.5, at::TensorOptions{}.dtype(at::kFloat));
  std::vector trainers{train::Trainer{x, x, train::Target::same,
                                      train::Options{.features = 4, .schedule = {.steps = 9}}, train::JumpRelu{}}};
  const auto sum = [&] {
    double all = 0.0;
    trainers[0].visit_state([&](const std::string& /*name*/, const auto& value) {
      if constexpr (requires { value.sum(); }) all += value.sum().template item<double>();
    });
    return all;
  };
  const auto before = sum();
  try {
    static_cast<void>(train::load_checkpoint(path, trainers));
  } catch (const Error&) {
    if (sum() != before) __builtin_trap();
    return;
  }
  static_cast<void>(trainers[0].step(x, x));
  static_cast<void>(trainers[0].finish());
}

}  // namespace

// Checkpoints of a training run.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  at::set_num_threads(1);
  const auto text = safetensors_of({reinterpret_cast<const char*>(data), size});
  const InputFile file{reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  return read_or_refuse([&] { resume(file.path()); });
}
