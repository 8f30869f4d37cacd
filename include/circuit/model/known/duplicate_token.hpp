#pragma once

#include "circuit/model/architecture/plain.hpp"
#include "circuit/model/known/known_circuit.hpp"

namespace circuit {

/// One block that says whether the last word has been there before: 0 for no, 1 for yes. Head 0 looks for the present
/// word at earlier places, its own place left out, and rests on the first token if there is none; the MLP's neuron 0
/// fires when the head has seen a word. Clean prompts end in a repeated word, corrupt ones are drawn anew without a
/// repetition. throws  ValueError  as KnownCircuitOptions::check
[[nodiscard]] inline KnownCircuit<Plain> duplicate_token_circuit(const KnownCircuitOptions& options = {});

}  // namespace circuit

inline circuit::KnownCircuit<circuit::Plain> circuit::duplicate_token_circuit(const KnownCircuitOptions& o) {
  o.check();
  detail::KnownRandom random{o.seed};
  ModelConfig c;
  c.n_layers = 1;
  c.n_heads = c.n_key_value_heads = 1 + o.distractors;
  c.d_vocab = o.words + 1;  // the last is the first token of every prompt
  c.n_ctx = o.length;
  c.d_mlp = 4;
  // The stream: the word, the first token, the place, whether a word was seen, whether to say so.
  const auto start = o.words;
  const auto place = start + 1;
  const auto seen = place + o.length;
  const auto say = seen + 1;
  c.d_model = say + 1;
  c.d_head = o.words + 1 + o.length;

  ModelWeights w;
  w.W_E = make::zeros({c.d_vocab, c.d_model}, at::kDouble);
  detail::set_diagonal(w.W_E, 0, 0, c.d_vocab, 1);
  w.W_pos = make::zeros({o.length, c.d_model}, at::kDouble);
  detail::set_diagonal(w.W_pos, 0, place, o.length, 1);
  BlockWeights block;
  block.attn = detail::distracting_attention(c, o.noise, random);
  detail::clear_first_heads(block.attn, c.d_head);
  detail::set_diagonal(block.attn.W_Q, 0, 0, o.words, o.sharpness);
  detail::set_diagonal(block.attn.W_K, 0, 0, o.words, 1);
  detail::set_diagonal(block.attn.W_Q, place, place, o.length, -o.sharpness);  // at its own place the two cancel
  detail::set_diagonal(block.attn.W_K, place, place, o.length, 1);
  block.attn.W_Q.narrow(0, place, o.length).select(1, start).fill_(o.sharpness / 2);
  block.attn.W_K[start][start].fill_(1);
  block.attn.W_V.narrow(0, 0, o.words).select(1, 0).fill_(1);
  block.attn.W_O[0][seen].fill_(1);
  block.mlp.W_in = random.matrix(c.d_model, c.d_mlp, o.noise);
  block.mlp.W_in.select(1, 0).zero_();
  block.mlp.W_in[seen][0].fill_(8);
  block.mlp.b_in = make::zeros({c.d_mlp}, at::kDouble);
  block.mlp.b_in[0].fill_(-4);
  block.mlp.W_out = random.matrix(c.d_mlp, c.d_model, o.noise);
  block.mlp.W_out[0].zero_();
  block.mlp.W_out[0][say].fill_(1);
  w.blocks.push_back(block);
  w.W_U = make::zeros({c.d_model, c.d_vocab}, at::kDouble);
  w.W_U[say][1].fill_(1);
  w.b_U = make::zeros({c.d_vocab}, at::kDouble);
  w.b_U[0].fill_(2);

  KnownCircuit<Plain> known{.model = {c, w}, .edges = {}, .clean = {}, .corrupt = {}};
  const auto prompt = [&](bool repeat) {
    auto words = random.choose(o.length - 1, o.words);
    if (repeat) words.back() = words[static_cast<std::size_t>(random.below(o.length - 2))];
    std::vector<std::int32_t> row{static_cast<std::int32_t>(start)};
    row.insert(row.end(), words.begin(), words.end());
    return row;
  };
  detail::draw_pairs(known, o.prompts, prompt);
  const auto layout = Components::of(known.model);
  known.edges = make::zeros({layout.senders(), layout.receivers()}, at::kBool);
  const Layer only{0};
  known.edges[0][layout.first_query(only)].fill_(true);
  known.edges[0][layout.first_key(only)].fill_(true);
  known.edges[layout.first_head(only)][layout.mlp_in(only)].fill_(true);
  known.edges[layout.mlp(only)][layout.logits()].fill_(true);
  return known;
}
