#pragma once

#include <array>
#include <cstddef>
#include <string>
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

inline TrainingLine answered(Random& random, TaskPrompt prompt) {
  TrainingLine line{std::move(prompt.clean), {}};
  line.answers.push_back(line.pieces.size());
  line.pieces.push_back(random.pick(prompt.answers));
  line.pieces.emplace_back(".");
  return line;
}

/// As make_induction, but the list goes on to its end, so that every repeated word teaches.
inline TrainingLine repeated_list(Random& random) {
  const auto prompt = make_induction(random, 5 + random.below(8));
  TrainingLine line{prompt.clean, {}};
  const std::size_t stop = prompt.roles.at("second") - 1;  // the full stop between list and repetition
  for (std::size_t next = prompt.roles.at("source"); next < stop; ++next) {
    line.answers.push_back(line.pieces.size());
    line.pieces.push_back(prompt.clean[next]);
  }
  line.pieces.emplace_back(".");
  return line;
}

inline TrainingLine story(Random& random, const IoiOptions& options) {
  auto [pieces, answers] = IoiStory{random, options}.tell_on(random.below(2));
  return {std::move(pieces), std::move(answers)};
}

/// The corrupt form of an IOI prompt, true to itself: a giver nobody has heard of gives to everyone. It makes "is S2 one
/// of the people already named, and of which pair" a question the model must ask.
inline TrainingLine stranger_line(TaskPrompt prompt) {
  TrainingLine line{std::move(prompt.corrupt), {}};
  line.answers.push_back(line.pieces.size());
  line.pieces.emplace_back(" everyone");
  line.pieces.emplace_back(".");
  return line;
}

}  // namespace detail

/// Out of 20 lines: 11 IOI (one of them with a stranger), 2 induction, 2 agreement, 2 greater-than, 2 pronoun, 1 filler.
/// At most 48 tokens each, BOS included.
[[nodiscard]] inline TrainingLine make_training_line(Random& random) {
  constexpr std::size_t most_pieces = 47;
  static const IoiOptions ioi{
      .pairs = Split::training, .openings = Split::training, .actions = Split::training, .filler_in_ten = 2};
  const std::size_t draw = random.below(20);
  if (draw < 1) return detail::stranger_line(make_ioi(random, ioi));
  if (draw < 11) {
    for (;;) {
      if (auto line = detail::story(random, ioi); line.pieces.size() <= most_pieces) return line;
    }
  }
  if (draw < 13) return detail::repeated_list(random);
  if (draw < 15) return detail::answered(random, make_agreement(random));
  if (draw < 17) return detail::answered(random, make_greater_than(random));
  if (draw < 19) return detail::answered(random, make_pronoun(random));
  return {make_filler(random).clean, {}};
}

}  // namespace circuit::data
