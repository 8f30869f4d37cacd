#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/post_norm.hpp"
#include "circuit/linear/pull_back.hpp"

namespace circuit {

/// Which attention paths a signed sum over paths follows.
enum class AttentionPaths {
  values,  ///< ov edges only: exact and complete
  all,     ///< also q and k edges: first order
};

/// Gradients of each prompt's metric through the replacement model: errors, scales, patterns and the active set frozen.
/// `<gradient at a module's output, w>` is then the signed sum over *all* paths from the metric down to a node with write
/// vector w. One backward pass; every module's features are carried together as one reader per position.
template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
[[nodiscard]] OutputGradients path_gradients(const HookedTransformer<A>& model, const Set& dictionaries,
                                             const Linearization& linearization, const PullBack<A, Softmax>& pull_back,
                                             AttentionPaths paths);

}  // namespace circuit

namespace circuit::detail {

/// Sum over active features of (gradient on the feature) times its reader: what the module as a whole reads.
/// on_outputs  [rows, d_out] each: gradients on the dictionary's output and, for a cross-layer transcoder, on those of the
///             layers after it
/// readers    called as readers(features, rows) for some features, each at its row: what they read of the normalised
///            input, [n, d_in]
/// return     [rows, d_in]  of the input itself, the dictionary's normalisation held
template <class Readers>
[[nodiscard]] at::Tensor combined_reader(const DictionaryWeights& dictionary, const ModuleState& state,
                                         std::vector<at::Tensor> on_outputs, Readers&& readers) {
  const auto& active = state.features;
  const auto& [divisor, factor, shift] = state.input_norm;
  if (factor.defined()) {
    for (auto& grad : on_outputs) grad = grad.mul(factor.reshape({-1, 1}));
  }
  auto out = make::zeros({active.rows(), dictionary.d_in()}, on_outputs.front().options());
  if (active.size() == 0) return out;
  const auto device = out.device();
  const auto all_features = ids_tensor(active.feature).to(device);
  const auto all_rows = row_indices(active).to(device);
  const auto slope = active.slope.to(device);
  constexpr std::int64_t block = std::int64_t{1} << 15;  // each needs two vectors of the stream's width
  for (std::int64_t first = 0; first < active.size(); first += block) {
    const auto count = std::min(block, active.size() - first);
    const auto features = all_features.narrow(0, first, count);
    const auto rows = all_rows.narrow(0, first, count);
    auto nodegrad = make::zeros({count}, out.options());
    for (std::size_t ahead = 0; ahead < on_outputs.size(); ++ahead) {
      const auto written = dictionary.decoder_rows(features, static_cast<std::int64_t>(ahead));
      nodegrad = nodegrad.add(written.mul(on_outputs[ahead].index_select(0, rows)).sum(-1));
    }
    const auto weight = nodegrad.mul(slope.narrow(0, first, count)).unsqueeze(-1);
    out.index_add_(0, rows, readers(features, rows).mul(weight));
  }
  return divisor.defined() ? dictionary.input_norm.unscaled(out).div(divisor.reshape({-1, 1})) : out;
}

/// Adds, to gradients on streams by layer, what a crosscoder's features read of them where the gradient on what they
/// write before one layer is `grad`: of those that read upstream. grad  [batch, pos, d_model]
inline void add_crosscoder_reads(const Crosscoder& crosscoder, Layer layer, const ModuleState& state,
                                 const at::Tensor& grad, std::vector<at::Tensor>& on_streams) {
  std::int64_t first = 0;
  for (const auto& part : crosscoder.parts) {
    auto d = static_cast<const DictionaryWeights&>(part.dictionary);  // of which what is written changes
    const auto features = d.d_sae();
    d.W_dec = decoder_of(part, layer);
    d.W_later = at::Tensor{};
    if (part.causal() && d.W_dec.defined()) {
      const ModuleState own{.features = features_within(state.features, first, features), .rest = {}};
      const auto readers = [&](const at::Tensor& ids, const at::Tensor& /*rows*/) { return d.readers(ids); };
      const auto read = combined_reader(d, own, {grad.flatten(0, 1)}, readers);
      for (std::size_t i = 0; i < part.reads.size(); ++i) {
        const auto width = grad.size(-1);
        const auto here = read.narrow(1, static_cast<std::int64_t>(i) * width, width).view(grad.sizes());
        auto& sum = on_streams[static_cast<std::size_t>(part.reads[i].value)];
        sum = sum.defined() ? sum.add(here) : here;
      }
    }
    first += features;
  }
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set, SoftmaxJacobian Softmax>
OutputGradients path_gradients(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& lin,
                               const PullBack<A, Softmax>& pull_back, AttentionPaths paths) {
  const c10::AutoGradMode no_gradient{false};
  const auto layers = static_cast<std::int32_t>(model.config().n_layers);
  const auto positions = make::arange(lin.length(), lin.gradients.last.options().dtype(at::kLong));
  OutputGradients out;
  out.attn_out.resize(static_cast<std::size_t>(layers));
  out.mlp_out.resize(static_cast<std::size_t>(layers));
  out.stream.resize(static_cast<std::size_t>(layers) + 1);
  out.last = lin.gradients.last;
  auto resid = out.last;  // gradient on the residual stream, carried downwards
  const auto by_prompt = [&](const auto& grad) {
    std::vector<at::Tensor> grads;
    for (std::int32_t b = 0; b < lin.batch(); ++b) grads.push_back(grad(Prompt{b}));
    return make::stack(grads);
  };

  std::vector<at::Tensor> read_across(static_cast<std::size_t>(layers) + 1);  // by a crosscoder's features further up
  const auto pass_stream = [&](Layer layer) {  // no path goes around a dictionary of the stream
    const auto* d = stream_dictionary(dictionaries, layer);
    if (d == nullptr) return;
    const auto slot = static_cast<std::size_t>(layer.value);
    out.stream[slot] = resid;
    if (const auto* across = crosscoder_of(dictionaries, layer)) {
      detail::add_crosscoder_reads(*across, layer, lin.clean.stream[slot], resid, read_across);
      resid = read_across[slot].defined() ? read_across[slot] : make::zeros_like(resid);
      return;
    }
    const auto readers = [&](const at::Tensor& features, const at::Tensor& /*rows*/) { return d->readers(features); };
    resid = detail::combined_reader(*d, lin.clean.stream[slot], {resid.flatten(0, 1)}, readers).view(resid.sizes());
  };
  pass_stream(Layer{layers});
  for (std::int32_t l = layers - 1; l >= 0; --l) {
    const Layer layer{l};
    const auto slot = static_cast<std::size_t>(l);
    out.mlp_out[slot] = resid;
    auto below = resid;
    if (const auto* d = dictionaries.mlp(layer)) {
      const auto readers = [&](const at::Tensor& features, const at::Tensor& rows) {
        if constexpr (ReadsAtInput<Set>) {
          const auto x = lin.run.template get<hook::ln2::normalized>(layer).flatten(0, 1).index_select(0, rows);
          return dictionaries.mlp_readers(layer, x, features).readers;
        } else {
          return d->readers(features);
        }
      };
      std::vector<at::Tensor> on_outputs;
      on_outputs.push_back(at_mlp_writes(model, dictionaries, lin.run, layer, resid).flatten(0, 1));
      for (std::int64_t ahead = 1; ahead <= d->later_layers(); ++ahead) {
        on_outputs.push_back(out.mlp_out[slot + static_cast<std::size_t>(ahead)].flatten(0, 1));
      }
      auto reader = detail::combined_reader(*d, lin.clean.mlp[slot], on_outputs, readers).view(resid.sizes());
      if (d->has_skip()) reader = reader.add(resid.matmul(d->W_skip.t()));
      const auto pull = pull_back.from_mlp(mlp_site(dictionaries, layer));
      below = below.add(
          by_prompt([&](Prompt b) { return (pull_back.*pull)(layer, b, reader.select(0, b.value), positions).grad; }));
    }
    if constexpr (!A::Wiring::parallel) resid = below;  // else attention writes where the MLP does
    out.attn_out[slot] = resid;
    if (const auto* d = dictionaries.attn(layer)) {
      const bool reads_z = dictionaries.attn_site(layer) == AttentionSite::z;
      const auto on_output = reads_z ? pull_back.through_output(layer, resid) : resid;
      const auto readers = [&](const at::Tensor& features, const at::Tensor& /*rows*/) { return d->readers(features); };
      auto reader = detail::combined_reader(*d, lin.clean.attn[slot], {on_output.flatten(0, 1)}, readers)
                        .view({lin.batch(), lin.length(), -1});
      if (!reads_z) reader = pull_back.through_output(layer, reader);
      below = below.add(by_prompt([&](Prompt b) {
        const auto here = reader.select(0, b.value);
        const auto grad = pull_back.values(layer, b, here, positions).grad.sum(0);
        if (paths == AttentionPaths::values) return grad;
        return grad.add(pull_back.queries(layer, b, here, positions).grad)
            .add(pull_back.keys(layer, b, here, positions).grad.sum(0));
      }));
    } else if (has_transparent_attention(dictionaries, layer)) {
      below = below.add(
          by_prompt([&](Prompt b) { return pull_back.attention(layer, b, resid.narrow(0, b.value, 1)).squeeze(0); }));
    }
    resid = below;
    pass_stream(layer);
  }
  out.embed = resid;
  return out;
}

}  // namespace circuit
