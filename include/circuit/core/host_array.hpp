#pragma once

// The border between ATen, where models compute, and xtensor, where host results are read, reduced and saved.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <vector>

#if __has_include(<xtensor/containers/xarray.hpp>)  // 0.26 moved its headers
#include <xtensor/containers/xarray.hpp>
#else
#include <xtensor/xarray.hpp>
#endif

#include "circuit/core/tensor.hpp"

namespace circuit {

/// An owning array on the host, row-major, of any rank.
template <class T>
using HostArray = xt::xarray<T>;

/// Copies a tensor of any device and layout into an array of its own.
/// T       double, float or std::int64_t; the tensor is converted to it
/// return  the tensor's shape
template <class T = double>
  requires std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, std::int64_t>
[[nodiscard]] HostArray<T> to_host(const at::Tensor& tensor);

/// Copies an array into a CPU tensor of the same shape and element type.
template <class T>
  requires std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, std::int64_t>
[[nodiscard]] at::Tensor from_host(const HostArray<T>& array);

}  // namespace circuit

namespace circuit::detail {

template <class T>
inline constexpr at::ScalarType scalar_of = std::same_as<T, double>  ? at::kDouble
                                            : std::same_as<T, float> ? at::kFloat
                                                                     : at::kLong;

}  // namespace circuit::detail

namespace circuit {

template <class T>
  requires std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, std::int64_t>
HostArray<T> to_host(const at::Tensor& tensor) {
  const auto host = tensor.detach().to(at::kCPU, detail::scalar_of<T>).contiguous();
  const auto sizes = shape_of(host);
  auto array = HostArray<T>::from_shape(std::vector<std::size_t>(sizes.begin(), sizes.end()));
  const auto* data = data_of<T>(host);
  std::copy(data, data + host.numel(), array.begin());
  return array;
}

template <class T>
  requires std::same_as<T, double> || std::same_as<T, float> || std::same_as<T, std::int64_t>
at::Tensor from_host(const HostArray<T>& array) {
  const std::vector<std::int64_t> sizes(array.shape().begin(), array.shape().end());
  auto tensor = make::empty(sizes, at::TensorOptions{}.dtype(detail::scalar_of<T>));
  std::copy(array.begin(), array.end(), tensor.template data_ptr<T>());
  return tensor;
}

}  // namespace circuit
