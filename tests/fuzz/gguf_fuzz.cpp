#include <array>
#include <cmath>

#include "circuit/io/ggml/dequantize.hpp"
#include "circuit/io/gguf.hpp"
#include "input.hpp"

namespace {

/// Every value as every type that metadata is asked for.
void read_metadata(const circuit::GgufMetadata& metadata) {
  const auto as = [&]<class T>(const std::string& key, T) { read_or_refuse([&] { (void)metadata.require<T>(key); }); };
  for (const auto& [key, value] : metadata.values()) {
    (void)circuit::describe(value);
    as(key, std::int64_t{});
    as(key, std::string{});
    as(key, std::vector<std::string_view>{});
    as(key, std::vector<float>{});
  }
}

/// Widens a tensor row by row.
void widen(const circuit::GgufTensor& tensor) {
  std::vector<float> row(tensor.rows() == 0 ? 0 : tensor.row_size());
  float sum = 0;
  for (std::size_t i = 0; i < tensor.rows(); ++i) {
    circuit::dequantize(tensor.type, tensor.row_range(i, 1), row);
    for (const auto value : row) sum += value;
  }
  static volatile float sink;
  sink = sum;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const auto read = circuit::open_gguf(file.path());
    read_metadata(read.metadata());
    touch(read);
    for (const auto& tensor : read.tensors()) read_or_refuse([&] { widen(tensor); });
  });
}
