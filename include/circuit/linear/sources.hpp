#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/graph/node.hpp"
#include "circuit/linear/depth.hpp"
#include "circuit/linear/linearization.hpp"

namespace circuit {

/// What an upstream node's activation counts for.
template <class C>
concept ContrastRule = requires(const C& c, double clean, double corrupt) {
  { c.activation(clean, corrupt) } -> std::convertible_to<double>;
  { C::needs_corrupt } -> std::convertible_to<bool>;
};

/// Which nodes count as upstream besides features.
struct SourceOptions {
  bool errors = true;  ///< error terms, and whole outputs of modules without a dictionary
  bool embeddings = true;
  bool split_embedding = false;  ///< token and position embeddings as two nodes per position
};

/// Write vectors that are read together, in depth order: a prompt reads those of features active on several prompts and
/// those active on it alone.
struct WriteBlock {
  std::optional<Prompt> only;  ///< the one prompt that its features are active on; none: all prompts read it
  at::Tensor writes;           ///< [writes, d_model]; one tensor for neighbouring positions with the same features
  std::vector<std::int64_t>
      feature;  ///< [writes]  the position's feature that each is of; ascending, unless cross-layer
                ///< features write several times
  std::vector<std::int64_t> before;  ///< [depths + 1]  how many are written before each depth

  [[nodiscard]] bool read_on(Prompt b) const { return !only || *only == b; }
};

/// The upstream nodes of one position over all prompts, in depth order, so that what a target reads is one run of
/// them. Features write in the same direction on every prompt, scaled by their activation (and, behind a post-norm, by the
/// prompt's own scale); the rest (errors, outputs, embeddings) writes another vector on each.
struct PositionSources {
  std::vector<Node> features;
  std::vector<std::int64_t> features_before;  ///< [depths + 1]  how many lie before each depth
  std::vector<WriteBlock> blocks;             ///< what the features write
  std::vector<double> activation;     ///< [batch * features]  contrast activation, in units of the write vectors
  std::vector<double> unit;           ///< [batch * features]  what one unit of activation is there; empty: 1
  std::vector<std::uint8_t> present;  ///< [batch * features]  active on the prompt's clean or corrupt run

  std::vector<Node> rest;
  std::vector<std::int64_t> rest_before;  ///< [depths + 1]
  at::Tensor rest_effect;                 ///< [batch, rest, d_model]  contrasted write vectors
  at::Tensor rest_writes;                 ///< [batch, rest, d_model]  clean write vectors

  /// How many nodes a target reads here.
  [[nodiscard]] std::int64_t count(const Upstream& range) const {
    return range.count(features_before) + range.count(rest_before);
  }
  /// The i-th of them: features first, then the rest.
  [[nodiscard]] const Node& node(std::int64_t i, const Upstream& range) const {
    const auto of_features = range.count(features_before);
    return i < of_features ? features[static_cast<std::size_t>(range.first(features_before) + i)]
                           : rest[static_cast<std::size_t>(range.first(rest_before) + i - of_features)];
  }
  /// Where a prompt's value of a feature stands in `activation` and `present`.
  [[nodiscard]] std::size_t slot(Prompt b, std::int64_t feature) const {
    return static_cast<std::size_t>(b.value) * features.size() + static_cast<std::size_t>(feature);
  }
  [[nodiscard]] double unit_at(std::size_t place) const { return unit.empty() ? 1.0 : unit[place]; }
  /// Calls use(write vector [d_model], depth) for everything that a feature writes.
  template <class Use>
  void for_each_write(std::int64_t feature, Use&& use) const;
};

/// All upstream nodes of a batch. Only active features are touched: their write vectors are gathered once per position.
class Sources {
 public:
  [[nodiscard]] const PositionSources& at(Position p) const { return positions_[static_cast<std::size_t>(p.value)]; }
  [[nodiscard]] std::int32_t length() const { return static_cast<std::int32_t>(positions_.size()); }
  [[nodiscard]] std::int32_t batch() const { return batch_; }

  template <Architecture A, Dictionaries Set, ContrastRule Contrast>
  static Sources pack(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& linearization,
                      const Contrast& contrast, const SourceOptions& options = {});

 private:
  std::vector<PositionSources> positions_;
  std::int32_t batch_ = 0;
};

template <class Use>
void PositionSources::for_each_write(std::int64_t feature, Use&& use) const {
  std::size_t writes = 0;
  for (const auto& block : blocks) writes += block.feature.size();
  const bool once = writes == features.size();  // then each block's are ascending
  for (const auto& block : blocks) {
    const auto begin = block.feature.begin();
    const auto end = block.feature.end();
    auto found = once ? std::lower_bound(begin, end, feature) : std::find(begin, end, feature);
    if (once && found != end && *found != feature) continue;
    for (; found != end; found = once ? end : std::find(std::next(found), end, feature)) {
      const auto row = found - begin;
      use(block.writes.select(0, row), std::ranges::upper_bound(block.before, row) - block.before.begin() - 1);
    }
  }
}

/// Write vectors of features in the residual stream; those that pass a post-norm before they are divided by its scale.
/// features [n] int64  return [n, d_model]
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor attn_writes(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                     const at::Tensor& features) {
  const auto rows = require(dictionaries.attn(layer)).decoder_rows(features);
  if (dictionaries.attn_site(layer) == AttentionSite::attn_out) return rows;
  const auto& block = model.weights().blocks[static_cast<std::size_t>(layer.value)];
  const auto written = product(rows, block.attn.W_O);
  if constexpr (A::Wiring::post_norms) return A::Norm::unscaled(written, block.ln1_post);
  return written;
}

/// The same of an MLP's features.
/// ahead  how many layers after their own: more than 0 for cross-layer features
template <Architecture A, Dictionaries Set>
[[nodiscard]] at::Tensor mlp_writes(const HookedTransformer<A>& model, const Set& dictionaries, Layer layer,
                                    const at::Tensor& features, std::int64_t ahead = 0) {
  const auto rows = require(dictionaries.mlp(layer)).decoder_rows(features, ahead);
  if constexpr (mlp_writes_pass_post_norm<A, Set>) {
    return A::Norm::unscaled(rows, model.weights().blocks[static_cast<std::size_t>(layer.value)].ln2_post);
  } else {
    return rows;
  }
}

}  // namespace circuit

namespace circuit::detail {

/// One feature of one row with its activation in both runs, in units of its write vector.
struct PairedActivation {
  std::int64_t feature;
  double clean;
  double corrupt;
  double unit = 1.0;  // of the clean run's activation
};

/// The features active in either run at one row, ascending. `corrupt` may be null.
template <class Scalar>
[[nodiscard]] std::vector<PairedActivation> pair_row(const ActiveFeatures& clean, const ActiveFeatures* corrupt,
                                                     std::int64_t row) {
  std::vector<PairedActivation> out;
  const auto* a = clean.activation.defined() ? data_of<Scalar>(clean.activation) : nullptr;
  const auto* b = corrupt != nullptr && corrupt->activation.defined() ? data_of<Scalar>(corrupt->activation) : nullptr;
  auto i = clean.begin(row);
  auto j = corrupt != nullptr ? corrupt->begin(row) : 0;
  const auto i_end = clean.end(row);
  const auto j_end = corrupt != nullptr ? corrupt->end(row) : 0;
  const auto feature_of = [](const ActiveFeatures& f, std::int64_t k) {
    return f.feature[static_cast<std::size_t>(k)];
  };
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

[[nodiscard]] inline std::int64_t place_of(const std::vector<std::int64_t>& sorted, std::int64_t value) {
  return std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin();
}

/// Turns activations into units of the write vectors, where those are divided by a scale of each row.
inline void divide_by_scales(std::vector<std::vector<PairedActivation>>& rows, const ModuleState& clean,
                             const ModuleState* corrupt) {
  const auto host = [](const at::Tensor& scale) { return scale.to(at::kCPU, at::kDouble).contiguous(); };
  const auto of_clean = host(clean.write_scale);
  const auto of_corrupt = host(corrupt != nullptr ? corrupt->write_scale : clean.write_scale);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (auto& entry : rows[r]) {
      entry.unit = 1.0 / data_of<double>(of_clean)[r];
      entry.clean *= entry.unit;
      entry.corrupt /= data_of<double>(of_corrupt)[r];
    }
  }
}

/// Fills the positions module by module, in depth order.
template <ContrastRule Contrast>
class SourcePacker {
 public:
  SourcePacker(const Linearization& linearization, const Contrast& contrast)
      : contrast_{contrast},
        batch_{linearization.batch()},
        length_{linearization.length()},
        dtype_{linearization.clean.embed.scalar_type()},
        like_{linearization.clean.embed},
        positions_(static_cast<std::size_t>(length_)),
        parts_(positions_.size()),
        written_(positions_.size()),
        block_of_(positions_.size()) {
    std::vector<WriteBlock> blocks(1);
    for (std::int32_t b = 0; b < batch_ && batch_ > 1; ++b) blocks.emplace_back().only = Prompt{b};
    for (std::size_t p = 0; p < positions_.size(); ++p) {
      positions_[p].blocks = blocks;
      written_[p].resize(blocks.size());
    }
  }

  /// One node per position that writes `clean` [batch, pos, d_model]; corrupt is undefined without contrast.
  void add_rest(NodeKind kind, Layer layer, const at::Tensor& clean, const at::Tensor& corrupt) {
    for (std::int64_t p = 0; p < length_; ++p) {
      positions_[static_cast<std::size_t>(p)].rest.push_back(
          {kind, layer, Position{static_cast<std::int32_t>(p)}, Feature{0}});
    }
    rest_writes_.push_back(clean);
    rest_effect_.push_back(corrupt.defined() ? clean.sub(corrupt) : clean);
  }

  /// Gives write vectors [n, d_model] of distinct features, [n] int64.
  using Writes = std::function<at::Tensor(const at::Tensor&)>;

  /// The features of one module.
  void add_features(NodeKind kind, Layer layer, const ModuleState& clean, const ModuleState* corrupt,
                    const Writes& writes) {
    Rows rows(static_cast<std::size_t>(batch_ * length_));
    std::vector<std::int64_t> all;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      rows[r] = pair_row(clean.features, corrupt != nullptr ? &corrupt->features : nullptr,
                         static_cast<std::int64_t>(r), dtype_);
      for (const auto& entry : rows[r]) all.push_back(entry.feature);
    }
    if (clean.write_scale.defined()) divide_by_scales(rows, clean, corrupt);
    all = distinct(std::move(all));
    if (all.empty()) return;
    const at::Tensor written = writes(ids_tensor(all));
    const bool scaled = clean.write_scale.defined();
    for (std::int64_t p = 0; p < length_; ++p) add_position(kind, layer, p, rows, all, written, scaled);
  }

  /// What features of an earlier layer's MLP, added before, write once more.
  void add_later_writes(Layer layer, const Writes& writes) {
    std::vector<std::int64_t> all;
    for (const auto& here : positions_) {
      for (const auto& node : here.features) {
        if (node.kind == NodeKind::mlp_feature && node.layer == layer) all.push_back(node.feature.value);
      }
    }
    all = distinct(std::move(all));
    if (all.empty()) return;
    const at::Tensor written = writes(ids_tensor(all));
    for (std::size_t p = 0; p < positions_.size(); ++p) add_later_position(layer, p, all, written);
  }

  /// Closes a depth: the nodes added so far lie before the next.
  void close_depth() {
    for (auto& here : positions_) {
      here.features_before.push_back(static_cast<std::int64_t>(here.features.size()));
      for (auto& block : here.blocks) block.before.push_back(static_cast<std::int64_t>(block.feature.size()));
      here.rest_before.push_back(static_cast<std::int64_t>(here.rest.size()));
    }
  }

  [[nodiscard]] std::vector<PositionSources> finish() &&;

 private:
  using Rows = std::vector<std::vector<PairedActivation>>;
  /// The values of one module's features at one position on every prompt.
  struct Part {
    std::vector<double> activation;  // [batch * features of the part]
    std::vector<std::uint8_t> present;
    std::vector<double> unit;  // empty: 1
  };

  void add_position(NodeKind kind, Layer layer, std::int64_t p, const Rows& rows, const std::vector<std::int64_t>& all,
                    const at::Tensor& written, bool scaled);
  void add_later_position(Layer layer, std::size_t p, const std::vector<std::int64_t>& all, const at::Tensor& written);
  /// Gives some of a position's features, the first of them `first`, their rows of `written`, each in its block.
  /// here  which of a module's features they are, ascending   all  those that `written` has rows of
  void add_writes(std::size_t p, std::size_t first, const std::vector<std::int64_t>& here,
                  const std::vector<std::int64_t>& all, const at::Tensor& written);
  /// The block of each feature of a part.
  [[nodiscard]] std::vector<std::size_t> blocks_of(const Part& part) const;

  const Contrast& contrast_;
  std::int64_t batch_;
  std::int64_t length_;
  at::ScalarType dtype_;
  at::Tensor like_;
  std::vector<PositionSources> positions_;
  std::vector<std::vector<Part>> parts_;                       // [pos][module]
  std::vector<std::vector<std::vector<at::Tensor>>> written_;  // [pos][block][module]  rows of the block's writes
  std::vector<std::vector<std::size_t>> block_of_;             // [pos][feature]
  std::vector<at::Tensor> rest_writes_;                        // [rest]  [batch, pos, d_model]
  std::vector<at::Tensor> rest_effect_;
};

template <ContrastRule Contrast>
void SourcePacker<Contrast>::add_position(NodeKind kind, Layer layer, std::int64_t p, const Rows& rows,
                                          const std::vector<std::int64_t>& all, const at::Tensor& written,
                                          bool scaled) {
  std::vector<std::int64_t> here;
  for (std::int64_t b = 0; b < batch_; ++b) {
    for (const auto& entry : rows[static_cast<std::size_t>(b * length_ + p)]) here.push_back(entry.feature);
  }
  here = distinct(std::move(here));
  if (here.empty()) return;
  auto& position = positions_[static_cast<std::size_t>(p)];
  const auto first = position.features.size();
  for (const auto feature : here) {
    position.features.push_back(
        {kind, layer, Position{static_cast<std::int32_t>(p)}, Feature{static_cast<std::int32_t>(feature)}});
  }
  const auto size = static_cast<std::size_t>(batch_) * here.size();
  Part part{std::vector<double>(size, 0.0), std::vector<std::uint8_t>(size, 0),
            std::vector<double>(scaled ? size : 0, 1.0)};
  for (std::int64_t b = 0; b < batch_; ++b) {
    for (const auto& entry : rows[static_cast<std::size_t>(b * length_ + p)]) {
      const auto slot =
          static_cast<std::size_t>(b) * here.size() + static_cast<std::size_t>(place_of(here, entry.feature));
      part.activation[slot] = contrast_.activation(entry.clean, entry.corrupt);
      part.present[slot] = 1;
      if (scaled) part.unit[slot] = entry.unit;
    }
  }
  auto& blocks = block_of_[static_cast<std::size_t>(p)];
  std::ranges::copy(blocks_of(part), std::back_inserter(blocks));
  add_writes(static_cast<std::size_t>(p), first, here, all, written);
  parts_[static_cast<std::size_t>(p)].push_back(std::move(part));
}

template <ContrastRule Contrast>
void SourcePacker<Contrast>::add_later_position(Layer layer, std::size_t p, const std::vector<std::int64_t>& all,
                                                const at::Tensor& written) {
  std::vector<std::int64_t> here;
  std::size_t first = 0;
  const auto& nodes = positions_[p].features;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind != NodeKind::mlp_feature || nodes[i].layer != layer) continue;
    if (here.empty()) first = i;
    here.push_back(nodes[i].feature.value);
  }
  if (!here.empty()) add_writes(p, first, here, all, written);
}

template <ContrastRule Contrast>
std::vector<std::size_t> SourcePacker<Contrast>::blocks_of(const Part& part) const {
  const auto count = part.present.size() / static_cast<std::size_t>(batch_);
  std::vector<std::size_t> out(count, 0);
  if (batch_ == 1) return out;
  for (std::size_t i = 0; i < count; ++i) {
    std::size_t prompts = 0;
    std::size_t last = 0;
    for (std::size_t b = 0; b < static_cast<std::size_t>(batch_); ++b) {
      if (part.present[b * count + i] == 0) continue;
      ++prompts;
      last = b;
    }
    if (prompts == 1) out[i] = last + 1;
  }
  return out;
}

template <ContrastRule Contrast>
void SourcePacker<Contrast>::add_writes(std::size_t p, std::size_t first, const std::vector<std::int64_t>& here,
                                        const std::vector<std::int64_t>& all, const at::Tensor& written) {
  auto& blocks = positions_[p].blocks;
  std::vector<std::vector<std::int64_t>> rows(blocks.size());
  for (std::size_t i = 0; i < here.size(); ++i) {
    const auto block = block_of_[p][first + i];
    blocks[block].feature.push_back(static_cast<std::int64_t>(first + i));
    rows[block].push_back(place_of(all, here[i]));
  }
  for (std::size_t k = 0; k < blocks.size(); ++k) {
    if (rows[k].empty()) continue;
    const bool whole = rows[k].size() == all.size();  // then one tensor is shared by all positions
    written_[p][k].push_back(whole ? written : written.index_select(0, ids_tensor(rows[k]).to(written.device())));
  }
}

template <ContrastRule Contrast>
std::vector<PositionSources> SourcePacker<Contrast>::finish() && {
  const auto d_model = like_.size(-1);
  // Where neighbouring positions have the very same rows in the block of all prompts, they share one tensor.
  std::vector<at::Tensor> last_rows;
  at::Tensor last_writes;
  const auto joined = [&](std::vector<at::Tensor>& rows) {
    return rows.empty() ? make::zeros({0, d_model}, like_.options()) : make::cat(rows, 0);
  };
  const auto shared = [&](std::vector<at::Tensor>& rows) {
    const auto same = [](const at::Tensor& a, const at::Tensor& b) { return a.is_same(b); };
    if (!last_writes.defined() || !std::ranges::equal(rows, last_rows, same)) {
      last_writes = joined(rows);
      last_rows = rows;
    }
    return last_writes;
  };
  for (std::size_t p = 0; p < positions_.size(); ++p) {
    auto& here = positions_[p];
    auto& parts = parts_[p];
    for (std::size_t k = 0; k < here.blocks.size(); ++k) {
      auto& rows = written_[p][k];
      here.blocks[k].writes = k == 0 ? shared(rows) : joined(rows);
      rows.clear();
    }
    const bool scaled = std::ranges::any_of(parts, [](const Part& part) { return !part.unit.empty(); });
    for (std::int64_t b = 0; b < batch_; ++b) {
      for (const auto& part : parts) {
        const auto n = static_cast<std::ptrdiff_t>(part.present.size()) / batch_;
        here.activation.insert(here.activation.end(), part.activation.begin() + b * n,
                               part.activation.begin() + (b + 1) * n);
        here.present.insert(here.present.end(), part.present.begin() + b * n, part.present.begin() + (b + 1) * n);
        if (!part.unit.empty()) {
          here.unit.insert(here.unit.end(), part.unit.begin() + b * n, part.unit.begin() + (b + 1) * n);
        } else if (scaled) {
          here.unit.insert(here.unit.end(), static_cast<std::size_t>(n), 1.0);
        }
      }
    }
    parts.clear();
    const auto stacked = [&](const std::vector<at::Tensor>& rest) {
      std::vector<at::Tensor> rows;
      for (const auto& r : rest) rows.push_back(r.select(1, static_cast<std::int64_t>(p)));
      return rows.empty() ? make::zeros({batch_, 0, d_model}, like_.options()) : make::stack(rows, 1);
    };
    here.rest_writes = stacked(rest_writes_);
    here.rest_effect = stacked(rest_effect_);
  }
  return std::move(positions_);
}

}  // namespace circuit::detail

namespace circuit {

template <Architecture A, Dictionaries Set, ContrastRule Contrast>
Sources Sources::pack(const HookedTransformer<A>& model, const Set& dictionaries, const Linearization& lin,
                      const Contrast& contrast, const SourceOptions& options) {
  const c10::AutoGradMode no_gradient{false};
  detail::SourcePacker packer{lin, contrast};
  const bool paired = Contrast::needs_corrupt;
  const auto other = [&](const at::Tensor& corrupt) { return paired ? corrupt : at::Tensor{}; };

  const bool joined = lin.clean.pos_embed.defined() && !options.split_embedding;
  if (options.embeddings && joined) {
    packer.add_rest(NodeKind::embedding, Layer{0}, lin.clean.embed.add(lin.clean.pos_embed),
                    paired ? lin.corrupt.embed.add(lin.corrupt.pos_embed) : at::Tensor{});
  } else if (options.embeddings) {
    packer.add_rest(NodeKind::embedding, Layer{0}, lin.clean.embed, other(lin.corrupt.embed));
    if (lin.clean.pos_embed.defined()) {
      packer.add_rest(NodeKind::position_embedding, Layer{0}, lin.clean.pos_embed, other(lin.corrupt.pos_embed));
    }
  }
  packer.close_depth();
  const auto add_stream = [&](Layer layer) {
    if (const auto* dictionary = stream_dictionary(dictionaries, layer)) {
      const auto slot = static_cast<std::size_t>(layer.value);
      const auto& clean = lin.clean.stream[slot];
      const auto* corrupt = paired ? &lin.corrupt.stream[slot] : nullptr;
      packer.add_features(NodeKind::resid_feature, layer, clean, corrupt,
                          [&](const at::Tensor& ids) { return dictionary->decoder_rows(ids.to(model.device())); });
      if (options.errors) {
        packer.add_rest(NodeKind::resid_error, layer, clean.rest, paired ? corrupt->rest : at::Tensor{});
      }
    }
    packer.close_depth();
  };
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const Layer layer{l};
    const auto slot = static_cast<std::size_t>(l);
    add_stream(layer);
    const auto add = [&](bool read, NodeKind feature, NodeKind error, NodeKind output, const auto& clean,
                         const auto& corrupt, auto&& writes) {
      if (read) {
        packer.add_features(feature, layer, clean[slot], paired ? &corrupt[slot] : nullptr, writes);
      }
      if (options.errors && clean[slot].rest.defined()) {
        packer.add_rest(read ? error : output, layer, clean[slot].rest, paired ? corrupt[slot].rest : at::Tensor{});
      }
      packer.close_depth();
    };
    if (has_transparent_attention(dictionaries, layer)) {
      packer.close_depth();  // no node
    } else {
      add(dictionaries.attn(layer) != nullptr, NodeKind::attn_feature, NodeKind::attn_error, NodeKind::attn_output,
          lin.clean.attn, lin.corrupt.attn,
          [&](const at::Tensor& ids) { return attn_writes(model, dictionaries, layer, ids.to(model.device())); });
    }
    if constexpr (!has_mlp<A>) {
      packer.close_depth();
      continue;
    }
    for_each_cross_layer(dictionaries, layer, [&](Layer from, std::int64_t ahead) {
      packer.add_later_writes(from, [&](const at::Tensor& ids) {
        return mlp_writes(model, dictionaries, from, ids.to(model.device()), ahead);
      });
    });
    add(dictionaries.mlp(layer) != nullptr, NodeKind::mlp_feature, NodeKind::mlp_error, NodeKind::mlp_output,
        lin.clean.mlp, lin.corrupt.mlp,
        [&](const at::Tensor& ids) { return mlp_writes(model, dictionaries, layer, ids.to(model.device())); });
  }
  add_stream(Layer{static_cast<std::int32_t>(model.config().n_layers)});
  Sources out;
  out.batch_ = static_cast<std::int32_t>(lin.batch());
  out.positions_ = std::move(packer).finish();
  return out;
}

}  // namespace circuit
