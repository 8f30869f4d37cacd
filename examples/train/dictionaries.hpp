#pragma once

#include <ATen/core/Generator.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "language_model.hpp"

namespace train {

using Dictionary = circuit::SparseDictionary<>;

struct DictionaryOptions {
  std::int64_t attn_features = 768;  ///< of an attention SAE, before those that never fire are left out
  std::int64_t mlp_features = 512;   ///< of a transcoder
  int steps = 1800;
  double rate = 3e-3;
  double active = 13.0;      ///< wished mean number of active features per token
  std::int64_t free = 10;    ///< the strongest features per token, which pay no price for being active
  int resample_every = 200;  ///< steps between looks for features that never fire
};

/// One dictionary in training: acts = relu((x - b_in) W_enc + b_enc), out = acts W_dec + b_out.
///
/// Run and trained as a plain ReLU. Only features beyond the strongest `free` ones of a token pay for being active, so
/// the ones that matter are not shrunk, and the price follows the wished number of active features.
class DictionaryTrainer {
 public:
  /// x  [tokens, d_in] and y [tokens, d_out]: a sample that sets means and scales. An SAE has x = y.
  /// ties_bias  an SAE: what is subtracted on the way in is what is added on the way out
  DictionaryTrainer(const at::Tensor& x, const at::Tensor& y, bool ties_bias, const DictionaryOptions& options,
                    at::Generator random)
      : options_{options}, ties_bias_{ties_bias}, random_{std::move(random)} {
    center_in_ = x.mean(0);
    center_out_ = y.mean(0);
    size_in_ = rms(x.sub(center_in_));
    size_out_ = rms(y.sub(center_out_));
    const auto d_sae = std::min(ties_bias ? options.attn_features : options.mlp_features, x.size(0));
    const auto d_out = y.size(1);
    // Each feature starts as one token of the sample: it reads what that token held and writes what it wrote.
    const auto tokens = at::randperm(x.size(0), random_, at::kLong).narrow(0, 0, std::min(d_sae, x.size(0)));
    const auto rows = [&](const at::Tensor& values, const at::Tensor& center) {
      const auto chosen = values.sub(center).index_select(0, tokens);
      return chosen.div(chosen.norm(2, -1, /*keepdim=*/true).add(1e-6)).clone();
    };
    const auto W_enc = rows(x, center_in_).t().contiguous();
    const auto W_dec = rows(y, center_out_).mul(0.7);
    const auto b_enc = at::full({d_sae}, -0.3);
    adam_ = AdamW{{W_enc, b_enc, W_dec, at::zeros({d_out})}, 0.0, 0.99};
    for (const auto& param : adam_.params()) param.requires_grad_(true);
    fired_ = at::zeros({d_sae});
  }

  /// One step on a batch of tokens; return the mean number of active features.
  double step(const at::Tensor& raw_x, const at::Tensor& raw_y, int number) {
    const auto x = raw_x.sub(center_in_).div(size_in_);
    const auto y = raw_y.sub(center_out_).div(size_out_);
    const auto& [W_enc, b_enc, W_dec, b_dec] = parts();
    const c10::AutoGradMode with_gradient{true};
    const auto acts = x.matmul(W_enc).add(b_enc).relu();
    const auto error = acts.matmul(W_dec).add(b_dec).sub(y);
    const auto priced = acts.mul(W_dec.norm(2, -1));
    const auto least_free = std::get<0>(priced.detach().topk(options_.free, -1)).narrow(-1, options_.free - 1, 1);
    const auto tail = priced.mul(priced.detach().lt(least_free));
    const auto loss = error.pow(2).sum(-1).mean().add(tail.sum(-1).mean().mul(price_));
    const auto grads = circuit::gradient_of(loss, adam_.params());
    adam_.step(grads, 0, options_.rate * schedule(number, options_.steps, 50, 0.4));

    const c10::AutoGradMode no_gradient{false};
    const auto active = acts.detach().gt(0).to(at::kFloat);
    const double count = active.sum(-1).mean().item<double>();
    price_ = std::clamp(price_ * (1.0 + 0.02 * std::clamp(count / options_.active - 1.0, -1.0, 1.0)), 1e-3, 100.0);
    fired_.add_(active.sum(0));
    const bool late = number > options_.steps * 6 / 10;
    if ((number + 1) % options_.resample_every == 0 && !late) resample(x, error.detach());
    if (number == options_.steps * 7 / 10) fired_.zero_();  // what fires from here on is kept
    return count;
  }

  /// The dictionary in the activations' own units, rounded to float16's values. Features that hardly ever fired while
  /// the rate fell are left out: they describe nothing.
  [[nodiscard]] Dictionary finish(const std::string& name) const {
    const c10::AutoGradMode no_gradient{false};
    const auto half = [](const at::Tensor& t) { return t.detach().to(at::kHalf).to(at::kFloat).contiguous(); };
    const auto kept = fired_.ge(least_fired).nonzero().squeeze(-1);
    const auto W_enc = parts().W_enc.index_select(1, kept);
    const auto b_enc = parts().b_enc.index_select(0, kept);
    const auto W_dec = parts().W_dec.index_select(0, kept);
    const auto b_dec = parts().b_dec;
    // Rows of W_dec of length 1, so that an activation is the length of what it writes.
    const auto length = W_dec.norm(2, -1).clamp_min(1e-6);
    Dictionary dictionary;
    dictionary.name = name;
    dictionary.W_enc = half(W_enc.mul(length).mul(size_out_ / size_in_));
    dictionary.W_dec = half(W_dec.div(length.unsqueeze(-1)));
    dictionary.b_out = half(b_dec.mul(size_out_).add(center_out_));
    auto bias = b_enc.mul(length).mul(size_out_);
    if (ties_bias_) {
      dictionary.b_in = dictionary.b_out;
      bias = bias.add(dictionary.b_in.sub(center_in_).matmul(dictionary.W_enc));
    } else {
      bias = bias.sub(center_in_.matmul(dictionary.W_enc));
    }
    dictionary.b_enc = half(bias);
    return dictionary;
  }

 private:
  struct Parts {
    at::Tensor W_enc, b_enc, W_dec, b_dec;
  };
  [[nodiscard]] Parts parts() const {
    const auto& p = adam_.params();
    return {p[0], p[1], p[2], p[3]};
  }

  static double rms(const at::Tensor& centered) {
    return std::sqrt(centered.pow(2).sum(-1).mean().item<double>()) + 1e-9;
  }

  /// Features that never fired since the last look are set on tokens that are described worst.
  void resample(const at::Tensor& x, const at::Tensor& error) {
    const auto dead = fired_.eq(0).nonzero().squeeze(-1);
    fired_.zero_();
    const auto count = std::min<std::int64_t>(dead.numel(), x.size(0) / 2);
    if (count == 0) return;
    const auto chosen = dead.narrow(0, 0, count);
    const auto badness = error.pow(2).sum(-1);
    const auto tokens = at::multinomial(badness.add(1e-9), count, /*replacement=*/false, random_);
    const auto [W_enc, b_enc, W_dec, b_dec] = parts();
    const auto unit = [](const at::Tensor& rows) { return rows.div(rows.norm(2, -1, /*keepdim=*/true).add(1e-9)); };
    const auto reader = unit(x.index_select(0, tokens));
    W_enc.index_copy_(1, chosen, reader.t());
    W_dec.index_copy_(0, chosen, unit(error.index_select(0, tokens)).neg().mul(0.5));
    b_enc.index_copy_(0, chosen, x.index_select(0, tokens).norm(2, -1).mul(-0.6));
    adam_.forget(0, 1, chosen);
    adam_.forget(1, 0, chosen);
    adam_.forget(2, 0, chosen);
  }

  static constexpr double least_fired = 5.0;
  DictionaryOptions options_;
  bool ties_bias_;
  at::Generator random_;
  at::Tensor center_in_;
  at::Tensor center_out_;
  double size_in_ = 1.0;
  double size_out_ = 1.0;
  AdamW adam_{{}};
  double price_ = 0.02;
  at::Tensor fired_;
};

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

/// A dictionary per module of every layer.
struct Dictionaries {
  std::vector<Dictionary> attn;
  std::vector<Dictionary> mlp;
};

template <class Report>
[[nodiscard]] Dictionaries train_dictionaries(const Model& model, TextStream& text, const DictionaryOptions& options,
                                              at::Generator& random, Report&& report) {
  std::vector<DictionaryTrainer> attn;
  std::vector<DictionaryTrainer> mlp;
  std::vector<Batch> first;
  for (int i = 0; i < 8; ++i) {
    for (auto& part : text.next()) first.push_back(std::move(part));
  }
  const auto sample = record_modules(model, first);
  for (std::size_t l = 0; l < sample.z.size(); ++l) {
    attn.emplace_back(sample.z[l], sample.z[l], /*ties_bias=*/true, options, random);
    mlp.emplace_back(sample.mlp_in[l], sample.mlp_out[l], /*ties_bias=*/false, options, random);
  }
  for (int step = 0; step < options.steps; ++step) {
    const auto seen = record_modules(model, text.next());
    double active = 0.0;
    for (std::size_t l = 0; l < attn.size(); ++l) {
      active += attn[l].step(seen.z[l], seen.z[l], step);
      active += mlp[l].step(seen.mlp_in[l], seen.mlp_out[l], step);
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
