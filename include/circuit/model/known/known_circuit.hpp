#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/model/components.hpp"

namespace circuit {

/// A model whose circuit is known because its weights were written by hand or compiled, and a task that it solves. The edges are
/// those that carry what clean and corrupt prompts differ in; what is the same in both (positions) no contrast can
/// find.
template <Architecture A>
struct KnownCircuit {
  HookedTransformer<A> model;
  at::Tensor edges;                           ///< [senders, receivers] bool
  at::Tensor clean;                           ///< [batch, pos] int64
  at::Tensor corrupt;                         ///< [batch, pos]
  std::vector<std::int64_t> answers{};        ///< [batch]: the next token on the clean prompt
  std::vector<std::int64_t> wrong_answers{};  ///< [batch]: the one on the corrupt prompt
};

struct KnownCircuitOptions {
  std::int64_t prompts = 16;
  std::int64_t length = 9;
  std::int64_t words = 14;       ///< how many tokens there are to choose from; more than `length`
  std::int64_t distractors = 3;  ///< heads in each layer that have no part in it
  double sharpness = 6.0;        ///< by how much a matching key's score is above the others'
  double noise = 0.1;            ///< how much distractors write; 0: nothing
  std::uint64_t seed = 1;

  /// throws  ValueError  for sizes with which there is no task
  void check() const {
    if (prompts > 0 && length >= 4 && words > length && distractors >= 0 && words < 4096) return;
    throw ValueError{{.tensor = "known circuit",
                      .expected = "a prompt or more, 4 positions or more, more words than positions (below 4096)"}};
  }
};

}  // namespace circuit

namespace circuit::detail {

/// Numbers that are the same everywhere, unlike the standard library's distributions.
class KnownRandom {
 public:
  explicit KnownRandom(std::uint64_t seed) : bits_{seed} {}

  /// -1 to 1
  [[nodiscard]] double number() { return static_cast<double>(bits_() >> 11U) * 0x1p-52 - 1.0; }
  /// 0 to n - 1
  [[nodiscard]] std::int64_t below(std::int64_t n) {
    return static_cast<std::int64_t>(bits_() % static_cast<std::uint64_t>(n));
  }
  [[nodiscard]] at::Tensor matrix(std::int64_t rows, std::int64_t columns, double scale) {
    auto out = make::empty({rows, columns}, at::kDouble);
    for (std::int64_t i = 0; i < out.numel(); ++i) out.data_ptr<double>()[i] = scale * number();
    return out;
  }
  /// n different ones of 0 to m - 1
  [[nodiscard]] std::vector<std::int64_t> choose(std::int64_t n, std::int64_t m) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(m));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int64_t>(i);
    for (std::int64_t i = 0; i < n; ++i) {
      std::swap(all[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(i + below(m - i))]);
    }
    all.resize(static_cast<std::size_t>(n));
    return all;
  }

 private:
  std::mt19937_64 bits_;
};

/// `value` on the diagonal of the n x n part of W that starts at (row, column).
inline void set_diagonal(const at::Tensor& W, std::int64_t row, std::int64_t column, std::int64_t n, double value) {
  W.narrow(0, row, n).narrow(1, column, n).diagonal().fill_(value);
}

/// Attention of which every head is a distractor: random patterns, values of everything, writes everywhere but little.
[[nodiscard]] inline AttentionWeights distracting_attention(const ModelConfig& c, double noise, KnownRandom& random) {
  const auto width = c.n_heads * c.d_head;
  return {.W_Q = random.matrix(c.d_model, width, 0.5),
          .W_K = random.matrix(c.d_model, width, 0.5),
          .W_V = random.matrix(c.d_model, width, 0.5),
          .W_O = random.matrix(width, c.d_model, noise),
          .b_Q = {},
          .b_K = {},
          .b_V = {},
          .b_O = {}};
}

/// Draws a yes-or-no circuit's prompts in pairs: prompt(true) is answered by token 1, its corrupt partner prompt(false) by 0.
template <Architecture A, class Prompt>
void draw_pairs(KnownCircuit<A>& known, std::int64_t prompts, Prompt&& prompt) {
  std::vector<std::vector<std::int32_t>> clean;
  std::vector<std::vector<std::int32_t>> corrupt;
  for (std::int64_t b = 0; b < prompts; ++b) {
    clean.push_back(prompt(true));
    corrupt.push_back(prompt(false));
  }
  known.clean = to_tokens(clean);
  known.corrupt = to_tokens(corrupt);
  known.answers.assign(static_cast<std::size_t>(prompts), 1);
  known.wrong_answers.assign(static_cast<std::size_t>(prompts), 0);
}

/// Empties the first head, or so many of them, to be written by hand.
inline void clear_first_heads(const AttentionWeights& w, std::int64_t d_head, std::int64_t heads = 1) {
  for (const auto* W : {&w.W_Q, &w.W_K, &w.W_V}) W->narrow(1, 0, heads * d_head).zero_();
  w.W_O.narrow(0, 0, heads * d_head).zero_();
}

}  // namespace circuit::detail
