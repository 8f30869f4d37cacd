#pragma once

#include <algorithm>
#include <cstdint>
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
  using Release = std::function<void(const std::string& name)>;

  /// get    any floating type; what it gives as `dtype` is not copied
  /// file   only named in errors
  /// dtype  what every tensor is read as, save that `half` may leave matrices of half precision as they are
  /// release  gives back a tensor's pages, which are read again when they are used
  WeightSource(Contains contains, Get get, std::filesystem::path file, at::ScalarType dtype,
               HalfPrecision half = HalfPrecision::widened, Release release = {})
      : contains_{std::move(contains)},
        get_{std::move(get)},
        file_{std::move(file)},
        dtype_{dtype},
        half_{half},
        release_{std::move(release)} {}
  WeightSource(TensorFile file, at::ScalarType dtype, HalfPrecision half = HalfPrecision::widened);

  /// `values` as a source gives them: as `dtype`, or left as they are.
  [[nodiscard]] static at::Tensor kept_or_as(const at::Tensor& values, at::ScalarType dtype, HalfPrecision half) {
    if (!values.is_floating_point() || stays_half(values, dtype, half)) return values;
    return values.to(dtype);
  }

  [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }
  [[nodiscard]] bool contains(const std::string& name) const { return contains_(name); }

  /// One floating tensor: a view of the mapping where the dtype is its own, or it is left in half precision.
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
  [[nodiscard]] static bool stays_half(const at::Tensor& values, at::ScalarType dtype, HalfPrecision half) {
    return half == HalfPrecision::mapped && dtype == at::kFloat && values.dim() == 2 && is_half(values);
  }

  Contains contains_;
  Get get_;
  std::filesystem::path file_;
  at::ScalarType dtype_;
  HalfPrecision half_;
  Release release_{};
};

namespace detail {

/// As check_finite; of half precision a few rows at a time, since sums of it would overflow.
inline void check_finite_matrix(const at::Tensor& W, const std::string& name, const std::filesystem::path& file) {
  if (!is_half(W)) return check_finite(W, name, file);
  constexpr std::int64_t elements = std::int64_t{1} << 18;  // small, so that the C library keeps no memory from it
  const auto step = std::max<std::int64_t>(1, elements / std::max<std::int64_t>(1, W.size(1)));
  for (std::int64_t first = 0; first < W.size(0); first += step) {
    check_finite(widened(W.narrow(0, first, std::min(step, W.size(0) - first))), name, file);
  }
}

}  // namespace detail

inline WeightSource::WeightSource(TensorFile file, at::ScalarType dtype, HalfPrecision half)
    : file_{file.path()}, dtype_{dtype}, half_{half} {
  const auto shared = std::make_shared<const TensorFile>(std::move(file));
  release_ = [shared](const std::string& name) { shared->release(shared->get(name)); };
  contains_ = [shared](const std::string& name) { return shared->find(name) != nullptr; };
  get_ = [shared, dtype, half](const std::string& name) {
    const auto& stored = shared->get(name);
    const auto values = kept_or_as(to_tensor(stored), dtype, half);
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
  auto weight = kept_or_as(stored, dtype_, half_);
  detail::check_finite_matrix(weight, name, file_);
  if (release_ && is_half(weight)) release_(name);
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
