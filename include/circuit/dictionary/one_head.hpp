#pragma once

#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"

namespace circuit {

/// An SAE of one head's hook_z as one of all heads', concatenated as sets have them: it reads and describes that head
/// alone. What the others give is none of its features' doing, so all of it is in the error. In memory of its own.
/// dictionary  [d_head, d_sae] and [d_sae, d_head]
/// throws  IndexError   unless the model has so many heads
/// throws  ConfigError  for one that normalises what it reads: a set has no place for it
template <SparseActivation A>
[[nodiscard]] SparseDictionary<A> over_all_heads(SparseDictionary<A> dictionary, Head head, std::int64_t n_heads);

}  // namespace circuit

namespace circuit::detail {

/// x with `before` and `after` zeros along an axis. Of the same type.
[[nodiscard]] inline at::Tensor padded(const at::Tensor& x, std::int64_t axis, std::int64_t before,
                                       std::int64_t after) {
  if (!x.defined()) return x;
  auto shape = shape_of(x);
  const auto width = shape[static_cast<std::size_t>(axis)];
  shape[static_cast<std::size_t>(axis)] = before + width + after;
  auto out = make::zeros(shape, x.options());
  out.narrow(axis, before, width).copy_(x);
  return out;
}

}  // namespace circuit::detail

namespace circuit {

template <SparseActivation A>
SparseDictionary<A> over_all_heads(SparseDictionary<A> dictionary, Head head, std::int64_t n_heads) {
  check_index(head, n_heads);
  if (dictionary.input_norm.kind != InputNorm::Kind::none) {
    throw ConfigError{{.file = dictionary.name,
                       .tensor = "input_norm",
                       .problem = "normalises one head, and would have to normalise all of them",
                       .hint = "use it by itself"}};
  }
  check_shape(dictionary.W_dec, {dictionary.d_sae(), dictionary.d_in()}, "W_dec", dictionary.name,
              "an SAE describes what it reads");
  const auto before = head.value * dictionary.d_in();
  const auto after = (n_heads - 1 - head.value) * dictionary.d_in();
  DictionaryWeights& weights = dictionary;
  weights.W_enc = detail::padded(weights.W_enc, 0, before, after);
  weights.W_dec = detail::padded(weights.W_dec, 1, before, after);
  weights.b_in = detail::padded(weights.b_in, 0, before, after);
  weights.b_out = detail::padded(weights.b_out, 0, before, after);
  weights.W_enc_pages = {};
  weights.W_dec_pages = {};
  return dictionary;
}

}  // namespace circuit
