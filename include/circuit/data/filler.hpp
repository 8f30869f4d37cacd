#pragma once

#include <array>
#include <string>
#include <string_view>

#include "circuit/data/random.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/data/words.hpp"

namespace circuit::data {

namespace detail {

inline constexpr std::array<std::string_view, 14> filler_sentences{
    "The {adjective} {noun} {verb} the {object}.",
    "A {adjective} {noun} {verb} a {object} near the {place}.",
    "In the {place} the {noun} {verb} a {adjective} {object}.",
    "The {noun} and the {noun2} went to the {place}.",
    "At noon the {nouns} {verb} the {adjective} {noun}.",
    "Today a {noun} {verb} the {nouns} at the {place}.",
    "Then, the {noun} came back to the {place}.",
    "The {place} was {adjective} and the {nouns} were {adjective2}.",
    "On Monday the {nouns} wanted to sell the {object}.",
    "Last night a {noun} waited for the {noun2} in the {place}.",
    "Once the {nouns} had a {adjective} {object}.",
    "After that the {noun} gave a {object} to the {noun2}.",
    "While the {noun} was working, the {noun2} {verb} a {object}.",
    "When the {nouns} met, the {noun} {verb} the {place}.",
};

inline void append_filler_sentence(Random& random, PromptBuilder& builder) {
  const auto fill = [&](std::string_view word) { return Filling{std::string{word}, std::string{word}, ""}; };
  const PromptBuilder::Fillings fillings{
      {"adjective", fill(random.pick(words::adjectives))}, {"adjective2", fill(random.pick(words::adjectives))},
      {"noun", fill(random.pick(words::nouns).one)},       {"noun2", fill(random.pick(words::nouns).one)},
      {"nouns", fill(random.pick(words::nouns).many)},     {"verb", fill(random.pick(words::past_verbs))},
      {"object", fill(random.pick(words::objects))},       {"place", fill(random.pick(words::places))}};
  builder.append(random.pick(filler_sentences), fillings);
}

}  // namespace detail

/// Plain sentences with nothing to find: clean and corrupt are the same, and there are no answers.
[[nodiscard]] inline TaskPrompt make_filler(Random& random, std::size_t sentences = 2) {
  detail::PromptBuilder builder;
  for (std::size_t i = 0; i < sentences; ++i) detail::append_filler_sentence(random, builder);
  return std::move(builder).finish({}, {});
}

}  // namespace circuit::data
