#pragma once

#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/architecture/gpt2.hpp"
#include "circuit/model/gradient.hpp"
#include "circuit/model/hooked_transformer.hpp"
#include "circuit/model/process_weights.hpp"
#include "optimizer.hpp"
#include "text.hpp"

namespace train {

using Model = circuit::HookedTransformer<circuit::Gpt2>;

/// The weights as two groups: matrices between hidden layers, and all else.
struct Parameters {
  std::vector<at::Tensor> hidden;
  std::vector<at::Tensor> other;
  std::vector<at::Tensor> biases;

  [[nodiscard]] std::vector<at::Tensor> all() const {
    auto every = hidden;
    every.insert(every.end(), other.begin(), other.end());
    every.insert(every.end(), biases.begin(), biases.end());
    return every;
  }
};

/// The first layer of the upper half.
[[nodiscard]] inline std::int64_t upper_half(const circuit::ModelConfig& config) {
  return std::max<std::int64_t>(1, config.n_layers / 2);
}

/// Where training starts. Random weights, except for what lets heads that look words up form in minutes, not hours:
/// - positions are sines and cosines in the upper half of the stream, so that a word's lower half says only which word;
/// - head h of layer 0 attends `offsets[h]` tokens back and copies the word there into a subspace of its own;
/// - head h of the first layer of the upper half asks for its own word in that subspace, that is, for the place that
/// many
///   tokens behind an earlier occurrence (an induction head);
/// - from that layer on, heads copy the lower half of what they see, as an unembedding tied to the embedding can read.
/// Every weight is trained from there.
/// The idea is mimetic initialization's (Trockman and Kolter 2023, arXiv 2305.09828).
class InitialWeights {
 public:
  InitialWeights(const circuit::ModelConfig& config, at::Generator& random) : c_{config}, random_{random} {}

  [[nodiscard]] circuit::ModelWeights make() {
    circuit::ModelWeights w;
    w.W_E = normal(c_.d_vocab, c_.d_model, 0.1);
    w.W_pos = at::zeros({c_.n_ctx, c_.d_model});
    w.W_pos.narrow(1, half(), half()).copy_(sinusoids());
    for (std::int64_t l = 0; l < c_.n_layers; ++l) w.blocks.push_back(block(l));
    w.ln_final = norm();
    w.W_U = w.W_E.t();  // tied: what writes a word's embedding says the word
    return w;
  }

 private:
  static constexpr std::int64_t offsets[8] = {1, 2, 1, 2, 3, 4, 5, 6};

  [[nodiscard]] std::int64_t half() const { return c_.d_model / 2; }
  [[nodiscard]] std::int64_t frequencies() const { return c_.d_model / 4; }
  [[nodiscard]] double frequency(std::int64_t i) const {
    return 2.5 * std::exp(-static_cast<double>(i) / static_cast<double>(frequencies() - 1) * std::log(50.0));
  }

  at::Tensor normal(std::int64_t rows, std::int64_t columns, double size) {
    return at::empty({rows, columns}).normal_(0.0, size, random_);
  }
  [[nodiscard]] circuit::NormWeights norm() const { return {at::ones({c_.d_model}), at::zeros({c_.d_model})}; }

  [[nodiscard]] at::Tensor sinusoids() const {
    constexpr double size = 0.3;
    auto table = at::empty({c_.n_ctx, half()});
    auto* out = table.data_ptr<float>();
    for (std::int64_t p = 0; p < c_.n_ctx; ++p) {
      for (std::int64_t i = 0; i < frequencies(); ++i) {
        *out++ = static_cast<float>(size * std::sin(static_cast<double>(p) * frequency(i)));
        *out++ = static_cast<float>(size * std::cos(static_cast<double>(p) * frequency(i)));
      }
    }
    return table;
  }

  circuit::BlockWeights block(std::int64_t layer) {
    constexpr double writer = 0.005;  // small, so that what layer 0 copied reaches the upper half undisturbed
    circuit::BlockWeights b;
    b.ln1 = norm();
    const double looks = layer == 0 ? 0.02 : 0.06;
    b.attn = {.W_Q = normal(c_.d_model, c_.d_model, looks),
              .W_K = normal(c_.d_model, c_.d_model, looks),
              .W_V = at::zeros({c_.d_model, c_.d_model}),
              .W_O = at::zeros({c_.d_model, c_.d_model}),
              .b_Q = at::zeros({c_.d_model}),
              .b_K = at::zeros({c_.d_model}),
              .b_V = at::zeros({c_.d_model}),
              .b_O = at::zeros({c_.d_model})};
    b.ln2 = norm();
    b.mlp = {.W_gate = {},
             .W_in = normal(c_.d_model, c_.d_mlp, 0.06),
             .W_out = normal(c_.d_mlp, c_.d_model, writer),
             .b_gate = {},
             .b_in = at::zeros({c_.d_mlp}),
             .b_out = at::zeros({c_.d_model})};
    for (std::int64_t h = 0; h < c_.n_heads; ++h) set_head(b.attn, layer, h);
    return b;
  }

  void set_head(circuit::AttentionWeights& attn, std::int64_t layer, std::int64_t h) {
    const auto columns = [&](const at::Tensor& w) { return w.narrow(1, h * c_.d_head, c_.d_head); };
    const auto writes = attn.W_O.narrow(0, h * c_.d_head, c_.d_head);
    const auto reads_word = [&] {
      auto reader = at::zeros({c_.d_model, c_.d_head});
      reader.narrow(0, 0, half()).copy_(normal(half(), c_.d_head, 1.0 / std::sqrt(static_cast<double>(half()))));
      return reader;
    };
    const auto noise = [&] { return normal(c_.d_model, c_.d_head, 0.02); };
    if (layer == 0) {
      look_back(columns(attn.W_Q), columns(attn.W_K), offsets[h % 8], h % 4);
      word_readers_.push_back(reads_word());
      word_writers_.push_back(orthonormal_rows(c_.d_head));
      columns(attn.W_V).copy_(word_readers_.back());
      writes.copy_(word_writers_.back().mul(0.25));
    } else if (layer < upper_half(c_)) {
      columns(attn.W_V).copy_(normal(c_.d_model, c_.d_head, 0.06));
      writes.copy_(normal(c_.d_head, c_.d_model, 0.005));
    } else {
      const auto word = reads_word();
      columns(attn.W_V).copy_(word);
      writes.copy_(word.t().mul(0.075));
      if (layer > upper_half(c_)) return;
      const auto& reader = word_readers_[static_cast<std::size_t>(h)];
      const auto& writer = word_writers_[static_cast<std::size_t>(h)];
      columns(attn.W_Q).copy_(reader.mul(look_up).add(noise()));
      columns(attn.W_K).copy_(writer.t().mul(look_up).add(noise()));
    }
  }

  /// Queries are turned by `offset` positions, so that they match the key of the token that far back.
  void look_back(at::Tensor queries, at::Tensor keys, std::int64_t offset, std::int64_t first) const {
    constexpr double sharpness = 1.2;
    for (std::int64_t j = 0; j < c_.d_head / 2; ++j) {
      const auto i = (first + 4 * j) % frequencies();
      const auto row = half() + 2 * i;
      const double angle = frequency(i) * static_cast<double>(offset);
      const auto add = [](at::Tensor& w, std::int64_t r, std::int64_t column, double value) {
        w[r][column].add_(value);
      };
      add(keys, row, 2 * j, sharpness);
      add(keys, row + 1, 2 * j + 1, sharpness);
      add(queries, row, 2 * j, sharpness * std::cos(angle));
      add(queries, row + 1, 2 * j, -sharpness * std::sin(angle));
      add(queries, row + 1, 2 * j + 1, sharpness * std::cos(angle));
      add(queries, row, 2 * j + 1, sharpness * std::sin(angle));
    }
  }

  /// Random rows [count, d_model] of length 1 at right angles (Gram and Schmidt).
  at::Tensor orthonormal_rows(std::int64_t count) {
    auto rows = normal(count, c_.d_model, 1.0);
    for (std::int64_t i = 0; i < count; ++i) {
      auto row = rows[i];
      if (i > 0) {
        const auto before = rows.narrow(0, 0, i);
        row.sub_(before.t().matmul(before.matmul(row)));
      }
      row.div_(row.norm());
    }
    return rows;
  }

  static constexpr double look_up = 2.5;
  const circuit::ModelConfig& c_;
  at::Generator& random_;
  std::vector<at::Tensor> word_readers_;  // per head of layer 0: [d_model, d_head]
  std::vector<at::Tensor> word_writers_;  // per head of layer 0: [d_head, d_model]
};

[[nodiscard]] inline Parameters parameters_of(const circuit::ModelWeights& w) {
  Parameters p;
  p.other = {w.W_E, w.W_pos};
  p.biases = {w.ln_final.gain, w.ln_final.bias};
  for (const auto& b : w.blocks) {
    p.hidden.insert(p.hidden.end(), {b.attn.W_Q, b.attn.W_K, b.attn.W_V, b.attn.W_O, b.mlp.W_in, b.mlp.W_out});
    p.biases.insert(p.biases.end(), {b.ln1.gain, b.ln1.bias, b.ln2.gain, b.ln2.bias, b.attn.b_Q, b.attn.b_K, b.attn.b_V,
                                     b.attn.b_O, b.mlp.b_in, b.mlp.b_out});
  }
  return p;
}

/// Minus the log-probability of each token given those before it. return [batch, pos - 1]
[[nodiscard]] inline at::Tensor token_losses(const at::Tensor& logits, const at::Tensor& tokens) {
  const auto length = tokens.size(1);
  const auto log_probs = at::log_softmax(logits.narrow(1, 0, length - 1), -1);
  return log_probs.gather(-1, tokens.narrow(1, 1, length - 1).unsqueeze(-1)).squeeze(-1).neg();
}

/// An attachment that adds up how much attention of some layers goes further back than `near` tokens, the BOS apart.
struct FarAttention {
  std::int64_t below;  ///< layers that count
  std::int64_t near;
  at::Tensor far{};  ///< [batch, pos]: summed over layers, averaged over heads

  void visit(circuit::hook::attn::pattern /*point*/, circuit::Layer layer, const at::Tensor& pattern) {
    if (layer.value >= below) return;
    auto too_far = at::ones({pattern.size(2), pattern.size(3)}, pattern.options()).tril(-near - 1);
    too_far.select(1, 0).zero_();
    const auto share = pattern.mul(too_far).sum(-1).mean(1);
    far = far.defined() ? far.add(share) : share;
  }
};

struct LanguageModelOptions {
  int steps = 3600;
  bool lists_first = true;    ///< a curriculum, for weights that know nothing yet
  bool hard = false;          ///< text with more of what is hard
  double hidden_rate = 0.02;  ///< Muon, for matrices between hidden layers
  double other_rate = 2e-3;   ///< Adam, for embeddings, unembedding, gains and biases
  double far_price = 2.0;     ///< loss per unit of attention that lower layers send further back than `near`
  std::int64_t near = 6;      ///< tokens; so that who is who is looked up in the upper half of the layers
};

/// Loss of a batch given in parts, weighted by what each token counts, and its gradient.
[[nodiscard]] inline std::pair<double, std::vector<at::Tensor>> loss_and_gradient(const circuit::ModelConfig& config,
                                                                                  circuit::ModelWeights weights,
                                                                                  const std::vector<Batch>& parts,
                                                                                  const std::vector<at::Tensor>& params,
                                                                                  const LanguageModelOptions& options) {
  double total = 0.0;
  for (const auto& part : parts) total += part.weights.sum().item<double>();
  double loss = 0.0;
  std::vector<at::Tensor> grads;
  for (const auto& part : parts) {
    const auto counts = part.weights.narrow(1, 1, part.weights.size(1) - 1);
    weights.W_U = weights.W_E.t();  // anew for each gradient graph
    const Model model{config, weights};
    FarAttention far{.below = upper_half(config), .near = options.near};
    const auto losses = token_losses(model.forward(part.tokens, far), part.tokens);
    const auto price = far.far.narrow(1, 1, losses.size(1)).mul(options.far_price);
    const auto mean = losses.add(price).mul(counts).sum().div(total);
    auto more = circuit::gradient_of(mean, params);
    loss += mean.item<double>();
    if (grads.empty()) {
      grads = std::move(more);
    } else {
      const c10::AutoGradMode no_gradient{false};
      for (std::size_t i = 0; i < grads.size(); ++i) grads[i] = grads[i].add(more[i]);
    }
  }
  return {loss, std::move(grads)};
}

/// How many lines out of ten are lists: all at first, none after a fifth of the training.
[[nodiscard]] inline std::size_t curriculum(int step, int steps) {
  const double done = static_cast<double>(step) / steps;
  return done < 0.06 ? 10 : done < 0.09 ? 8 : done < 0.13 ? 5 : done < 0.2 ? 3 : 0;
}

/// Trains `weights` in place. `report(step, loss)` is called now and then.
template <class Report>
void train_language_model(const circuit::ModelConfig& config, const circuit::ModelWeights& weights, TextStream& text,
                          const LanguageModelOptions& options, Report&& report) {
  const auto parameters = parameters_of(weights);
  const auto all = parameters.all();
  for (const auto& param : all) param.requires_grad_(true);
  Muon muon{parameters.hidden};
  AdamW adam{parameters.other, 0.05};
  AdamW adam_biases{parameters.biases};
  const c10::AutoGradMode with_gradient{true};
  double smooth = 0.0;
  for (int step = 0; step < options.steps; ++step) {
    const auto [value, grads] = loss_and_gradient(
        config, weights,
        text.next({.lists_in_ten = options.lists_first ? curriculum(step, options.steps) : 0, .hard = options.hard}),
        all, options);
    const double rate = schedule(step, options.steps, 100);
    muon.step(grads, 0, rate * options.hidden_rate);
    adam.step(grads, parameters.hidden.size(), rate * options.other_rate);
    adam_biases.step(grads, parameters.hidden.size() + parameters.other.size(), rate * options.other_rate);
    smooth = step == 0 ? value : 0.98 * smooth + 0.02 * value;
    report(step + 1, smooth);
  }
  for (const auto& param : all) param.requires_grad_(false);
}

/// Every weight rounded to float16's values, as a file will hold them.
inline void round_to_half(const circuit::ModelWeights& weights) {
  const c10::AutoGradMode no_gradient{false};
  for (const auto& param : parameters_of(weights).all()) param.copy_(param.to(at::kHalf).to(at::kFloat));
}

/// Token ids of prompts, grouped by length. return [(prompt numbers, tokens [n, pos])]
[[nodiscard]] inline std::vector<std::pair<std::vector<std::size_t>, at::Tensor>> grouped_tokens(
    const std::vector<TaskPrompt>& prompts, const circuit::Tokenizer& tokenizer) {
  std::map<std::size_t, std::pair<std::vector<std::size_t>, std::vector<std::vector<std::int32_t>>>> groups;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    auto ids = tokenizer.encode(circuit::data::text_of(prompts[i].clean), circuit::Bos::prepend);
    auto& [numbers, rows] = groups[ids.size()];
    numbers.push_back(i);
    rows.push_back(std::move(ids));
  }
  std::vector<std::pair<std::vector<std::size_t>, at::Tensor>> result;
  for (auto& [length, group] : groups) result.emplace_back(std::move(group.first), circuit::to_tokens(group.second));
  return result;
}

/// Share of prompts whose most likely next token, over the whole vocabulary, is among the answers.
template <class... Attached>
[[nodiscard]] double accuracy(const Model& model, const circuit::Tokenizer& tokenizer,
                              const std::vector<TaskPrompt>& prompts, Attached&&... attached) {
  const c10::AutoGradMode no_gradient{false};
  std::size_t right = 0;
  for (const auto& [numbers, tokens] : grouped_tokens(prompts, tokenizer)) {
    const auto best = model.forward(tokens, attached...).select(1, -1).argmax(-1);
    for (std::size_t row = 0; row < numbers.size(); ++row) {
      const auto text = tokenizer.token_text(best[static_cast<std::int64_t>(row)].item().toInt());
      const auto& answers = prompts[numbers[row]].answers;
      right += std::find(answers.begin(), answers.end(), text) != answers.end() ? 1U : 0U;
    }
  }
  return static_cast<double>(right) / static_cast<double>(prompts.size());
}

}  // namespace train
