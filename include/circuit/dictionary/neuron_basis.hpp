#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/active_features.hpp"
#include "circuit/dictionary/dictionary_set.hpp"
#include "circuit/dictionary/neuron_rules.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// A model's own units as its dictionaries: every MLP neuron writes its row of W_out, every dimension of a head's
/// hook_z its row of W_O. They describe the model without error, so any model can be searched and nothing need be
/// trained. The weights are the model's own tensors, not copies. Blocks without an MLP have no neurons to encode or read.
///
/// Of a gated neuron, `Gate` says how its two factors share its activation; of a plain one, `Slope` says what stands
/// for the nonlinearity. Where modules have post-norms, units write before them: what one adds to the stream then
/// differs by prompt and position. source  Jafari et al. 2025 (RelP) for gate::Half and slope::Ratio
template <Architecture A, GateRule Gate = gate::Frozen, SlopeRule Slope = slope::Derivative>
class NeuronBasis {
 public:
  /// No module has an error: it is 0, and as a difference would be rounding noise.
  static constexpr bool exact = true;
  static constexpr bool own_units = true;

  explicit NeuronBasis(const HookedTransformer<A>& model, Gate gate = {}, Slope slope = {});

  /// Reader and writer of hook_z are the identity; W_O is applied as for every dictionary of hook_z.
  [[nodiscard]] const DictionaryWeights* attn(Layer layer) const { return find(attn_, layer); }
  /// W_enc reads the norm's output and is the linear branch alone of a gated MLP; `mlp_readers` has the whole.
  [[nodiscard]] const DictionaryWeights* mlp(Layer layer) const { return find(mlp_, layer); }
  [[nodiscard]] AttentionSite attn_site(Layer /*layer*/) const { return AttentionSite::z; }

  /// Every unit, those that happen to be 0 too. x [batch, pos, n_heads * d_head]
  [[nodiscard]] ActiveFeatures active_attn(Layer layer, const at::Tensor& x) const;
  /// x  [batch, pos, d_model]  ln2.hook_normalized
  [[nodiscard]] ActiveFeatures active_mlp(Layer layer, const at::Tensor& x) const;
  /// The same densely, [batch, pos, units], and of some units alone, [batch, pos, n]. A gradient passes. features [n]
  /// int64
  [[nodiscard]] at::Tensor encode_attn(Layer /*layer*/, const at::Tensor& x) const { return x; }
  [[nodiscard]] at::Tensor encode_attn(Layer /*layer*/, const at::Tensor& x, const at::Tensor& features) const {
    return x.index_select(-1, features);
  }
  [[nodiscard]] at::Tensor encode_mlp(Layer layer, const at::Tensor& x) const {
    return neurons(x, block(layer), [](const at::Tensor& W) { return W; });
  }
  [[nodiscard]] at::Tensor encode_mlp(Layer layer, const at::Tensor& x, const at::Tensor& features) const {
    return neurons(x, block(layer), [&](const at::Tensor& W) { return widened(W.index_select(-1, features)); });
  }
  /// What neurons read of ln2.hook_normalized, each at its own row of x.
  /// x  [n, d_model]  features [n] int64
  [[nodiscard]] InputReaders mlp_readers(Layer layer, const at::Tensor& x, const at::Tensor& features) const;

  /// throws  ConfigError  for another model than this is the basis of
  void check(const ModelConfig& config, const weights::Processing& processing, at::ScalarType dtype) const;

 private:
  using Entries = std::vector<DictionaryWeights>;

  [[nodiscard]] static const DictionaryWeights* find(const Entries& entries, Layer layer) {
    const auto slot = static_cast<std::size_t>(layer.value);
    return layer.value >= 0 && slot < entries.size() ? &entries[slot] : nullptr;
  }
  [[nodiscard]] std::size_t index(Layer layer) const {
    check_index(layer, static_cast<std::int64_t>(blocks_.size()));
    return static_cast<std::size_t>(layer.value);
  }
  [[nodiscard]] const BlockWeights& block(Layer layer) const { return blocks_[index(layer)]; }

  /// x  ln2.hook_normalized   of  the columns wanted of a weight or bias
  template <class Columns>
  [[nodiscard]] static at::Tensor neurons(const at::Tensor& x, const BlockWeights& w, const Columns& of) {
    const auto read = A::Norm::output(x, w.ln2);
    const auto sum = [&](const at::Tensor& W, const at::Tensor& b) {
      return affine(read, of(W), b.defined() ? of(b) : b);
    };
    if constexpr (A::Mlp::gated) {
      return A::Mlp::Activation::apply(sum(w.mlp.W_gate, w.mlp.b_gate)).mul(sum(w.mlp.W_in, w.mlp.b_in));
    } else if constexpr (has_mlp<A>) {
      return A::Mlp::Activation::apply(sum(w.mlp.W_in, w.mlp.b_in));
    } else {
      return {};
    }
  }

  std::vector<BlockWeights> blocks_;
  Entries attn_;
  Entries mlp_;
  ModelConfig config_;
  weights::Processing processing_;
  at::ScalarType dtype_;
  [[no_unique_address]] Gate gate_;
  [[no_unique_address]] Slope slope_;
};

}  // namespace circuit

namespace circuit::detail {

/// All units of every row. acts, slope  [rows, units]
[[nodiscard]] inline ActiveFeatures all_units(const at::Tensor& acts, const at::Tensor& slope,
                                              const std::string& name) {
  const auto units = acts.size(1);
  ActiveFeatures out;
  out.feature.resize(static_cast<std::size_t>(acts.numel()));
  for (std::int64_t r = 0; r < acts.size(0); ++r) {
    const auto first = out.feature.begin() + r * units;
    std::iota(first, first + units, std::int64_t{0});
    out.row_begin.push_back((r + 1) * units);
  }
  const auto host = [](const at::Tensor& x) { return x.to(at::kCPU).contiguous().view(-1); };
  out.activation = host(acts);
  out.slope = host(slope);
  check_finite(out.activation, "activations", name);
  return out;
}

/// b  [units], or undefined: 0
[[nodiscard]] inline at::Tensor bias_of_units(const at::Tensor& b, const at::Tensor& units, const at::Tensor& like) {
  return b.defined() ? b.index_select(0, units) : make::zeros({units.size(0)}, like.options());
}

/// Value of each unit at its own row: `<x[i], W[:, unit i]> + b`. return [n]
[[nodiscard]] inline at::Tensor value_of_units(const at::Tensor& x, const at::Tensor& columns, const at::Tensor& bias) {
  return x.mul(columns).sum(-1).add(bias);
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, GateRule Gate, SlopeRule Slope>
NeuronBasis<A, Gate, Slope>::NeuronBasis(const HookedTransformer<A>& model, Gate gate, Slope slope)
    : blocks_{model.weights().blocks},
      config_{model.config()},
      processing_{model.processing()},
      dtype_{model.dtype()},
      gate_{std::move(gate)},
      slope_{std::move(slope)} {
  const auto options = model.options();
  const auto width = config_.n_heads * config_.d_head;
  const auto identity = make::ones({width}, options).diag();
  const auto zeros = make::zeros({width}, options);
  for (std::size_t l = 0; l < blocks_.size(); ++l) {
    const auto at_layer = " of layer " + std::to_string(l);
    attn_.push_back(
        {.W_enc = identity, .b_enc = zeros, .W_dec = identity, .b_in = {}, .b_out = {}, .name = "z" + at_layer});
    if constexpr (!has_mlp<A>) continue;
    const auto& w = blocks_[l].mlp;
    mlp_.push_back({.W_enc = w.W_in,
                    .b_enc = w.b_in.defined() ? w.b_in : make::zeros({config_.d_mlp}, options),
                    .W_dec = w.W_out,
                    .b_in = {},
                    .b_out = w.b_out,
                    .name = "neurons" + at_layer});
  }
}

template <Architecture A, GateRule Gate, SlopeRule Slope>
ActiveFeatures NeuronBasis<A, Gate, Slope>::active_attn(Layer layer, const at::Tensor& x) const {
  const auto z = x.reshape({-1, x.size(-1)});
  return detail::all_units(z, z.mul(0.0).add(1.0), attn_[index(layer)].name);
}

template <Architecture A, GateRule Gate, SlopeRule Slope>
ActiveFeatures NeuronBasis<A, Gate, Slope>::active_mlp(Layer layer, const at::Tensor& x) const {
  if constexpr (has_mlp<A>) {
    const c10::AutoGradMode no_gradient{false};
    using Act = typename A::Mlp::Activation;
    const auto& w = block(layer);
    const auto read = A::Norm::output(x.reshape({-1, x.size(-1)}), w.ln2);
    const auto linear = affine(read, w.mlp.W_in, w.mlp.b_in);
    if constexpr (A::Mlp::gated) {
      const auto acts = Act::apply(affine(read, w.mlp.W_gate, w.mlp.b_gate)).mul(linear);
      return detail::all_units(acts, acts.mul(0.0).add(1.0), mlp_[index(layer)].name);
    } else {
      return detail::all_units(Act::apply(linear), slope_.template of<Act>(linear), mlp_[index(layer)].name);
    }
  } else {
    return {};
  }
}

template <Architecture A, GateRule Gate, SlopeRule Slope>
InputReaders NeuronBasis<A, Gate, Slope>::mlp_readers(Layer layer, const at::Tensor& x,
                                                      const at::Tensor& features) const {
  const auto& w = block(layer);
  const auto columns = [&](const at::Tensor& W) { return widened(W.index_select(1, features)).t(); };
  // A functional of the norm's output is one of hook_normalized once it is multiplied by the gain between them.
  const auto before_gain = [&](const at::Tensor& g) {
    return !A::Norm::centers && w.ln2.gain.defined() ? g.mul(w.ln2.gain) : g;
  };
  const auto on_linear = columns(w.mlp.W_in);
  const auto b_in = detail::bias_of_units(w.mlp.b_in, features, x);
  if constexpr (A::Mlp::gated) {
    const auto read = A::Norm::output(x, w.ln2);
    const auto on_gate = columns(w.mlp.W_gate);
    const auto b_gate = detail::bias_of_units(w.mlp.b_gate, features, x);
    const auto share = gate_.template share<typename A::Mlp::Activation>(detail::value_of_units(read, on_gate, b_gate),
                                                                         detail::value_of_units(read, on_linear, b_in));
    auto readers = on_linear.mul(share.of_linear.unsqueeze(-1));
    auto constant = share.of_linear.mul(b_in);
    if (share.of_gate.defined()) {
      readers = readers.add(on_gate.mul(share.of_gate.unsqueeze(-1)));
      constant = constant.add(share.of_gate.mul(b_gate));
    }
    return {before_gain(readers), constant};
  } else {
    return {before_gain(on_linear), b_in};
  }
}

template <Architecture A, GateRule Gate, SlopeRule Slope>
void NeuronBasis<A, Gate, Slope>::check(const ModelConfig& config, const weights::Processing& processing,
                                        at::ScalarType dtype) const {
  const auto sizes = [](const ModelConfig& c) {
    return std::vector<std::int64_t>{c.n_layers, c.n_heads, c.d_head, c.d_model, c.d_mlp};
  };
  if (sizes(config) == sizes(config_) && processing == processing_ && dtype == dtype_) return;
  throw ConfigError{{.tensor = "neuron basis",
                     .problem = "is that of a model of other sizes, processing or dtype",
                     .hint = "make it from the model that is searched"}};
}

}  // namespace circuit
