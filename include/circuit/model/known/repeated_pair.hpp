#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "circuit/model/known/compile_program.hpp"

namespace circuit {

/// Whether the last two words have stood together before, in this order: 0 for no, 1 for yes. A head finds each word's
/// predecessor, an MLP makes one category of the two, a head of the next layer looks for the same one at earlier places,
/// and its MLP says whether there was one.
[[nodiscard]] inline Program repeated_pair_program(std::int64_t words, std::int64_t length);

/// That program as a transformer of two layers. Clean prompts end in a pair that was there, corrupt ones, drawn anew, in
/// one that was there the other way round, so that no word alone tells them apart.
/// throws  ValueError  as KnownCircuitOptions::check, and for prompts of fewer than 5 tokens
[[nodiscard]] inline KnownCircuit<Plain> repeated_pair_circuit(const KnownCircuitOptions& options = {});

}  // namespace circuit

inline circuit::Program circuit::repeated_pair_program(std::int64_t words, std::int64_t length) {
  Program p{words, length};
  const auto n = p.words().categories;
  const auto before = p.add(Gather{.query = p.places(),
                                   .key = p.places(),
                                   .matches = [](std::int64_t query, std::int64_t key) { return key + 1 == query; },
                                   .value = p.words()});
  const auto pair =
      p.add(Map{.of = {before, p.words()}, .categories = n * n, .table = [n](std::span<const std::int64_t> v) {
                  return v[0] * n + v[1];
                }});
  const auto seen = p.add(Gather{.query = pair,
                                 .key = pair,
                                 .matches = std::equal_to<>{},
                                 .value = p.places(),
                                 .categories = 2,
                                 .read = [](std::int64_t place) { return place > 0 ? std::int64_t{1} : 0; },
                                 .own_place = false});
  p.say(p.add(Map{.of = {seen}, .categories = 2, .table = [](std::span<const std::int64_t> v) { return v[0]; }}));
  return p;
}

inline circuit::KnownCircuit<circuit::Plain> circuit::repeated_pair_circuit(const KnownCircuitOptions& o) {
  o.check();
  if (o.length < 5) throw ValueError{{.tensor = "known circuit", .expected = "5 positions or more"}};
  auto compiled =
      compile_program(repeated_pair_program(o.words, o.length),
                      {.distractors = o.distractors, .sharpness = o.sharpness, .noise = o.noise, .seed = o.seed});
  KnownCircuit<Plain> known{
      .model = std::move(compiled.model), .edges = std::move(compiled.edges), .clean = {}, .corrupt = {}};
  detail::KnownRandom random{o.seed};
  const auto prompt = [&](bool same_order) {
    auto words = random.choose(o.length - 1, o.words);
    const auto first = words.begin() + random.below(o.length - 4);
    words[words.size() - 2] = same_order ? first[0] : first[1];
    words[words.size() - 1] = same_order ? first[1] : first[0];
    std::vector<std::int32_t> row{static_cast<std::int32_t>(o.words)};
    row.insert(row.end(), words.begin(), words.end());
    return row;
  };
  detail::draw_pairs(known, o.prompts, prompt);
  return known;
}
