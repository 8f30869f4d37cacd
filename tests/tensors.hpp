#pragma once

#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <cstdint>
#include <sstream>
#include <string>

#include "catch.hpp"
#include "circuit/core/tensor.hpp"

/// Largest difference between two tensors, with where it is; printed by REQUIRE_CLOSE when it is over the tolerance.
struct Difference {
  bool close = false;
  std::string text;
};

/// |a - b| <= tolerance * max(1, largest |b|), element by element; NaN is never close.
inline Difference difference(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  std::ostringstream text;
  if (circuit::shape_of(a) != circuit::shape_of(b)) {
    text << "shapes " << circuit::detail::shape_text(circuit::shape_of(a)) << " and "
         << circuit::detail::shape_text(circuit::shape_of(b));
    return {false, text.str()};
  }
  if (a.numel() == 0) return {true, "both empty"};
  const auto x = a.detach().to(at::kDouble).contiguous().flatten();
  const auto y = b.detach().to(at::kDouble).contiguous().flatten();
  // Infinities that agree are no difference.
  const auto gap = x.sub(y).abs().masked_fill(x.eq(y), 0.0);
  const auto allowed = tolerance * std::max(1.0, y.masked_fill(y.isinf(), 0.0).abs().max().item<double>());
  const auto at_index = gap.nan_to_num(1e300).argmax().item<std::int64_t>();
  text << "worst at flat index " << at_index << " of " << circuit::detail::shape_text(circuit::shape_of(a)) << ": "
       << x[at_index].item<double>() << " and " << y[at_index].item<double>() << ", allowed " << allowed;
  return {gap.le(allowed).all().item<bool>(), text.str()};
}

#define REQUIRE_CLOSE(a, b, tolerance)                      \
  do {                                                      \
    const auto circuit_d = difference((a), (b), tolerance); \
    INFO(#a " and " #b ": " << circuit_d.text);             \
    REQUIRE(circuit_d.close);                               \
  } while (false)
