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
  using Order = std::function<at::Tensor(const at::Tensor& stored, const std::string& name)>;

  /// get    any floating type; what it gives as `dtype` is not copied
  /// file   only named in errors
  /// dtype  what every tensor is read as, save that `half` may leave matrices of half precision as they are
  /// release  gives back a tensor's pages, which are read again when they are used
  /// order    puts the rows of what `get` gives in order: a view of it, its rows over several axes, or as it is
  WeightSource(Contains contains, Get get, std::filesystem::path file, at::ScalarType dtype,
               HalfPrecision half = HalfPrecision::widened, Release release = {}, Order order = {})
      : contains_{std::move(contains)},
        get_{std::move(get)},
        file_{std::move(file)},
        dtype_{dtype},
        half_{half},
        release_{std::move(release)},
        order_{std::move(order)} {}
  WeightSource(TensorFile file, at::ScalarType dtype, HalfPrecision half = HalfPrecision::widened);

  [[nodiscard]] const std::filesystem::path& file() const noexcept { return file_; }
  [[nodiscard]] bool contains(const std::string& name) const { return contains_(name); }

  /// One floating tensor: a view of the mapping where the dtype is its own, or it is left in half precision.
  /// throws  NameError, ShapeError, DTypeError, ValueError (NaN or infinity)
  [[nodiscard]] at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape) const {
    return read(name, shape, Regrouped::copied);
  }

  /// The same where the file may hold it only if the config says so: undefined if it does not.
  /// throws  ConfigError  for one that the config knows nothing of
  [[nodiscard]] at::Tensor read_if(bool there, const std::string& name, const std::vector<std::int64_t>& shape) const;

  /// A matrix stored as (out, in), as PyTorch's Linear has it: its transposed view [in, out].
  [[nodiscard]] at::Tensor transposed(const std::string& name, std::int64_t in, std::int64_t out) const {
    return read(name, {out, in}).t();
  }

  /// The same of queries or keys. One that stays in half precision is never copied: rows in another order become columns
  /// over several axes, [in, ...], as AttentionWeights has them.
  [[nodiscard]] at::Tensor transposed_heads(const std::string& name, std::int64_t in, std::int64_t out) const {
    return read(name, {out, in}, Regrouped::kept).movedim(-1, 0);
  }

 private:
  [[nodiscard]] bool stays_half(const at::Tensor& values) const {
    return half_ == HalfPrecision::mapped && dtype_ == at::kFloat && values.dim() == 2 && is_half(values);
  }
  [[nodiscard]] at::Tensor stored(const std::string& name, const std::vector<std::int64_t>& shape) const;
  /// Whether rows that lie in another order may stay over several axes.
  enum class Regrouped { copied, kept };
  [[nodiscard]] at::Tensor read(const std::string& name, const std::vector<std::int64_t>& shape,
                                Regrouped regrouped) const;

  Contains contains_;
  Get get_;
  std::filesystem::path file_;
  at::ScalarType dtype_;
  HalfPrecision half_;
  Release release_{};
  Order order_{};
};

namespace detail {

/// Rows over several axes as rows of one, in memory of their own: one pass, whatever becomes of the type.
/// rows  [..., columns]   return  [rows, columns]
[[nodiscard]] inline at::Tensor copied_rows(const at::Tensor& rows, at::ScalarType dtype) {
  return make::empty(rows.sizes(), rows.options().dtype(dtype)).copy_(rows).flatten(0, -2);
}

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
  get_ = [shared](const std::string& name) {
    const auto& stored = shared->get(name);
    auto values = to_tensor(stored);
    if (values.data_ptr() != stored.bytes.data()) shared->release(stored);
    return values;
  };
}

inline at::Tensor WeightSource::stored(const std::string& name, const std::vector<std::int64_t>& shape) const {
  auto values = get_(name);
  if (!values.is_floating_point()) {
    throw DTypeError{
        {.file = file_, .tensor = name, .expected = "a floating type", .got = at::toString(values.scalar_type())}};
  }
  check_shape(values, shape, name, file_);
  return values;
}

inline at::Tensor WeightSource::read(const std::string& name, const std::vector<std::int64_t>& shape,
                                     Regrouped regrouped) const {
  const auto values = stored(name, shape);
  const auto ordered = order_ ? order_(values, name) : values;
  const auto dtype = stays_half(values) ? values.scalar_type() : dtype_;
  const bool view = ordered.dim() == values.dim() || (regrouped == Regrouped::kept && stays_half(values));
  auto weight = view ? ordered.to(dtype) : detail::copied_rows(ordered, dtype);
  // Pages are of no use any more where there is a copy; those of half precision are read again when they are widened.
  const bool copied = !weight.is_alias_of(values);
  detail::check_finite_matrix(copied ? weight : values, name, file_);
  if (release_ && (copied || is_half(weight))) release_(name);
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
