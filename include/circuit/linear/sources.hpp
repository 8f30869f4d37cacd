#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/linear/linearization.hpp"

namespace circuit {

/// Modules by their place along the residual stream: attention of layer l at 2 l, its MLP at 2 l + 1, the metric after
/// all. What is upstream of a depth has a smaller one.
[[nodiscard]] constexpr std::int64_t attn_depth(Layer layer) { return 2 * layer.value; }
[[nodiscard]] constexpr std::int64_t mlp_depth(Layer layer) { return 2 * layer.value + 1; }

/// What an upstream node's activation counts for.
template <class C>
concept ContrastRule = requires(const C& c, double clean, double corrupt) {
  { c.activation(clean, corrupt) } -> std::convertible_to<double>;
  { C::needs_corrupt } -> std::convertible_to<bool>;
};

/// The upstream nodes of one position, over all prompts, ordered by depth.
struct SourceTable {
  std::vector<Node> nodes;
  std::vector<std::int64_t> before;  ///< [depths + 1]  how many nodes lie before each depth
};

/// What the upstream nodes of one position write on one prompt, packed so that "before depth D" is a prefix of rows.
struct SourceBlock {
  std::vector<std::int64_t> ids;      ///< [rows]  index into the position's table, ascending
  at::Tensor effect;                  ///< [rows, d_model]  write vector, or the vector contrasted for nodes that depend on the run
  std::vector<double> activation;     ///< [rows]  contrast activation; 1 for errors, outputs and embeddings
  std::vector<std::int64_t> before;   ///< [depths + 1]
  at::Tensor rest;                    ///< [rest rows, d_model]  clean write vectors of the nodes that depend on the run
  std::vector<std::int64_t> rest_of;  ///< [rows]  row in `rest`, or -1 for a feature

  /// The row of a table entry, or -1 where this prompt does not have it.
  [[nodiscard]] std::int64_t row_of(std::int64_t id) const {
    const auto found = std::lower_bound(ids.begin(), ids.end(), id);
    return found == ids.end() || *found != id ? -1 : found - ids.begin();
  }
};

/// All upstream nodes of a batch. Only active features are touched: their write vectors are gathered once.
class Sources {
 public:
  [[nodiscard]] const SourceTable& table(Position p) const { return tables_[static_cast<std::size_t>(p.value)]; }
  [[nodiscard]] const SourceBlock& block(Prompt b, Position p) const {
    return blocks_[static_cast<std::size_t>(b.value * length() + p.value)];
  }
  [[nodiscard]] std::int32_t length() const { return static_cast<std::int32_t>(tables_.size()); }
  [[nodiscard]] std::int32_t batch() const { return static_cast<std::int32_t>(blocks_.size() / tables_.size()); }

  /// split_embedding  token and position embeddings as two nodes per position
  template <Architecture A, Dictionaries Set, ContrastRule Contrast>
  static Sources pack(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& linearization,
                      const Contrast& contrast, bool split_embedding);

 private:
  std::vector<SourceTable> tables_;  // [pos]
  std::vector<SourceBlock> blocks_;  // [batch * pos]
};

/// Write vectors of features in the residual stream. features [n] int64  return [n, d_model]
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor attn_writes(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                     const at::Tensor& features) {
  const auto rows = dictionaries.attn(layer)->decoder_rows(features);
  if (dictionaries.attn_site(layer) == AttentionSite::attn_out) return rows;
  return rows.matmul(model.weights().blocks[static_cast<std::size_t>(layer.value)].attn.W_O);
}

template <Dictionaries Set>
[[nodiscard]] at::Tensor mlp_writes(const Set& dictionaries, Layer layer, const at::Tensor& features) {
  return dictionaries.mlp(layer)->decoder_rows(features);
}

}  // namespace circuit

namespace circuit::detail {

/// One feature of one row with its activation in both runs.
struct PairedActivation {
  std::int64_t feature;
  double clean;
  double corrupt;
};

/// The features active in either run at one row, ascending. `corrupt` may be null.
template <class Scalar>
[[nodiscard]] std::vector<PairedActivation> pair_row(const ActiveFeatures& clean, const ActiveFeatures* corrupt,
                                                     std::int64_t row) {
  std::vector<PairedActivation> out;
  const auto* a = clean.activation.defined() ? data_of<Scalar>(clean.activation) : nullptr;
  const auto* b = corrupt != nullptr && corrupt->activation.defined()
                      ? data_of<Scalar>(corrupt->activation)
                      : nullptr;
  auto i = clean.begin(row);
  auto j = corrupt != nullptr ? corrupt->begin(row) : 0;
  const auto i_end = clean.end(row);
  const auto j_end = corrupt != nullptr ? corrupt->end(row) : 0;
  const auto feature_of = [](const ActiveFeatures& f, std::int64_t k) { return f.feature[static_cast<std::size_t>(k)]; };
  while (i < i_end || j < j_end) {
    const bool take_clean = i < i_end && (j >= j_end || feature_of(clean, i) <= feature_of(*corrupt, j));
    const bool take_corrupt = j < j_end && (i >= i_end || feature_of(*corrupt, j) <= feature_of(clean, i));
    out.push_back({take_clean ? feature_of(clean, i) : feature_of(*corrupt, j),
                   take_clean ? static_cast<double>(a[i]) : 0.0, take_corrupt ? static_cast<double>(b[j]) : 0.0});
    i += take_clean ? 1 : 0;
    j += take_corrupt ? 1 : 0;
  }
  return out;
}

[[nodiscard]] inline std::vector<PairedActivation> pair_row(const ActiveFeatures& clean, const ActiveFeatures* corrupt,
                                                            std::int64_t row, at::ScalarType dtype) {
  return dtype == at::kDouble ? pair_row<double>(clean, corrupt, row) : pair_row<float>(clean, corrupt, row);
}

/// Sorted distinct features of one module over a set of rows.
[[nodiscard]] inline std::vector<std::int64_t> distinct(std::vector<std::int64_t> features) {
  std::sort(features.begin(), features.end());
  features.erase(std::unique(features.begin(), features.end()), features.end());
  return features;
}

[[nodiscard]] inline std::int64_t place_of(const std::vector<std::int64_t>& sorted, std::int64_t value) {
  return std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin();
}

/// Fills tables and blocks module by module, in depth order.
template <ContrastRule Contrast>
class SourcePacker {
 public:
  SourcePacker(const Linearization& linearization, const Contrast& contrast)
      : linearization_{linearization},
        contrast_{contrast},
        batch_{linearization.batch()},
        length_{linearization.length()},
        tables(static_cast<std::size_t>(length_)),
        blocks(static_cast<std::size_t>(batch_ * length_)),
        parts_(blocks.size()),
        rests_(blocks.size()) {}

  /// An embedding: one node per position, of which only the token's part differs between runs.
  void add_rest(NodeKind kind, Layer layer, const at::Tensor& clean, const at::Tensor& corrupt) {
    const auto effect = corrupt.defined() ? clean.sub(corrupt) : clean;
    for (std::int64_t p = 0; p < length_; ++p) {
      auto& table = tables[static_cast<std::size_t>(p)];
      const auto id = static_cast<std::int64_t>(table.nodes.size());
      table.nodes.push_back({kind, layer, Position{static_cast<std::int32_t>(p)}, Feature{0}});
      for (std::int64_t b = 0; b < batch_; ++b) {
        const auto slot = static_cast<std::size_t>(b * length_ + p);
        auto& block = blocks[slot];
        block.rest_of.push_back(static_cast<std::int64_t>(rests_[slot].size()));
        block.ids.push_back(id);
        block.activation.push_back(1.0);
        parts_[slot].push_back(effect.select(0, b).narrow(0, p, 1));
        rests_[slot].push_back(clean.select(0, b).narrow(0, p, 1));
      }
    }
  }

  /// The features of one module. writes(ids) gives write vectors [n, d_model] of distinct features.
  template <class Writes>
  void add_features(NodeKind kind, Layer layer, const ActiveFeatures& clean, const ActiveFeatures* corrupt,
                    Writes&& writes) {
    std::vector<std::vector<PairedActivation>> rows(static_cast<std::size_t>(batch_ * length_));
    std::vector<std::int64_t> all;
    const auto dtype = linearization_.clean.embed.scalar_type();
    for (std::size_t r = 0; r < rows.size(); ++r) {
      rows[r] = pair_row(clean, corrupt, static_cast<std::int64_t>(r), dtype);
      for (const auto& entry : rows[r]) all.push_back(entry.feature);
    }
    all = distinct(std::move(all));
    if (all.empty()) return;
    const at::Tensor written = writes(ids_tensor(all));
    for (std::int64_t p = 0; p < length_; ++p) add_position(kind, layer, p, rows, all, written);
  }

  /// Closes depth `depth`: nodes added so far lie before it.
  void close_depth() {
    for (auto& table : tables) table.before.push_back(static_cast<std::int64_t>(table.nodes.size()));
    for (auto& block : blocks) block.before.push_back(static_cast<std::int64_t>(block.ids.size()));
  }

  void finish() {
    for (std::size_t slot = 0; slot < blocks.size(); ++slot) {
      blocks[slot].effect = at::cat(parts_[slot], 0);
      blocks[slot].rest = at::cat(rests_[slot], 0);
      parts_[slot].clear();
    }
  }

 private:
  void add_position(NodeKind kind, Layer layer, std::int64_t p, const std::vector<std::vector<PairedActivation>>& rows,
                    const std::vector<std::int64_t>& all, const at::Tensor& written) {
    std::vector<std::int64_t> here;
    for (std::int64_t b = 0; b < batch_; ++b) {
      for (const auto& entry : rows[static_cast<std::size_t>(b * length_ + p)]) here.push_back(entry.feature);
    }
    here = distinct(std::move(here));
    auto& table = tables[static_cast<std::size_t>(p)];
    const auto first = static_cast<std::int64_t>(table.nodes.size());
    for (const auto feature : here) {
      table.nodes.push_back({kind, layer, Position{static_cast<std::int32_t>(p)}, Feature{static_cast<std::int32_t>(feature)}});
    }
    for (std::int64_t b = 0; b < batch_; ++b) {
      const auto slot = static_cast<std::size_t>(b * length_ + p);
      auto& block = blocks[slot];
      std::vector<std::int64_t> from;
      for (const auto& entry : rows[slot]) {
        block.ids.push_back(first + place_of(here, entry.feature));
        block.activation.push_back(contrast_.activation(entry.clean, entry.corrupt));
        block.rest_of.push_back(-1);
        from.push_back(place_of(all, entry.feature));
      }
      if (!from.empty()) parts_[slot].push_back(written.index_select(0, ids_tensor(from).to(written.device())));
    }
  }

  const Linearization& linearization_;
  const Contrast& contrast_;
  std::int64_t batch_;
  std::int64_t length_;

 public:
  std::vector<SourceTable> tables;
  std::vector<SourceBlock> blocks;

 private:
  std::vector<std::vector<at::Tensor>> parts_;
  std::vector<std::vector<at::Tensor>> rests_;
};

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set, ContrastRule Contrast>
Sources Sources::pack(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& lin,
                      const Contrast& contrast, bool split_embedding) {
  const c10::AutoGradMode no_gradient{false};
  detail::SourcePacker packer{lin, contrast};
  const bool paired = Contrast::needs_corrupt;
  const auto other = [&](const at::Tensor& corrupt) { return paired ? corrupt : at::Tensor{}; };

  if (split_embedding || !lin.clean.pos_embed.defined()) {
    packer.add_rest(NodeKind::embedding, Layer{0}, lin.clean.embed, other(lin.corrupt.embed));
    if (lin.clean.pos_embed.defined()) {
      packer.add_rest(NodeKind::position_embedding, Layer{0}, lin.clean.pos_embed, other(lin.corrupt.pos_embed));
    }
  } else {
    packer.add_rest(NodeKind::embedding, Layer{0}, lin.clean.embed.add(lin.clean.pos_embed),
                    paired ? lin.corrupt.embed.add(lin.corrupt.pos_embed) : at::Tensor{});
  }
  packer.close_depth();
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const Layer layer{l};
    const auto slot = static_cast<std::size_t>(l);
    const auto add = [&](bool read, NodeKind feature, NodeKind error, NodeKind output, const auto& clean,
                         const auto& corrupt, auto&& writes) {
      if (read) packer.add_features(feature, layer, clean[slot].features, paired ? &corrupt[slot].features : nullptr, writes);
      packer.add_rest(read ? error : output, layer, clean[slot].rest, paired ? corrupt[slot].rest : at::Tensor{});
      packer.close_depth();
    };
    add(dictionaries.attn(layer) != nullptr, NodeKind::attn_feature, NodeKind::attn_error, NodeKind::attn_output,
        lin.clean.attn, lin.corrupt.attn,
        [&](const at::Tensor& ids) { return attn_writes(model, dictionaries, layer, ids.to(model.device())); });
    add(dictionaries.mlp(layer) != nullptr, NodeKind::mlp_feature, NodeKind::mlp_error, NodeKind::mlp_output,
        lin.clean.mlp, lin.corrupt.mlp,
        [&](const at::Tensor& ids) { return mlp_writes(dictionaries, layer, ids.to(model.device())); });
  }
  packer.finish();
  Sources out;
  out.tables_ = std::move(packer.tables);
  out.blocks_ = std::move(packer.blocks);
  return out;
}

}  // namespace circuit
