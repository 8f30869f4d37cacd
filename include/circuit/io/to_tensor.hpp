#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/core/make.hpp"
#include "circuit/io/tensor_file.hpp"

namespace circuit {

[[nodiscard]] inline at::ScalarType scalar_type(DType dtype) noexcept {
  switch (dtype) {
    case DType::f16: return at::kHalf;
    case DType::bf16: return at::kBFloat16;
    case DType::f32: return at::kFloat;
    case DType::f64: return at::kDouble;
    case DType::i8: return at::kChar;
    case DType::u8: return at::kByte;
    case DType::i16: return at::kShort;
    case DType::i32: return at::kInt;
    case DType::i64: return at::kLong;
    case DType::boolean: break;
  }
  return at::kBool;
}

/// throws  DTypeError  for a type no file of ours can hold
[[nodiscard]] inline DType dtype_of(const at::Tensor& tensor) {
  for (const auto dtype : {DType::f16, DType::bf16, DType::f32, DType::f64, DType::i8, DType::u8, DType::i16,
                           DType::i32, DType::i64, DType::boolean}) {
    if (scalar_type(dtype) == tensor.scalar_type()) return dtype;
  }
  throw DTypeError{{.problem = "unsupported element type", .got = std::string{tensor.dtype().name()}}};
}

/// A CPU tensor over the view's own bytes, which it keeps mapped for as long as it or any view of it lives. Bytes that
/// are misaligned for their type are copied, since vector loads of them may fault.
[[nodiscard]] inline at::Tensor to_tensor(const TensorView& view) {
  const auto options = at::TensorOptions{}.dtype(scalar_type(view.dtype)).device(at::kCPU);
  const auto address = reinterpret_cast<std::uintptr_t>(view.bytes.data());
  if (address % item_size(view.dtype) != 0 || view.bytes.empty()) {
    auto copy = make::empty(view.shape, options);
    if (!view.bytes.empty()) std::memcpy(copy.data_ptr(), view.bytes.data(), view.bytes.size());
    return copy;
  }
  // The mapping is private and writable, so the cast is as harmless as an in-place operation on any other tensor.
  auto* data = const_cast<std::byte*>(view.bytes.data());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return at::from_blob(
      data, view.shape, [owner = view.owner](void*) {}, options);
}

/// A view of `tensor`'s elements for writing, made contiguous on the CPU first when it is not.
/// throws  DTypeError  for a type no file of ours can hold
[[nodiscard]] inline TensorView to_view(std::string name, const at::Tensor& tensor) {
  const auto dtype = dtype_of(tensor);
  auto owner = std::make_shared<const at::Tensor>(tensor.detach().to(at::kCPU).contiguous());
  const auto sizes = owner->sizes();
  return {.name = std::move(name),
          .dtype = dtype,
          .shape = {sizes.begin(), sizes.end()},
          .bytes = {static_cast<const std::byte*>(owner->data_ptr()), owner->nbytes()},
          .owner = owner};
}

}  // namespace circuit
