#pragma once

#include <ATen/ops/cat.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/dictionary/train/activation/relu.hpp"
#include "circuit/dictionary/train/trainer.hpp"
#include "language_model.hpp"

namespace train {

using Dictionary = circuit::SparseDictionary<>;

struct DictionaryOptions {
  std::int64_t attn_features = 768;  ///< of an attention SAE, before those that never fire are left out
  std::int64_t mlp_features = 512;   ///< of a transcoder
  int steps = 1800;
  double rate = 3e-3;
  double active = 11.6;      ///< wished mean number of active features per token
  std::int64_t free = 10;    ///< the strongest features per token, which pay no price for being active
  int resample_every = 200;  ///< steps between looks for features that never fire
};

/// Run and trained as a plain ReLU. Only features beyond the strongest `free` ones of a token pay for being active, so
/// the ones that matter are not shrunk, and the price follows the wished number of active features.
using DictionaryTrainer = circuit::train::Trainer<circuit::train::Relu, circuit::train::dead::Resampled>;

/// x  [tokens, d_in] and y [tokens, d_out]: a sample that sets means and scales; the same tensor for an SAE.
[[nodiscard]] inline DictionaryTrainer make_trainer(const at::Tensor& x, const at::Tensor& y, std::int64_t features,
                                                    const DictionaryOptions& o, std::uint64_t seed) {
  using namespace circuit::train;
  return {x,
          y,
          x.is_same(y) ? Target::same : Target::other,
          {.features = std::min(features, x.size(0)),
           .schedule = {.steps = o.steps, .rate = o.rate, .warm_up = 50, .decay = 0.4},
           .decoder = DecoderRows::free,
           .clip = 0.0,
           .least_fired = 5.0,  // features that hardly ever fire while the rate falls describe nothing
           .seed = seed},
          {.price = {.price = 0.02, .wished = o.active, .lowest = 1e-3}, .free = o.free},
          {.every = o.resample_every}};
}

/// What every module of a model read and wrote on a batch, tokens in rows, padding left out.
struct ModuleActivations {
  std::vector<at::Tensor> z;        ///< per layer [tokens, heads * d_head]
  std::vector<at::Tensor> mlp_in;   ///< per layer [tokens, d_model]: ln2.hook_normalized
  std::vector<at::Tensor> mlp_out;  ///< per layer [tokens, d_model]
};

[[nodiscard]] inline at::Tensor real_tokens(const Batch& batch) {
  auto real = batch.weights.gt(0);
  real.select(1, 0).fill_(true);  // the BOS
  return real.flatten().nonzero().squeeze(-1);
}

[[nodiscard]] inline ModuleActivations record_modules(const Model& model, const Batch& batch) {
  const auto [logits, cache] = model.run(
      batch.tokens, circuit::record<circuit::hook::attn::z, circuit::hook::ln2::normalized, circuit::hook::mlp_out>());
  const auto rows = real_tokens(batch);
  ModuleActivations result;
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const circuit::Layer layer{l};
    const auto pick = [&](const at::Tensor& value) { return value.flatten(0, 1).flatten(1).index_select(0, rows); };
    result.z.push_back(pick(cache.template get<circuit::hook::attn::z>(layer)));
    result.mlp_in.push_back(pick(cache.template get<circuit::hook::ln2::normalized>(layer)));
    result.mlp_out.push_back(pick(cache.template get<circuit::hook::mlp_out>(layer)));
  }
  return result;
}

/// The same for several batches, token after token.
[[nodiscard]] inline ModuleActivations record_modules(const Model& model, const std::vector<Batch>& batches) {
  std::vector<ModuleActivations> seen;
  for (const auto& batch : batches) seen.push_back(record_modules(model, batch));
  ModuleActivations all;
  for (std::size_t l = 0; l < static_cast<std::size_t>(model.config().n_layers); ++l) {
    const auto join = [&](auto member) {
      std::vector<at::Tensor> parts;
      for (const auto& part : seen) parts.push_back((part.*member)[l]);
      (all.*member).push_back(at::cat(parts));
    };
    join(&ModuleActivations::z);
    join(&ModuleActivations::mlp_in);
    join(&ModuleActivations::mlp_out);
  }
  return all;
}

/// The parts of the next `count` batches.
[[nodiscard]] inline std::vector<Batch> next_batches(TextStream& text, int count) {
  std::vector<Batch> batches;
  for (int i = 0; i < count; ++i) {
    for (auto& part : text.next()) batches.push_back(std::move(part));
  }
  return batches;
}

/// A dictionary per module of every layer.
struct Dictionaries {
  std::vector<Dictionary> attn;
  std::vector<Dictionary> mlp;
};

template <class Report>
[[nodiscard]] Dictionaries train_dictionaries(const Model& model, TextStream& text, const DictionaryOptions& options,
                                              std::uint64_t seed, Report&& report) {
  std::vector<DictionaryTrainer> attn;
  std::vector<DictionaryTrainer> mlp;
  const auto sample = record_modules(model, next_batches(text, 8));
  for (std::size_t l = 0; l < sample.z.size(); ++l) {
    attn.push_back(make_trainer(sample.z[l], sample.z[l], options.attn_features, options, seed++));
    mlp.push_back(make_trainer(sample.mlp_in[l], sample.mlp_out[l], options.mlp_features, options, seed++));
  }
  for (int step = 0; step < options.steps; ++step) {
    const auto seen = record_modules(model, text.next());
    double active = 0.0;
    for (std::size_t l = 0; l < attn.size(); ++l) {
      active += attn[l].step(seen.z[l], seen.z[l]).active;
      active += mlp[l].step(seen.mlp_in[l], seen.mlp_out[l]).active;
    }
    report(step + 1, active / static_cast<double>(2 * attn.size()));
  }
  Dictionaries result;
  for (std::size_t l = 0; l < attn.size(); ++l) {
    const auto block = "blocks." + std::to_string(l) + '.';
    result.attn.push_back(attn[l].finish(block + "attn.hook_z"));
    result.mlp.push_back(mlp[l].finish(block + "ln2.hook_normalized"));
  }
  return result;
}

}  // namespace train
