#pragma once

#include <cstddef>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/mlp_derivative.hpp"
#include "circuit/linear/path_gradient.hpp"
#include "circuit/linear/pull_back.hpp"

namespace circuit::detail {

/// What the error of an MLP's dictionary reads: the derivative, by the dictionary's input, of `<grad, MLP -
/// dictionary>`; of a dictionary that reads hook_mlp_out, of `<grad, x - dictionary>`.
/// grad    [batch, pos, d_model] at hook_mlp_out
/// return  the same shape, at ln2.hook_normalized or hook_mlp_out
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor mlp_error_readers(const HookedTransformer<A>& model, const Set& dictionaries,
                                           const Linearization& lin, Layer layer, const at::Tensor& grad) {
  const auto& dictionary = require(dictionaries.mlp(layer));
  const auto& state = lin.clean.mlp[static_cast<std::size_t>(layer.value)];
  const auto& read = lin.run.get<hook::ln2::normalized>(layer);
  auto by_module = grad;
  if constexpr (has_mlp<A>) {
    if (mlp_site(dictionaries, layer) != MlpSite::mlp_out) {
      by_module = through_mlp(model, layer, read.flatten(0, 1), grad.flatten(0, 1)).view(grad.sizes());
    }
  }
  auto by_dictionary =
      combined_reader(
          dictionary, state, {at_mlp_writes(model, dictionaries, lin.run, layer, grad).flatten(0, 1)},
          [&](const at::Tensor& features, const at::Tensor& rows) {
            if constexpr (ReadsAtInput<Set>) {
              return dictionaries.mlp_readers(layer, read.flatten(0, 1).index_select(0, rows), features).readers;
            } else {
              return dictionary.readers(features);
            }
          })
          .view(grad.sizes());
  if (dictionary.has_skip()) by_dictionary = by_dictionary.add(grad.matmul(dictionary.W_skip.t()));
  return by_module.sub(by_dictionary);
}

/// The same for the residual stream. grad  [batch, pos, d_model] at the stream   return  the same shape
template <Dictionaries Set>
[[nodiscard]] at::Tensor stream_error_readers(const Set& dictionaries, const Linearization& lin, Layer layer,
                                              const at::Tensor& grad) {
  const auto& dictionary = require(stream_dictionary(dictionaries, layer));
  const auto& state = lin.clean.stream[static_cast<std::size_t>(layer.value)];
  return grad.sub(combined_reader(dictionary, state, {grad.flatten(0, 1)},
                                  [&](const at::Tensor& features, const at::Tensor& /*rows*/) {
                                    return dictionary.readers(features);
                                  })
                      .view(grad.sizes()));
}

/// The same for attention.
/// grad  [batch, pos, d_model] at hook_attn_out   return [batch, pos, n_heads * d_head], at hook_z
template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
[[nodiscard]] at::Tensor attn_error_readers(const Set& dictionaries, const Linearization& lin,
                                            const PullBack<A, Softmax>& pull_back, Layer layer,
                                            const at::Tensor& grad) {
  const auto& dictionary = require(dictionaries.attn(layer));
  const auto& state = lin.clean.attn[static_cast<std::size_t>(layer.value)];
  const bool reads_z = dictionaries.attn_site(layer) == AttentionSite::z;
  const auto on_output = reads_z ? pull_back.through_output(layer, grad) : grad;
  const auto by_dictionary = combined_reader(dictionary, state, {on_output.flatten(0, 1)},
                                             [&](const at::Tensor& features, const at::Tensor& /*rows*/) {
                                               return dictionary.readers(features);
                                             })
                                 .view(on_output.sizes());
  const auto error = on_output.sub(by_dictionary);
  return reads_z ? error : pull_back.through_output(layer, error);
}

}  // namespace circuit::detail
