#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/filler.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/data/random.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/data/tasks.hpp"

namespace circuit::data {

/// One line of training text, as pieces: a random task with its answer, from the training part of names and templates.
struct TrainingLine {
  std::vector<std::string> pieces;
  std::vector<std::size_t> answers{};  ///< indices of the pieces that can be known from what stands before them
};

namespace detail {

inline constexpr std::size_t most_pieces = 47;  // with the BOS, 48 tokens

/// Makes `pieces` the next sentence of a line: its first word gets the space that a line's first word lacks.
inline void append_sentence(TrainingLine& line, std::vector<std::string> pieces,
                            const std::vector<std::size_t>& answers) {
  const std::size_t before = line.pieces.size();
  if (before > 0) pieces.front().insert(0, " ");
  for (const std::size_t answer : answers) line.answers.push_back(before + answer);
  line.pieces.insert(line.pieces.end(), pieces.begin(), pieces.end());
}

/// Prompts of one task with their answers (marked only where there is one right answer), one after the other until the
/// line is full or `most` are told.
template <class Make>
TrainingLine answered(Random& random, std::size_t most, Make&& make) {
  TrainingLine line;
  for (std::size_t i = 0; i < most; ++i) {
    TaskPrompt prompt = make();
    if (line.pieces.size() + prompt.clean.size() + 2 > most_pieces) break;
    const std::size_t answer = prompt.clean.size();
    prompt.clean.push_back(random.pick(prompt.answers));
    prompt.clean.emplace_back(".");
    const bool known = prompt.answers.size() == 1;
    append_sentence(line, std::move(prompt.clean), known ? std::vector{answer} : std::vector<std::size_t>{});
  }
  return line;
}

/// A list of words or of names that is said over and over, from anywhere in it: every repeated word can be known.
inline TrainingLine repeated_list(Random& random) {
  const bool names = random.chance(1, 2);
  auto pool = names ? people() : things();
  const std::size_t length = 4 + random.below(9);
  const auto chosen = random.distinct(length, pool.size());
  TrainingLine line{{"List", ":"}, {}};
  for (const std::size_t word : chosen) line.pieces.push_back(' ' + pool[word]);
  while (line.pieces.size() + 4 < most_pieces) {
    line.pieces.emplace_back(".");
    for (std::size_t i = random.below(length - 2); i < length && line.pieces.size() < most_pieces; ++i) {
      const bool known = line.pieces.back() != ".";
      if (known) line.answers.push_back(line.pieces.size());
      line.pieces.push_back(' ' + pool[chosen[i]]);
    }
  }
  return line;
}

/// "Friends: Ann and Bob, Cid with Dee. Dee Cid, Ann Bob": who belongs to whom, asked from either side. Two thirds of
/// the questions have no word between the two, so that a name itself must look its partner up.
inline TrainingLine friends_list(Random& random) {
  static constexpr std::array<std::string_view, 4> links{" and", " with", " met", " joined"};
  const auto pool = people();
  const std::size_t pairs = 2 + random.below(4);
  std::vector<std::size_t> chosen;
  bool allowed = false;
  while (!allowed) {
    chosen = random.distinct(2 * pairs, pool.size());
    allowed = true;
    for (std::size_t i = 0; i < pairs; ++i) {
      allowed = allowed && !ioi::is_held_out_pair(pool[chosen[2 * i]], pool[chosen[2 * i + 1]]);
    }
  }
  TrainingLine line{{"Friends", ":"}, {}};
  const auto tell = [&](std::size_t first, bool known) {
    line.pieces.push_back(' ' + pool[chosen[first]]);
    if (!known || random.chance(1, 3)) line.pieces.emplace_back(random.pick(links));
    if (known) line.answers.push_back(line.pieces.size());
    line.pieces.push_back(' ' + pool[chosen[first ^ 1U]]);
  };
  for (std::size_t i = 0; i < pairs; ++i) {
    if (i > 0) line.pieces.emplace_back(",");
    tell(2 * i, false);
  }
  for (bool first = true; line.pieces.size() + 5 <= most_pieces; first = false) {
    line.pieces.emplace_back(first ? "." : ",");
    tell(random.below(2 * pairs), true);
  }
  line.pieces.emplace_back(".");
  return line;
}

inline TrainingLine story(Random& random, const IoiOptions& options) {
  for (;;) {
    auto [pieces, answers] = IoiStory{random, options}.tell_on(most_pieces);
    if (pieces.size() <= most_pieces) return {std::move(pieces), std::move(answers)};
  }
}

}  // namespace detail

/// What training lines are made of.
struct TrainingMix {
  std::size_t lists_in_ten = 0;  ///< lines that are lists of either kind instead: heads that look words up again form
                                 ///< there first, so a curriculum starts with 10 and ends with 0
  bool hard = false;             ///< more stories with two pairs of people and with a sentence before
};

/// Out of 20 lines: 12 IOI, 2 friends lists, 1 repeated list, 1 agreement, 1 greater-than, 2 pronoun, 1 filler. At most
/// 48 tokens each, BOS included.
[[nodiscard]] inline TrainingLine make_training_line(Random& random, const TrainingMix& mix = {}) {
  static const IoiOptions usual{
      .pairs = Split::training, .openings = Split::training, .actions = Split::training, .filler_in_ten = 1};
  static const IoiOptions hard{.distractor = IoiDistractor::other_pair,
                               .pairs = Split::training,
                               .openings = Split::training,
                               .actions = Split::training,
                               .filler_in_ten = 4};
  if (random.chance(mix.lists_in_ten, 10)) {
    return random.chance(2, 3) ? detail::repeated_list(random) : detail::friends_list(random);
  }
  const std::size_t draw = random.below(20);
  if (draw < 12) return detail::story(random, mix.hard && draw < 6 ? hard : usual);
  if (draw < 14) return detail::friends_list(random);
  if (draw < 15) return detail::repeated_list(random);
  if (draw < 16) return detail::answered(random, 3, [&] { return make_agreement(random); });
  if (draw < 17) return detail::answered(random, 1 + random.below(2), [&] { return make_greater_than(random); });
  if (draw < 19) return detail::answered(random, 4, [&] { return make_pronoun(random); });
  return {make_filler(random).clean, {}};
}

}  // namespace circuit::data
