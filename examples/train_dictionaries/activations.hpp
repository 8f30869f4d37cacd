#pragma once

#include <cstdint>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/token_rows.hpp"
#include "circuit/dictionary/train/activation_stream.hpp"
#include "circuit/evaluate/dictionary_quality.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/written_rows.hpp"
#include "options.hpp"

namespace train_dictionaries {

using Rows = std::vector<std::vector<std::int32_t>>;

/// Rows of any source.
struct AnyRows {
  std::function<Rows(std::int64_t, std::int64_t)> get;

  [[nodiscard]] Rows rows(std::int64_t first, std::int64_t count) { return get(first, count); }
};

/// A model as training sees it, whichever its architecture.
struct Activations {
  std::vector<circuit::DictionaryHooks> sites;
  circuit::weights::Processing processing;
  std::int64_t n_layers;
  std::function<std::vector<circuit::train::TokenBatch>()> sample;
  std::function<std::vector<circuit::train::TokenBatch>()> next;
  std::function<circuit::train::Place()> place;
  std::function<void(circuit::train::Place)> seek;
  std::function<circuit::DictionaryQuality(const std::vector<circuit::PlacedDictionary>&)> measure;
};

[[nodiscard]] inline std::vector<circuit::DictionaryHooks> sites_of(const Options& o, std::int64_t n_layers) {
  std::vector<circuit::DictionaryHooks> sites;
  const auto block = [](std::int32_t layer) { return "blocks." + std::to_string(layer) + '.'; };
  auto attn = o.attn;
  auto mlp = o.mlp;
  if (attn.empty() && mlp.empty() && o.sites.empty()) {
    for (std::int32_t l = 0; l < n_layers; ++l) mlp.push_back(l);
    if (!o.cross_layer) attn = mlp;
  }
  for (const auto l : attn) sites.push_back({block(l) + "attn.hook_z", block(l) + "attn.hook_z"});
  for (const auto l : mlp) sites.push_back({block(l) + "ln2.hook_normalized", block(l) + "hook_mlp_out"});
  for (const auto& site : o.sites) {
    const auto colon = site.find(':');
    sites.push_back({site.substr(0, colon), colon == site.npos ? site : site.substr(colon + 1)});
  }
  return sites;
}

/// What is trained on, and rows to measure on that are never trained on.
struct Split {
  AnyRows training;
  Rows held_out;
};

[[nodiscard]] inline AnyRows any_rows(auto source) {
  auto shared = std::make_shared<decltype(source)>(std::move(source));
  return {[shared](std::int64_t first, std::int64_t count) { return shared->rows(first, count); }};
}

[[nodiscard]] inline Split split(circuit::data::TextRows rows, std::int64_t held_out) {
  auto taken = rows.hold_out(held_out);
  return {any_rows(std::move(rows)), std::move(taken)};
}

/// Rows without end, and others of the same kind. rows_by(seed) gives a source.
[[nodiscard]] Split split_by_seed(std::uint64_t seed, std::int64_t held_out, auto&& rows_by) {
  return {any_rows(rows_by(seed)), rows_by(seed + 1'000'000).rows(0, held_out)};
}

/// What the model writes itself.
template <circuit::Architecture A>
[[nodiscard]] Split split_written(const Options& o, const circuit::HookedTransformer<A>& model, std::int64_t held_out) {
  const auto rows_by = [&](std::uint64_t seed) {
    return circuit::WrittenRows<A>{model,
                                   {.first = o.written_first.value_or(model.tokenizer().bos_id().value_or(0)),
                                    .length = static_cast<std::int64_t>(o.length),
                                    .seed = seed,
                                    .rows_per_run = o.stream.rows_per_run}};
  };
  if (o.written_rows == 0) return split_by_seed(o.training.seed, held_out, rows_by);
  std::cerr << "the model writes " << o.written_rows << " rows\n";
  return split(circuit::data::TextRows{rows_by(o.training.seed).rows(0, o.written_rows), o.training.seed}, held_out);
}

/// The text that the flags name; of several kinds, one row of each in turn.
template <circuit::Architecture A>
[[nodiscard]] Split split_rows(const Options& o, const circuit::HookedTransformer<A>& model) {
  const auto& tokenizer = model.tokenizer();
  const auto by_seed = [&](std::uint64_t seed) {
    return circuit::data::RowOptions{.length = o.length,
                                     .cut = o.lines ? circuit::data::Cut::lines : circuit::data::Cut::packed,
                                     .bos = o.bos ? circuit::Bos::prepend : circuit::Bos::none,
                                     .seed = seed};
  };
  const auto kinds = (o.text.empty() ? 0 : 1) + (o.written ? 1 : 0) + (o.uses_tasks() ? 1 : 0);
  const auto held_out = (o.held_out + kinds - 1) / kinds;
  std::vector<Split> parts;
  if (!o.text.empty()) {
    parts.push_back(split(circuit::data::TextRows{tokenizer, o.text, by_seed(o.training.seed)}, held_out));
  }
  if (o.written) parts.push_back(split_written(o, model, held_out));
  if (o.uses_tasks()) {
    parts.push_back(split_by_seed(o.training.seed, held_out, [&](std::uint64_t seed) {
      return circuit::data::TaskRows{tokenizer, by_seed(seed)};
    }));
  }
  std::vector<AnyRows> sources;
  Rows rest;
  for (auto& part : parts) {
    sources.push_back(std::move(part.training));
    rest.insert(rest.end(), part.held_out.begin(), part.held_out.end());
  }
  return {any_rows(circuit::data::RowsInTurn{std::move(sources)}), std::move(rest)};
}

/// Calls use(activations) with all that training needs of a model.
template <circuit::Architecture A, class Use>
void with_activations(const Options& o, const circuit::HookedTransformer<A>& model, Use&& use) {
  auto [training, held_out] = split_rows(o, model);
  auto sites = sites_of(o, model.config().n_layers);
  circuit::train::ActivationStream stream{model, training, sites, o.stream};
  use(Activations{.sites = std::move(sites),
                  .processing = model.processing(),
                  .n_layers = model.config().n_layers,
                  .sample = [&] { return stream.sample(); },
                  .next = [&] { return stream.next(); },
                  .place = [&] { return stream.place(); },
                  .seek = [&](circuit::train::Place place) { stream.seek(place); },
                  .measure =
                      [&, rows = std::move(held_out)](const auto& dictionaries) {
                        return circuit::measure_quality(model, dictionaries, rows, {.skip = o.stream.skip});
                      }});
}

}  // namespace train_dictionaries
