#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/io/tensor_file.hpp"
#include "circuit/io/to_tensor.hpp"

namespace circuit {

/// Where a loader's tensors come from: a file, or anything else that knows tensors by name.
class WeightSource {
 public:
  using Contains = std::function<bool(const std::string& name)>;
  using Get = std::function<at::Tensor(const std::string& name)>;

  /// get    any floating type; what it gives as `dtype` is not copied
  /// file   only named in errors
  /// dtype  what every tensor is read as
  WeightSource(Contains contains, Get get, std::filesystem::path file, at::ScalarType dtype)
      : contains_{std::move(contains)}, get_{std::move(get)}, file_{std::move(file)}, dtype_{dtype} {}
  WeightSource(TensorFile file, at::ScalarType dtype);

  [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }
  [[nodiscard]] bool contains(const std::string& name) const { return contains_(name); }

  /// One floating tensor: a view of the mapping where the dtype is its own.
  /// throws  NameError, ShapeError, DTypeError, ValueError (NaN or infinity)
  [[nodiscard]] at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) const;

  /// The same where the file may hold it only if the config says so: undefined if it does not.
  /// throws  ConfigError  for one that the config knows nothing of
  [[nodiscard]] at::Tensor read_if(bool there, const std::string& name, const std::vector<std::int64_t>& shape) const;

  /// A matrix stored as (out, in), as PyTorch's Linear has it: its transposed view [in, out].
  [[nodiscard]] at::Tensor transposed(const std::string& name, std::int64_t in, std::int64_t out) const {
    return read(name, {out, in}).t();
  }

 private:
  Contains contains_;
  Get get_;
  std::filesystem::path file_;
  at::ScalarType dtype_;
};

inline WeightSource::WeightSource(TensorFile file, at::ScalarType dtype) : file_{file.path()}, dtype_{dtype} {
  const auto shared = std::make_shared<const TensorFile>(std::move(file));
  contains_ = [shared](const std::string& name) { return shared->find(name) != nullptr; };
  get_ = [shared, dtype](const std::string& name) {
    const auto& stored = shared->get(name);
    auto values = to_tensor(stored);
    if (values.is_floating_point()) values = values.to(dtype);
    if (values.data_ptr() != stored.bytes.data()) shared->release(stored);
    return values;
  };
}

inline at::Tensor WeightSource::read(const std::string& name, const std::vector<std::int64_t>& shape) const {
  const auto stored = get_(name);
  if (!stored.is_floating_point()) {
    throw DTypeError{
        {.file = file_, .tensor = name, .expected = "a floating type", .got = at::toString(stored.scalar_type())}};
  }
  check_shape(stored, shape, name, file_);
  auto weight = stored.to(dtype_);
  check_finite(weight, name, file_);
  return weight;
}

inline at::Tensor WeightSource::read_if(bool there, const std::string& name,
                                        const std::vector<std::int64_t>& shape) const {
  if (there) return read(name, shape);
  if (contains(name)) {
    throw ConfigError{{.file = file_, .tensor = name, .problem = "is in the file although the config says it is not"}};
  }
  return {};
}

}  // namespace circuit
