#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

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

/// An SAE and the head that it is of.
struct HeadDictionary {
  Head head{};
  SparseDictionary<> dictionary{};
};

/// SAEs of several heads of one layer as one of all heads: features are numbered through, in the order given. Each
/// reads and describes its own head alone. In memory of its own.
/// throws  ConfigError  for two of one head, or a nonlinearity that selects among features, which would choose among all
/// throws  DTypeError   when they are of several dtypes;  as for one
[[nodiscard]] SparseDictionary<> over_all_heads(const std::vector<HeadDictionary>& of_heads, std::int64_t n_heads);

}  // namespace circuit

namespace circuit::detail {

/// The threshold of each feature: 0 for a ReLU.
/// throws  ConfigError  for a nonlinearity that selects
[[nodiscard]] inline at::Tensor thresholds(const SparseDictionary<>& dictionary) {
  if (const auto* jump = std::get_if<activation::JumpRelu>(&dictionary.activation.chosen)) return jump->threshold;
  if (std::holds_alternative<activation::Relu>(dictionary.activation.chosen)) return make::zeros_like(dictionary.b_enc);
  throw ConfigError{{.file = dictionary.name,
                     .tensor = "activation",
                     .problem = "selects among its features, and would among those of all heads",
                     .expected = "ReLU or JumpReLU where a layer has SAEs of several heads"}};
}

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

inline SparseDictionary<> over_all_heads(const std::vector<HeadDictionary>& of_heads, std::int64_t n_heads) {
  if (of_heads.empty()) throw ConfigError{{.tensor = "heads", .expected = "at least one", .got = "none"}};
  if (of_heads.size() == 1) return over_all_heads(of_heads.front().dictionary, of_heads.front().head, n_heads);
  SparseDictionary<> all;
  std::set<Head> seen;
  std::vector<at::Tensor> W_enc;
  std::vector<at::Tensor> b_enc;
  std::vector<at::Tensor> W_dec;
  std::vector<at::Tensor> threshold;
  const auto add = [](at::Tensor& sum, const at::Tensor& part) {
    if (part.defined()) sum = sum.defined() ? sum.add(part) : part;
  };
  for (const auto& [head, own] : of_heads) {
    if (!seen.insert(head).second) {
      throw ConfigError{{.file = own.name, .problem = "two dictionaries of head " + std::to_string(head.value)}};
    }
    if (own.W_enc.scalar_type() != of_heads.front().dictionary.W_enc.scalar_type()) {
      throw DTypeError{{.file = own.name,
                        .tensor = "W_enc",
                        .expected = at::toString(of_heads.front().dictionary.W_enc.scalar_type()),
                        .got = at::toString(own.W_enc.scalar_type())}};
    }
    const auto padded = over_all_heads(own, head, n_heads);
    threshold.push_back(detail::thresholds(own));
    W_enc.push_back(padded.W_enc);
    b_enc.push_back(padded.b_enc);
    W_dec.push_back(padded.W_dec);
    add(all.b_in, padded.b_in);  // each is 0 at other heads
    add(all.b_out, padded.b_out);
    all.name += (all.name.empty() ? "" : ", ") + own.name;
  }
  all.W_enc = make::cat(W_enc, 1);
  all.b_enc = make::cat(b_enc, 0);
  all.W_dec = make::cat(W_dec, 0);
  all.activation.chosen = activation::JumpRelu{make::cat(threshold, 0)};
  return all;
}

}  // namespace circuit
