#pragma once

#include <cstddef>

#include "circuit/core/tensor.hpp"
#include "dictionaries.hpp"

namespace train {

/// An attachment that replaces what modules write. `replace_z(layer, z)` gets and gives [batch, pos, heads * d_head],
/// `replace_mlp(layer, mlp_in, mlp_out)` gets both and gives the new output.
template <class ReplaceZ, class ReplaceMlp>
struct Splice {
  ReplaceZ replace_z;
  ReplaceMlp replace_mlp;
  at::Tensor mlp_in{};

  void visit(circuit::hook::attn::z /*point*/, circuit::Layer layer, at::Tensor& value) {
    value = replace_z(static_cast<std::size_t>(layer.value), value.flatten(2)).view(value.sizes());
  }
  void visit(circuit::hook::ln2::normalized /*point*/, circuit::Layer /*layer*/, at::Tensor& value) { mlp_in = value; }
  void visit(circuit::hook::mlp_out /*point*/, circuit::Layer layer, at::Tensor& value) {
    value = replace_mlp(static_cast<std::size_t>(layer.value), mlp_in, value);
  }
};
template <class Z, class M>
Splice(Z, M) -> Splice<Z, M>;

[[nodiscard]] inline auto splice_dictionaries(const Dictionaries& dictionaries) {
  return Splice{[&](std::size_t l, const at::Tensor& z) {
                  const auto& d = dictionaries.attn[l];
                  return d.decode(d.encode(z));
                },
                [&](std::size_t l, const at::Tensor& in, const at::Tensor& /*out*/) {
                  const auto& d = dictionaries.mlp[l];
                  return d.decode(d.encode(in));
                }};
}

[[nodiscard]] inline auto splice_zeros() {
  return Splice{[](std::size_t, const at::Tensor& z) { return z.mul(0.0); },
                [](std::size_t, const at::Tensor&, const at::Tensor& out) { return out.mul(0.0); }};
}

}  // namespace train
