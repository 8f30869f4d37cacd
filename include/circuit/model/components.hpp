#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// A model as a graph of whole components. Senders write to the residual stream: the input (embeddings), then layer by
/// layer every attention head and the MLP. Receivers read it: layer by layer every head's queries, keys and values and
/// the MLP, at last the logits. What a receiver can read is a prefix of the senders.
struct Components {
  std::int64_t n_layers = 0;
  std::int64_t n_heads = 0;
  bool mlps = true;       ///< whether blocks have one
  bool parallel = false;  ///< whether an MLP does not read its own layer's heads

  template <Architecture A>
  [[nodiscard]] static Components of(const HookedTransformer<A>& model) {
    return {model.config().n_layers, model.config().n_heads, has_mlp<A>, A::Wiring::parallel};
  }

  [[nodiscard]] std::int64_t senders() const { return 1 + n_layers * senders_per_layer(); }
  [[nodiscard]] std::int64_t receivers() const { return n_layers * receivers_per_layer() + 1; }
  [[nodiscard]] std::int64_t edges() const {
    std::int64_t n = senders();  // into the logits
    for (std::int32_t l = 0; l < n_layers; ++l) {
      n += 3 * n_heads * before_attention(Layer{l}) + (mlps ? before_mlp(Layer{l}) : 0);
    }
    return n;
  }

  // Senders by index; the input is 0, heads of a layer follow each other.
  [[nodiscard]] std::int64_t first_head(Layer l) const { return 1 + l.value * senders_per_layer(); }
  [[nodiscard]] std::int64_t mlp(Layer l) const { return first_head(l) + n_heads; }

  // Receivers by index: queries of all heads, then their keys, then their values, then the MLP.
  [[nodiscard]] std::int64_t first_query(Layer l) const { return l.value * receivers_per_layer(); }
  [[nodiscard]] std::int64_t first_key(Layer l) const { return first_query(l) + n_heads; }
  [[nodiscard]] std::int64_t first_value(Layer l) const { return first_query(l) + 2 * n_heads; }
  [[nodiscard]] std::int64_t mlp_in(Layer l) const { return first_query(l) + 3 * n_heads; }
  [[nodiscard]] std::int64_t logits() const { return receivers() - 1; }
  /// Whose layer a receiver is in; of the logits, n_layers.
  [[nodiscard]] Layer layer_of_receiver(std::int64_t receiver) const {
    return Layer{static_cast<std::int32_t>(receiver / receivers_per_layer())};
  }

  /// How many senders come before a layer's attention, or MLP.
  [[nodiscard]] std::int64_t before_attention(Layer l) const { return first_head(l); }
  [[nodiscard]] std::int64_t before_mlp(Layer l) const { return parallel ? first_head(l) : mlp(l); }
  /// How many senders a receiver can read.
  [[nodiscard]] std::int64_t before(std::int64_t receiver) const {
    if (receiver == logits()) return senders();
    const auto layer = layer_of_receiver(receiver);
    return receiver == mlp_in(layer) && mlps ? before_mlp(layer) : before_attention(layer);
  }

  /// [senders, receivers] bool: which edges there are.
  [[nodiscard]] at::Tensor edge_mask() const {
    auto mask = make::zeros({senders(), receivers()}, at::kBool);
    for (std::int64_t r = 0; r < receivers(); ++r) mask.select(1, r).narrow(0, 0, before(r)).fill_(true);
    return mask;
  }

  friend bool operator==(const Components&, const Components&) = default;

 private:
  [[nodiscard]] std::int64_t senders_per_layer() const { return n_heads + (mlps ? 1 : 0); }
  [[nodiscard]] std::int64_t receivers_per_layer() const { return 3 * n_heads + (mlps ? 1 : 0); }
};

/// throws  ShapeError  unless `edges` is a matrix [senders, receivers] of these components
inline void check_edges(const at::Tensor& edges, const Components& components, std::string_view name) {
  check_shape(edges, {components.senders(), components.receivers()}, name, {}, "senders by receivers");
}

/// An attachment that keeps what each sender writes to the residual stream. A head's part excludes b_O, except behind a
/// post-norm, whose scale differs from run to run: there the heads share it, and what they write has passed the norm.
template <Architecture A>
class SenderRecorder {
 public:
  /// so_far  [senders of the layers below, batch, pos, d_model] of a run that goes on at some layer (`run_from`)
  explicit SenderRecorder(const HookedTransformer<A>& model, const at::Tensor& so_far = {})
      : model_{&model}, components_{Components::of(model)} {
    if (so_far.defined()) writes_ = so_far.unbind(0);
  }

  void visit(hook::resid_pre /*point*/, Layer layer, at::Tensor& value) {
    if (layer == Layer{0}) writes_ = {value};
  }
  void visit(hook::attn::z /*point*/, Layer layer, at::Tensor& value) { heads_ = head_writes(layer, value); }
  void visit(hook::ln1_post::scale /*point*/, Layer layer, at::Tensor& value) {
    const auto& w = model_->weights().blocks[static_cast<std::size_t>(layer.value)];
    if (w.attn.b_O.defined()) heads_ = heads_.add(w.attn.b_O.div(components_.n_heads));
    heads_ = A::Norm::unscaled(heads_, w.ln1_post).div(value);
  }
  void visit(hook::attn_out /*point*/, Layer /*layer*/, at::Tensor& /*value*/) {
    for (const auto& head : heads_.unbind(0)) writes_.push_back(head);
  }
  void visit(hook::mlp_out /*point*/, Layer /*layer*/, at::Tensor& value) { writes_.push_back(value); }

  /// What the senders so far wrote.  [senders so far, batch, pos, d_model]
  [[nodiscard]] at::Tensor writes() const { return make::stack(writes_); }

 private:
  /// z [batch, pos, head, d_head]   return [head, batch, pos, d_model]
  [[nodiscard]] at::Tensor head_writes(Layer layer, const at::Tensor& z) const {
    const auto& W_O = model_->weights().blocks[static_cast<std::size_t>(layer.value)].attn.W_O;
    return z.permute({2, 0, 1, 3}).matmul(widened(W_O).view({components_.n_heads, 1, -1, W_O.size(1)}));
  }

  const HookedTransformer<A>* model_;
  Components components_;
  at::Tensor heads_;
  std::vector<at::Tensor> writes_;
};

/// What each sender writes to the residual stream in a run.  [senders, batch, pos, d_model]
/// With the constants (b_O; none behind a post-norm) they add up to the stream.
template <Architecture A, class... Attached>
[[nodiscard]] at::Tensor sender_writes(const HookedTransformer<A>& model, const at::Tensor& tokens,
                                       Attached&&... attached) {
  SenderRecorder<A> recorder{model};
  static_cast<void>(model.run(tokens, attached..., recorder));
  return recorder.writes();
}

}  // namespace circuit
