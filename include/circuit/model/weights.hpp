#pragma once

#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/config.hpp"
#include "circuit/model/norm.hpp"

namespace circuit {

/// Attention weights; heads lie side by side, head-major, so that one product serves all of them. Where a file keeps the
/// dimensions of a head in neighbouring pairs, W_Q and W_K of half precision may be views of it, [d_model, heads, 2,
/// d_head / 2], whose columns in the order of these axes are the architecture's; `product` and `transposed` take them.
struct AttentionWeights {
  at::Tensor W_Q;  ///< [d_model, n_heads * d_head]
  at::Tensor W_K;  ///< [d_model, n_key_value_heads * d_head]
  at::Tensor W_V;  ///< [d_model, n_key_value_heads * d_head]
  at::Tensor W_O;  ///< [n_heads * d_head, d_model]
  at::Tensor b_Q;  ///< [n_heads * d_head], or undefined
  at::Tensor b_K;
  at::Tensor b_V;
  at::Tensor b_O;       ///< [d_model], or undefined
  at::Tensor q_gain{};  ///< [d_head] of the norm on each query, or undefined
  at::Tensor k_gain{};
};

/// MLP weights; `W_gate` is undefined unless the MLP is gated.
struct MlpWeights {
  at::Tensor W_gate;  ///< [d_model, d_mlp]
  at::Tensor W_in;    ///< [d_model, d_mlp]
  at::Tensor W_out;   ///< [d_mlp, d_model]
  at::Tensor b_gate;  ///< [d_mlp], or undefined
  at::Tensor b_in;
  at::Tensor b_out;  ///< [d_model], or undefined
};

struct BlockWeights {
  NormWeights ln1;
  AttentionWeights attn;
  NormWeights ln2;
  MlpWeights mlp;          ///< all undefined where blocks have no MLP
  NormWeights ln1_post{};  ///< of what attention adds; all undefined unless the wiring has post-norms
  NormWeights ln2_post{};  ///< of what the MLP adds
};

/// Every weight of a model, all of one device and dtype, save that matrices may be of half precision beside float32; then
/// what multiplies with them is `product`, and what picks rows or columns widens them.
struct ModelWeights {
  at::Tensor W_E;    ///< [d_vocab, d_model]
  at::Tensor W_pos;  ///< [n_ctx, d_model], or undefined
  std::vector<BlockWeights> blocks;
  NormWeights ln_final;
  at::Tensor W_U;  ///< [d_model, d_vocab]
  at::Tensor b_U;  ///< [d_vocab], or undefined

  /// throws  ShapeError  naming the first weight whose axes disagree with `config`
  void check(const ModelConfig& config) const;
};

namespace detail {

/// The columns of one head, which `product` takes.  [d_model, heads * d_head] or [d_model, heads, 2, d_head / 2]
[[nodiscard]] inline at::Tensor columns_of_head(const at::Tensor& W, std::int64_t head, std::int64_t d_head) {
  return W.dim() > 2 ? W.narrow(1, head, 1) : W.narrow(1, head * d_head, d_head);
}

/// Values of the key/value heads for every query head. [n_key_value_heads * d_head] -> [n_heads * d_head]
[[nodiscard]] inline at::Tensor repeat_for_query_heads(const at::Tensor& values, const ModelConfig& config) {
  return values.view({config.n_key_value_heads, 1, config.d_head})
      .expand({config.n_key_value_heads, config.group_size(), config.d_head})
      .reshape({config.n_heads * config.d_head});
}

}  // namespace detail

namespace weights {

/// Which of TransformerLens' weight processings are applied; each leaves the function unchanged (centring the unembedding
/// up to each position's mean logit).
struct Processing {
  bool fold_norms = false;         ///< gain and bias into the readers, readers centred (`fold_ln`)
  bool center_writing = false;     ///< writers' mean over d_model removed (`center_writing_weights`)
  bool center_unembed = false;     ///< unembedding's mean over the vocabulary removed
  bool fold_value_biases = false;  ///< b_V into b_O, so hook_z holds no b_V

  friend bool operator==(const Processing&, const Processing&) = default;
};

/// The weights as they are in the file.
inline constexpr Processing unprocessed{};
/// All of it: what published GPT-2 dictionaries were trained on.
inline constexpr Processing folded_and_centered{true, true, true, true};

}  // namespace weights

inline void ModelWeights::check(const ModelConfig& c) const {
  const auto has = [](const at::Tensor& t, const std::vector<std::int64_t>& shape, const std::string& name) {
    if (t.defined()) check_shape(t, shape, name);
  };
  const auto reads = [&](const at::Tensor& W, std::int64_t heads, const std::string& name) {
    const bool pairs = is_half(W) && W.dim() == 4;
    check_shape(
        W,
        pairs ? std::vector{c.d_model, heads, std::int64_t{2}, c.d_head / 2} : std::vector{c.d_model, heads * c.d_head},
        name);
  };
  const auto queries = c.n_heads * c.d_head;
  const auto keys = c.n_key_value_heads * c.d_head;
  check_shape(W_E, {c.d_vocab, c.d_model}, "W_E");
  has(W_pos, {c.n_ctx, c.d_model}, "W_pos");
  check_shape(W_U, {c.d_model, c.d_vocab}, "W_U");
  has(b_U, {c.d_vocab}, "b_U");
  if (static_cast<std::int64_t>(blocks.size()) != c.n_layers) {
    throw ConfigError{{.tensor = "n_layers",
                       .expected = std::to_string(c.n_layers) + " blocks",
                       .got = std::to_string(blocks.size())}};
  }
  for (std::size_t l = 0; l < blocks.size(); ++l) {
    const auto& b = blocks[l];
    const auto in = "blocks." + std::to_string(l) + '.';
    for (const auto* norm : {&b.ln1, &b.ln2, &b.ln1_post, &b.ln2_post}) {
      has(norm->gain, {c.d_model}, in + "ln.gain");
      has(norm->bias, {c.d_model}, in + "ln.bias");
    }
    reads(b.attn.W_Q, c.n_heads, in + "attn.W_Q");
    reads(b.attn.W_K, c.n_key_value_heads, in + "attn.W_K");
    check_shape(b.attn.W_V, {c.d_model, keys}, in + "attn.W_V");
    check_shape(b.attn.W_O, {queries, c.d_model}, in + "attn.W_O");
    has(b.attn.b_Q, {queries}, in + "attn.b_Q");
    has(b.attn.b_K, {keys}, in + "attn.b_K");
    has(b.attn.b_V, {keys}, in + "attn.b_V");
    has(b.attn.b_O, {c.d_model}, in + "attn.b_O");
    has(b.attn.q_gain, {c.d_head}, in + "attn.q_gain");
    has(b.attn.k_gain, {c.d_head}, in + "attn.k_gain");
    has(b.mlp.W_gate, {c.d_model, c.d_mlp}, in + "mlp.W_gate");
    if (c.d_mlp > 0) {
      check_shape(b.mlp.W_in, {c.d_model, c.d_mlp}, in + "mlp.W_in");
      check_shape(b.mlp.W_out, {c.d_mlp, c.d_model}, in + "mlp.W_out");
    }
    has(b.mlp.b_gate, {c.d_mlp}, in + "mlp.b_gate");
    has(b.mlp.b_in, {c.d_mlp}, in + "mlp.b_in");
    has(b.mlp.b_out, {c.d_model}, in + "mlp.b_out");
  }
}

}  // namespace circuit
