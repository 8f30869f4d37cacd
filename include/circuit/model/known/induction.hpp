#pragma once

#include "circuit/model/architecture/plain.hpp"
#include "circuit/model/known/known_circuit.hpp"

namespace circuit {

/// Two layers of attention that continue a repeated word: "... A B ... A" with B. Head 0 of layer 0 copies each
/// position's previous word into a place of its own, head 0 of layer 1 looks there for the present word and copies the
/// word it finds. Clean and corrupt prompts are drawn alike, with different answers. throws  ValueError  as
/// KnownCircuitOptions::check source  Elhage et al. 2021; Olsson et al. 2022
[[nodiscard]] inline KnownCircuit<AttentionOnly> induction_circuit(const KnownCircuitOptions& options = {});

}  // namespace circuit

namespace circuit::detail {

/// Words that differ but for the last, which is an earlier one; and the word after that.
[[nodiscard]] inline std::pair<std::vector<std::int64_t>, std::int64_t> repeated_word(const KnownCircuitOptions& o,
                                                                                      KnownRandom& random) {
  auto words = random.choose(o.length, o.words);
  // Nothing comes before the first word, so the previous-word head rests on it: it is never the repeated one.
  const auto place = static_cast<std::size_t>(1 + random.below(o.length - 3));
  words.back() = words[place];
  return {words, words[place + 1]};
}

}  // namespace circuit::detail

inline circuit::KnownCircuit<circuit::AttentionOnly> circuit::induction_circuit(const KnownCircuitOptions& o) {
  o.check();
  detail::KnownRandom random{o.seed};
  ModelConfig c;
  c.n_layers = 2;
  c.n_heads = c.n_key_value_heads = 1 + o.distractors;
  c.d_vocab = o.words;
  c.n_ctx = o.length;
  c.d_head = o.words;
  // The stream: the word, the place, the word before, the answer.
  const auto place = o.words;
  const auto before = place + o.length;
  const auto answer = before + o.words;
  c.d_model = answer + o.words;

  ModelWeights w;
  w.W_E = make::zeros({o.words, c.d_model}, at::kDouble);
  detail::set_diagonal(w.W_E, 0, 0, o.words, 1);
  w.W_pos = make::zeros({o.length, c.d_model}, at::kDouble);
  detail::set_diagonal(w.W_pos, 0, place, o.length, 1);
  for (int l = 0; l < 2; ++l) {
    BlockWeights block;
    block.attn = detail::distracting_attention(c, o.noise, random);
    detail::clear_first_heads(block.attn, c.d_head);
    w.blocks.push_back(block);
  }
  const auto& previous = w.blocks[0].attn;
  detail::set_diagonal(previous.W_Q, place, 0, o.length, 2 * o.sharpness);
  detail::set_diagonal(previous.W_K, place, 1, o.length - 1, 1);  // place p answers to p + 1
  detail::set_diagonal(previous.W_V, 0, 0, o.words, 1);
  detail::set_diagonal(previous.W_O, 0, before, o.words, 1);
  const auto& induction = w.blocks[1].attn;
  detail::set_diagonal(induction.W_Q, 0, 0, o.words, o.sharpness);
  detail::set_diagonal(induction.W_K, before, 0, o.words, 1);
  detail::set_diagonal(induction.W_V, 0, 0, o.words, 1);
  detail::set_diagonal(induction.W_O, 0, answer, o.words, 1);
  w.W_U = make::zeros({c.d_model, o.words}, at::kDouble);
  detail::set_diagonal(w.W_U, answer, 0, o.words, 5);

  KnownCircuit<AttentionOnly> known{.model = {c, w}, .edges = {}, .clean = {}, .corrupt = {}};
  std::vector<std::vector<std::int32_t>> clean;
  std::vector<std::vector<std::int32_t>> corrupt;
  while (std::ssize(clean) < o.prompts) {
    const auto [words, right] = detail::repeated_word(o, random);
    const auto [others, wrong] = detail::repeated_word(o, random);
    if (right == wrong) continue;
    clean.emplace_back(words.begin(), words.end());
    corrupt.emplace_back(others.begin(), others.end());
    known.answers.push_back(right);
    known.wrong_answers.push_back(wrong);
  }
  known.clean = to_tokens(clean);
  known.corrupt = to_tokens(corrupt);
  const auto layout = Components::of(known.model);
  known.edges = make::zeros({layout.senders(), layout.receivers()}, at::kBool);
  const auto add = [&](std::int64_t sender, std::int64_t receiver) { known.edges[sender][receiver].fill_(true); };
  const Layer first{0};
  const Layer second{1};
  add(0, layout.first_value(first));
  add(0, layout.first_query(second));
  add(layout.first_head(first), layout.first_key(second));
  add(0, layout.first_value(second));
  add(layout.first_head(second), layout.logits());
  return known;
}
