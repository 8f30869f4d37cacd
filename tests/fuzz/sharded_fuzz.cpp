#include <filesystem>

#include "circuit/io/sharded.hpp"
#include "input.hpp"

namespace {

/// Stands for a shard that holds the tensors "a" and "b"; stops the fuzzer when it is asked for a file elsewhere.
circuit::TensorFile shard(const std::filesystem::path& path) {
  static const std::byte values[4]{};
  if (path.parent_path() != "/proc/self/fd" || path.lexically_normal() != path) __builtin_trap();
  return {path, {}, {{.name = "a", .shape = {1}, .bytes = values}, {.name = "b", .shape = {1}, .bytes = values}}};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] { touch(circuit::open_sharded(file.path(), shard)); });
}
