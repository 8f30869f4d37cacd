#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/make.hpp"
#include "circuit/model/architecture/plain.hpp"
#include "circuit/model/known/known_circuit.hpp"
#include "circuit/model/known/program.hpp"

namespace circuit {

/// A program as a transformer.
struct CompiledProgram {
  HookedTransformer<Plain> model;
  at::Tensor edges;                     ///< [senders, receivers] bool: those that carry what the words decide
  std::vector<std::int64_t> columns{};  ///< by variable: where its categories lie in the stream, one column each
};

struct CompileOptions {
  std::int64_t distractors = 3;  ///< heads, and neurons, in each layer that have no part in the program
  double sharpness = 6.0;        ///< by how much a matching key's score is above the others'; 80 and more: exact
  double noise = 0.1;            ///< how much a distractor writes to a column of the stream, about; 0: nothing
  std::uint64_t seed = 1;        ///< of the distractors
};

/// Makes weights that compute a program. Every variable has columns of the stream in which its category is one-hot; a
/// Gather is a head, a Map some neurons of an MLP, each in the first layer whose inputs are there. What the program says
/// reaches the logits from the stream. A step that the answer does not depend on is compiled and has no true edges.
/// throws  ValueError  for a program that says nothing, or more than there are tokens; maps of more than 65536 neurons
[[nodiscard]] inline CompiledProgram compile_program(const Program& program, const CompileOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

/// Where a step is: its layer, and its head or first neuron there.
struct StepPlace {
  Layer layer{0};
  std::int64_t index = 0;
};

/// Every combination of categories of some variables, the last changing fastest.
template <class Visit>
void for_each_combination(std::span<const Variable> of, Visit&& visit) {
  std::vector<std::int64_t> values(of.size(), 0);
  for (auto left = of.size() + 1; left > 0;) {
    visit(std::span<const std::int64_t>{values});
    for (left = of.size(); left > 0; --left) {
      if (++values[left - 1] < of[left - 1].categories) break;
      values[left - 1] = 0;
    }
  }
}

class ProgramCompiler {
 public:
  ProgramCompiler(const Program& program, const CompileOptions& options)
      : program_{program}, options_{options}, random_{options.seed} {
    check();
    place_variables();
    place_steps();
    set_sizes();
  }

  [[nodiscard]] CompiledProgram compiled() {
    auto weights = without_steps();
    for (std::size_t s = 0; s < places_.size(); ++s) {
      auto& block = weights.blocks[static_cast<std::size_t>(places_[s].layer.value)];
      std::visit([&](const auto& step) { write(step, places_[s].index, out_of(s), block); }, program_.steps()[s]);
    }
    CompiledProgram out{.model = {config_, std::move(weights)}, .edges = {}, .columns = columns_};
    out.edges = true_edges(Components::of(out.model));
    return out;
  }

 private:
  [[nodiscard]] std::int64_t column(Variable v) const { return columns_[v.index]; }
  [[nodiscard]] Variable out_of(std::size_t step) const { return program_.variables()[step + 2]; }
  [[nodiscard]] static std::int64_t neurons(const Map& map) {
    return std::accumulate(map.of.begin(), map.of.end(), std::int64_t{1},
                           [](auto n, const Variable& v) { return std::min<std::int64_t>(n * v.categories, 1 << 20); });
  }

  void check() const {
    const auto bad = [](const char* expected) { throw ValueError{{.tensor = "program", .expected = expected}}; };
    if (program_.answer().categories == 0) bad("an answer");
    if (program_.answer().categories > program_.words().categories) bad("an answer that is a token");
    if (options_.distractors < 0) bad("no fewer than 0 distractors");
    for (const auto& step : program_.steps()) {
      if (const auto* map = std::get_if<Map>(&step); map != nullptr && neurons(*map) > 65536) {
        bad("maps of at most 65536 combinations");
      }
    }
  }

  void place_variables() {
    for (const auto& v : program_.variables()) {
      columns_.push_back(config_.d_model);
      config_.d_model += v.categories;
    }
  }

  /// A variable's time is 0 in the embeddings, 2 l + 1 behind the heads of layer l and 2 l + 2 behind its MLP.
  void place_steps() {
    std::vector<std::int32_t> time(2, 0);
    std::map<std::int32_t, std::int64_t> heads;
    std::map<std::int32_t, std::int64_t> neurons_in;
    for (const auto& step : program_.steps()) {
      std::int32_t ready = 0;
      for (const auto& v : Program::reads(step)) ready = std::max(ready, time[v.index]);
      if (const auto* map = std::get_if<Map>(&step)) {
        const auto layer = ready / 2;
        places_.push_back({Layer{layer}, neurons_in[layer]});
        neurons_in[layer] += neurons(*map);
        time.push_back(2 * layer + 2);
      } else {
        const auto layer = (ready + 1) / 2;
        places_.push_back({Layer{layer}, heads[layer]++});
        time.push_back(2 * layer + 1);
      }
      config_.n_layers = std::max<std::int64_t>(config_.n_layers, places_.back().layer.value + 1);
    }
    config_.n_layers = std::max<std::int64_t>(config_.n_layers, 1);
    for (const auto& [layer, n] : heads) most_heads_ = std::max(most_heads_, n);
    for (const auto& [layer, n] : neurons_in) most_neurons_ = std::max(most_neurons_, n);
  }

  void set_sizes() {
    config_.n_heads = config_.n_key_value_heads = std::max<std::int64_t>(1, most_heads_ + options_.distractors);
    config_.d_mlp = std::max<std::int64_t>(1, most_neurons_ + options_.distractors);
    config_.d_vocab = program_.words().categories;
    config_.n_ctx = program_.places().categories;
    config_.d_head = 1;
    for (const auto& step : program_.steps()) {
      if (const auto* gather = std::get_if<Gather>(&step)) {
        config_.d_head = std::max({config_.d_head, gather->key.categories + 1 + config_.n_ctx, gather->categories});
      }
    }
  }

  /// The first heads and neurons of every layer are empty, the others distractors.
  [[nodiscard]] ModelWeights without_steps() {
    const auto& c = config_;
    ModelWeights w;
    w.W_E = make::zeros({c.d_vocab, c.d_model}, at::kDouble);
    set_diagonal(w.W_E, 0, column(program_.words()), c.d_vocab, 1);
    w.W_pos = make::zeros({c.n_ctx, c.d_model}, at::kDouble);
    set_diagonal(w.W_pos, 0, column(program_.places()), c.n_ctx, 1);
    for (std::int64_t l = 0; l < c.n_layers; ++l) {
      BlockWeights block;
      block.attn = distracting_attention(c, options_.noise / std::sqrt(static_cast<double>(c.d_head)), random_);
      clear_first_heads(block.attn, c.d_head, c.n_heads - options_.distractors);
      const auto by_hand = c.d_mlp - options_.distractors;
      block.mlp.W_in = random_.matrix(c.d_model, c.d_mlp, options_.noise);
      block.mlp.W_in.narrow(1, 0, by_hand).zero_();
      block.mlp.b_in = make::zeros({c.d_mlp}, at::kDouble);
      block.mlp.W_out = random_.matrix(c.d_mlp, c.d_model, options_.noise);
      block.mlp.W_out.narrow(0, 0, by_hand).zero_();
      w.blocks.push_back(block);
    }
    w.W_U = make::zeros({c.d_model, c.d_vocab}, at::kDouble);
    set_diagonal(w.W_U, column(program_.answer()), 0, program_.answer().categories, 5);
    return w;
  }

  void write(const Gather& step, std::int64_t head, Variable out, BlockWeights& block) const {
    const auto first = head * config_.d_head;
    const auto part = [&](const at::Tensor& W) { return W.narrow(1, first, config_.d_head); };
    const auto W_Q = part(block.attn.W_Q);
    const auto W_K = part(block.attn.W_K);
    const auto W_V = part(block.attn.W_V);
    for (std::int64_t k = 0; k < step.key.categories; ++k) {
      for (std::int64_t q = 0; q < step.query.categories; ++q) {
        if (step.matches(q, k)) W_Q[column(step.query) + q][k].fill_(options_.sharpness);
      }
    }
    set_diagonal(W_K, column(step.key), 0, step.key.categories, 1);
    rest_on_first_token(step, W_Q, W_K);
    if (!step.own_place) {  // where a position matches itself the two cancel
      const auto place = column(program_.places());
      set_diagonal(W_Q, place, step.key.categories + 1, config_.n_ctx, -options_.sharpness);
      set_diagonal(W_K, place, step.key.categories + 1, config_.n_ctx, 1);
    }
    for (std::int64_t v = 0; v < step.value.categories; ++v) W_V[column(step.value) + v][read_by(step, v)].fill_(1);
    set_diagonal(block.attn.W_O, first, column(out), out.categories, 1);
  }

  /// The first token's score lies halfway between those of keys that match and that do not, whatever it would be.
  void rest_on_first_token(const Gather& step, const at::Tensor& W_Q, const at::Tensor& W_K) const {
    const auto token = static_cast<std::int32_t>(program_.words().categories - 1);
    const auto first = column(program_.words()) + token;
    const auto key = program_.values(std::span{&token, 1})[step.key.index][0];
    W_K[first][key].sub_(1);
    W_K[first][step.key.categories].fill_(1);
    W_Q.narrow(0, column(program_.places()), config_.n_ctx)
        .select(1, step.key.categories)
        .fill_(options_.sharpness / 2);
  }

  /// One neuron for every combination of values, which fires when all of them are there.
  void write(const Map& step, std::int64_t neuron, Variable out, BlockWeights& block) const {
    const auto gain = 2 * options_.sharpness;
    for_each_combination(step.of, [&](std::span<const std::int64_t> values) {
      for (std::size_t i = 0; i < values.size(); ++i) {
        block.mlp.W_in[column(step.of[i]) + values[i]][neuron].add_(gain);  // one variable may be named twice
      }
      block.mlp.b_in[neuron].fill_(gain * (0.5 - static_cast<double>(values.size())));
      const auto result = checked_category(step.table(values), step.categories);
      block.mlp.W_out[neuron][column(out) + result].fill_(2 / gain);
      ++neuron;
    });
  }

  /// By variable: whether what it is depends on the words, and the answer on it.
  [[nodiscard]] std::vector<bool> carriers() const {
    const auto steps = program_.steps();
    std::vector<bool> of_words{true, false};
    for (const auto& step : steps) {
      const auto reads = Program::reads(step);
      of_words.push_back(std::any_of(reads.begin(), reads.end(), [&](const Variable& v) { return of_words[v.index]; }));
    }
    std::vector<bool> needed(of_words.size(), false);
    needed[program_.answer().index] = true;
    for (auto s = steps.size(); s > 0; --s) {
      if (!needed[out_of(s - 1).index]) continue;
      for (const auto& v : Program::reads(steps[s - 1])) needed[v.index] = true;
    }
    for (std::size_t v = 0; v < needed.size(); ++v) needed[v] = needed[v] && of_words[v];
    return needed;
  }

  [[nodiscard]] at::Tensor true_edges(const Components& c) const {
    auto edges = make::zeros({c.senders(), c.receivers()}, at::kBool);
    const auto carried = carriers();
    const auto add = [&](Variable v, std::int64_t receiver) {
      if (carried[v.index]) edges[sender(v, c)][receiver].fill_(true);
    };
    for (std::size_t s = 0; s < places_.size(); ++s) {
      if (!carried[out_of(s).index]) continue;
      const auto [layer, index] = places_[s];
      const auto& step = program_.steps()[s];
      if (const auto* gather = std::get_if<Gather>(&step)) {
        add(gather->query, c.first_query(layer) + index);
        add(gather->key, c.first_key(layer) + index);
        add(gather->value, c.first_value(layer) + index);
      } else {
        for (const auto& v : Program::reads(step)) add(v, c.mlp_in(layer));
      }
    }
    add(program_.answer(), c.logits());
    return edges;
  }

  /// What wrote a variable.
  [[nodiscard]] std::int64_t sender(Variable v, const Components& c) const {
    if (v.index < 2) return 0;
    const auto [layer, index] = places_[v.index - 2];
    return std::holds_alternative<Gather>(program_.steps()[v.index - 2]) ? c.first_head(layer) + index : c.mlp(layer);
  }

  const Program& program_;
  CompileOptions options_;
  KnownRandom random_;
  ModelConfig config_{};
  std::vector<std::int64_t> columns_{};
  std::vector<StepPlace> places_{};
  std::int64_t most_heads_ = 0;
  std::int64_t most_neurons_ = 0;
};

}  // namespace circuit::detail

inline circuit::CompiledProgram circuit::compile_program(const Program& program, const CompileOptions& options) {
  return detail::ProgramCompiler{program, options}.compiled();
}
