#pragma once

#include <ATen/ops/arange.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/io/safetensors.hpp"
#include "circuit/io/to_tensor.hpp"

/// Safetensors files as maps from name to tensor, and numbers to put into them.
namespace circuit_test {

using Tensors = std::map<std::string, at::Tensor>;

[[nodiscard]] inline Tensors read_tensors(const std::filesystem::path& path) {
  const auto file = circuit::open_safetensors(path);
  Tensors tensors;
  for (const auto& view : file.tensors()) tensors[view.name] = circuit::to_tensor(view);
  return tensors;
}

/// Makes the folder too.
inline void write_tensors(const std::filesystem::path& path, const Tensors& tensors) {
  std::filesystem::create_directories(path.parent_path());
  std::vector<circuit::TensorView> views;
  for (const auto& [name, tensor] : tensors) views.push_back(circuit::to_view(name, tensor));
  circuit::write_safetensors(path, views);
}

/// Numbers from -1 to 1 that differ everywhere, and between one start and another.
[[nodiscard]] inline at::Tensor sines(const std::vector<std::int64_t>& shape, double start = 0,
                                      at::ScalarType dtype = at::kFloat) {
  std::int64_t size = 1;
  for (const auto s : shape) size *= s;
  return at::arange(size, at::kDouble).mul(0.37).add(start).sin().view(shape).to(dtype);
}

}  // namespace circuit_test
