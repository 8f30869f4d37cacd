#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/order.hpp"
#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/intervene/feature.hpp"
#include "circuit/intervene/part.hpp"
#include "circuit/intervene/splice.hpp"
#include "circuit/model/edit.hpp"

namespace circuit {

/// What becomes of one feature's activation a: scale * a + value.
struct FeatureEdit {
  FeatureId feature{};
  On where{};
  double scale = 0;
  at::Tensor value{};  ///< undefined for 0; a scalar; or [batch, positions] with the positions of `where`, 1 if in each
};

/// An attachment that edits activations of features, each as it is in the run at hand, and lets the module's output
/// change by what the edited features write. Only their encoder columns and decoder rows are touched.
///
/// With recomputed errors this equals subtracting from (or adding to) the original model. With frozen or dropped errors
/// every module with a dictionary gives its reconstruction and that error, as in `splice`.
///
/// Edits of one module belong in one attachment: a second one would encode what the first has changed.
template <class Set, ErrorPolicy Errors = error::Recomputed>
class FeatureEdits {
 public:
  static constexpr bool acts_at_modules = true;

  /// throws  NameError   for a layer without a dictionary
  /// throws  IndexError  for a feature that the dictionary does not have
  /// throws  ValueError  for no edits, or two of one feature at one position
  FeatureEdits(Set dictionaries, std::vector<FeatureEdit> edits, Errors errors = {});

  /// These edits and `other`'s, in one attachment.
  [[nodiscard]] FeatureEdits with(const FeatureEdits& other) const;

  /// throws  IndexError for a position that the run does not have, ShapeError for values of another batch,
  ///         ValueError for one position in each of another number of prompts
  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    modules_.visit(point, layer, value, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      return edited(module, l, input, output);
    });
  }

 private:
  /// Edits of one module at the same positions.
  struct Group {
    Module module;
    Layer layer;
    On where;
    at::Tensor features;                   // [n] int64
    std::vector<at::Tensor> decoder_rows;  // [n, d_out] of the feature's own layer and of those after it
    at::Tensor scale;                      // [n]
    at::Tensor value;                      // [n] or [batch, positions, n]
  };

  void check() const;
  void make_groups();
  [[nodiscard]] at::Tensor edited(Module module, Layer layer, const at::Tensor& input, const at::Tensor& output);
  [[nodiscard]] at::Tensor change(const Group& group, const at::Tensor& input) const;

  AtModules<Set> modules_;
  LaterWrites reconstructed_;  // by cross-layer features
  LaterWrites changed_;        // by edited ones among them
  std::vector<FeatureEdit> edits_;
  std::vector<Group> groups_;
  [[no_unique_address]] Errors errors_;
};

/// Edits of any mixture as one attachment.
template <class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] FeatureEdits<BasicDictionarySet<Kinds...>, Errors> edit_features(
    const BasicDictionarySet<Kinds...>& dictionaries, std::vector<FeatureEdit> edits, Errors errors = {}) {
  return {dictionaries, std::move(edits), std::move(errors)};
}

}  // namespace circuit

namespace circuit::detail {

/// Each prompt's own position as an index of `x` [batch, pos, d] along its positions, [batch, 1, d] int64.
[[nodiscard]] inline at::Tensor index_of_each(const std::vector<Position>& position_of, const at::Tensor& x) {
  check_one_per_prompt(position_of, x.size(0));
  return index_tensor(position_of, x.size(1), x).view({-1, 1, 1}).expand({-1, 1, x.size(2)});
}

/// The rows of x [batch, pos, d] there, [batch, positions, d].
[[nodiscard]] inline at::Tensor rows_on(const at::Tensor& x, const On& where) {
  if (where.everywhere()) return x;
  if (!where.position_of.empty()) return x.gather(1, index_of_each(where.position_of, x));
  return x.index_select(1, index_tensor(where.positions, x.size(1), x));
}

/// x with `change` [batch, positions, d] added there.
[[nodiscard]] inline at::Tensor add_on(const at::Tensor& x, const On& where, const at::Tensor& change) {
  if (where.everywhere()) return x.add(change);
  if (!where.position_of.empty()) return x.scatter_add(1, index_of_each(where.position_of, x), change);
  return x.index_add(1, index_tensor(where.positions, x.size(1), x), change);
}

/// Whether both act at one position of one prompt.
[[nodiscard]] inline bool overlap(const On& a, const On& b) {
  if (a.everywhere() || b.everywhere()) return true;
  if (!a.position_of.empty() && !b.position_of.empty()) {
    return !std::ranges::equal(a.position_of, b.position_of, std::ranges::not_equal_to{});
  }
  const auto& of_a = a.position_of.empty() ? a.positions : a.position_of;
  const auto& of_b = b.position_of.empty() ? b.positions : b.position_of;
  return std::ranges::find_first_of(of_a, of_b) != of_a.end();
}

/// Whether both act on one module at the same positions, with values of one shape.
[[nodiscard]] inline bool act_alike(const FeatureEdit& a, const FeatureEdit& b) {
  const auto shape = [](const at::Tensor& value) { return value.defined() ? value.sizes() : at::IntArrayRef{}; };
  return a.feature.module == b.feature.module && a.feature.layer == b.feature.layer && a.where == b.where &&
         shape(a.value) == shape(b.value);
}

/// Whether a list names a position twice.
[[nodiscard]] inline bool repeats(const std::vector<Position>& positions) {
  std::vector<std::int64_t> numbers;
  for (const auto position : positions) numbers.push_back(position.value);
  return distinct(std::move(numbers)).size() < positions.size();
}

/// Feature numbers as an index on the dictionary's device.
[[nodiscard]] inline at::Tensor feature_index(const std::vector<Feature>& features,
                                              const DictionaryWeights& dictionary) {
  return index_tensor(features, dictionary.d_sae(), dictionary.W_dec);
}

}  // namespace circuit::detail

namespace circuit {

template <class Set, ErrorPolicy Errors>
FeatureEdits<Set, Errors>::FeatureEdits(Set dictionaries, std::vector<FeatureEdit> edits, Errors errors)
    : modules_{std::move(dictionaries)}, edits_{std::move(edits)}, errors_{std::move(errors)} {
  check();
  make_groups();
}

template <class Set, ErrorPolicy Errors>
FeatureEdits<Set, Errors> FeatureEdits<Set, Errors>::with(const FeatureEdits& other) const {
  auto all = edits_;
  all.insert(all.end(), other.edits_.begin(), other.edits_.end());
  return {modules_.dictionaries(), std::move(all), errors_};
}

template <class Set, ErrorPolicy Errors>
void FeatureEdits<Set, Errors>::check() const {
  if (edits_.empty()) throw ValueError{{.tensor = "features", .expected = "at least one", .got = "none"}};
  const auto by_feature =
      detail::order_by(edits_.size(), [&](auto a, auto b) { return edits_[a].feature < edits_[b].feature; });
  for (std::size_t i = 0; i < by_feature.size(); ++i) {
    const auto& [id, where, scale, value] = edits_[by_feature[i]];
    require_feature(modules_.dictionaries(), id);
    bool twice = detail::repeats(where.positions);
    for (auto j = i; j-- > 0 && edits_[by_feature[j]].feature == id;) {
      twice = twice || detail::overlap(where, edits_[by_feature[j]].where);
    }
    if (twice) throw ValueError{{.tensor = to_string(id), .problem = "is edited twice at one position"}};
  }
}

template <class Set, ErrorPolicy Errors>
void FeatureEdits<Set, Errors>::make_groups() {
  std::vector<std::vector<std::size_t>> alike;
  for (std::size_t i = 0; i < edits_.size(); ++i) {
    const auto found = std::ranges::find_if(
        alike, [&](const auto& group) { return detail::act_alike(edits_[group.front()], edits_[i]); });
    (found != alike.end() ? *found : alike.emplace_back()).push_back(i);
  }
  for (const auto& members : alike) {
    const auto& [module, layer, first] = edits_[members.front()].feature;
    const auto& dictionary = *dictionary_of(modules_.dictionaries(), module, layer);
    const auto options = dictionary.options();
    std::vector<Feature> features;
    std::vector<at::Tensor> scales;
    std::vector<at::Tensor> values;
    for (const auto i : members) {
      const auto& edit = edits_[i];
      features.push_back(edit.feature.feature);
      scales.push_back(make::full({}, edit.scale, options));
      values.push_back(edit.value.defined() ? edit.value.to(options) : make::zeros({}, options));
    }
    const auto index = detail::feature_index(features, dictionary);
    std::vector<at::Tensor> rows;
    for (std::int64_t ahead = 0; ahead <= dictionary.later_layers(); ++ahead) {
      rows.push_back(dictionary.decoder_rows(index, ahead));
    }
    groups_.push_back({module, layer, edits_[members.front()].where, index, std::move(rows), make::stack(scales),
                       make::stack(values, -1)});
  }
}

template <class Set, ErrorPolicy Errors>
at::Tensor FeatureEdits<Set, Errors>::edited(Module module, Layer layer, const at::Tensor& input,
                                             const at::Tensor& output) {
  at::Tensor result;
  // Reconstruction and recomputed error are the output itself, so nothing but the edited features is encoded.
  if constexpr (!std::same_as<Errors, error::Recomputed>) {
    result = errors_.complete(module, layer, reconstruct(modules_.dictionaries(), module, layer, input, reconstructed_),
                              output);
  }
  if (module == Module::mlp) {
    const auto earlier = changed_.take(layer);
    if (earlier.defined()) result = (result.defined() ? result : output).add(earlier);
  }
  for (const auto& group : groups_) {
    if (group.module != module || group.layer != layer) continue;
    const auto more = change(group, input);
    result = detail::add_on(result.defined() ? result : output, group.where, more.matmul(group.decoder_rows[0]));
    for (std::size_t ahead = 1; ahead < group.decoder_rows.size(); ++ahead) {
      const auto written = more.matmul(group.decoder_rows[ahead]);
      changed_.add(layer, static_cast<std::int64_t>(ahead), detail::add_on(output.mul(0), group.where, written));
    }
  }
  return result;
}

/// How much more of their decoder rows the edited features write than they did, [batch, positions, n].
template <class Set, ErrorPolicy Errors>
at::Tensor FeatureEdits<Set, Errors>::change(const Group& group, const at::Tensor& input) const {
  const auto rows = detail::rows_on(input, group.where);
  const auto acts = encode(modules_.dictionaries(), group.module, group.layer, rows, group.features);
  if (group.value.dim() > 1) {
    check_shape(group.value, shape_of(acts), "values", {},
                "values are [batch, positions] of the run they are put into");
  }
  const auto& dictionary = *dictionary_of(modules_.dictionaries(), group.module, group.layer);
  return dictionary.in_writes(acts.mul(group.scale.sub(1)).add(group.value), rows);
}

}  // namespace circuit
