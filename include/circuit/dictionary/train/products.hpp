#pragma once

#include <concepts>

#include "circuit/core/tensor.hpp"

namespace circuit::train {

/// Multiplies the matrices of a training step: a [n, k] times b [k, m], into the type of what it is written to.
template <class P>
concept MatrixProducts = requires(const P& p, const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  { p.product(a, b) } -> std::same_as<at::Tensor>;  // in a's type
  { p.write(out, a, b) } -> std::same_as<void>;     // out = a b
  { p.add(out, a, b) } -> std::same_as<void>;       // out += a b
};

namespace products {

/// In the operands' own type.
struct Full {
  [[nodiscard]] at::Tensor product(const at::Tensor& a, const at::Tensor& b) const { return a.matmul(b); }
  void write(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const { out.addmm_(a, b, /*beta=*/0); }
  void add(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const { out.addmm_(a, b); }
};

/// Mixed precision: operands rounded to bfloat16 for each product, whose sums are float32 within the processor and
/// rounded once; weights, activations, gradients and the optimiser's state keep their own type. Worth it where the
/// processor multiplies bfloat16 (avx512_bf16, AMX, GPUs); elsewhere it is slower than float32.
/// source  Micikevicius et al. 2018 (master weights); Kalamkar et al. 2019 (bfloat16, which needs no loss scaling)
struct Bfloat16 {
  [[nodiscard]] at::Tensor product(const at::Tensor& a, const at::Tensor& b) const {
    return narrow(a, b).to(a.scalar_type());
  }
  void write(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const { out.copy_(narrow(a, b)); }
  void add(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const { out.add_(narrow(a, b)); }

 private:
  [[nodiscard]] static at::Tensor narrow(const at::Tensor& a, const at::Tensor& b) {
    return a.to(at::kBFloat16).matmul(b.to(at::kBFloat16));
  }
};

}  // namespace products

}  // namespace circuit::train
