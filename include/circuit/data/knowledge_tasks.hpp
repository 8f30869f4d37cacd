#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/data/tasks.hpp"

/// Tasks in words that small closed vocabularies lack. Their pieces may be several tokens: make a PromptSet of them.
namespace circuit::data {

namespace words {

struct Capital {
  std::string_view country;
  std::string_view city;
};
inline constexpr std::array<Capital, 30> capitals{
    {{"France", "Paris"},     {"Italy", "Rome"},         {"Spain", "Madrid"},     {"Germany", "Berlin"},
     {"Austria", "Vienna"},   {"Russia", "Moscow"},      {"Japan", "Tokyo"},      {"Greece", "Athens"},
     {"Egypt", "Cairo"},      {"Poland", "Warsaw"},      {"Portugal", "Lisbon"},  {"Ireland", "Dublin"},
     {"Norway", "Oslo"},      {"Sweden", "Stockholm"},   {"Cuba", "Havana"},      {"Iran", "Tehran"},
     {"Iraq", "Baghdad"},     {"China", "Beijing"},      {"Canada", "Ottawa"},    {"Turkey", "Ankara"},
     {"Finland", "Helsinki"}, {"Denmark", "Copenhagen"}, {"Hungary", "Budapest"}, {"Kenya", "Nairobi"},
     {"Belgium", "Brussels"}, {"Syria", "Damascus"},     {"Lebanon", "Beirut"},   {"Ukraine", "Kiev"},
     {"Peru", "Lima"},        {"Scotland", "Edinburgh"}}};

/// Names that a program's arguments may have.
inline constexpr std::array<std::string_view, 24> arguments{
    "file", "size", "name",  "path",  "key",   "value", "count", "index", "start", "end",  "model", "data",
    "text", "line", "input", "order", "state", "color", "width", "mode",  "level", "user", "time",  "port"};

}  // namespace words

/// "The capital of France is" -> " Paris". Roles: country, end. The corrupt prompt asks for another country.
[[nodiscard]] inline TaskPrompt make_capital(Random& random) {
  static constexpr std::array<std::string_view, 5> forms{
      "The capital of {country} is", "The capital city of {country} is", "In {country} the capital is",
      "The government of {country} sits in", "Everyone knows that the capital of {country} is"};
  const auto picks = random.distinct(2, words::capitals.size());
  const auto& asked = words::capitals[picks[0]];
  const auto& other = words::capitals[picks[1]];
  detail::PromptBuilder builder;
  builder.append(random.pick(forms),
                 {{"country", {std::string{asked.country}, std::string{other.country}, "country"}}});
  return std::move(builder).finish({' ' + std::string{asked.city}}, {' ' + std::string{other.city}});
}

/// A Python function whose docstring goes through its arguments in order: after the descriptions of the first two comes
/// the third's name (the docstring task of Heimersheim and Janiak 2023, in words of our own).
/// Roles: first, second, third (in the definition), doc1, doc2 (in the docstring), end. In the corrupt prompt the
/// definition names others, so that the docstring alone does not tell what comes third. Wrong are all other arguments.
[[nodiscard]] inline TaskPrompt make_docstring(Random& random) {
  const auto picks = random.distinct(8, words::arguments.size());
  const auto argument = [&](std::size_t i) { return ' ' + std::string{words::arguments[picks[i]]}; };
  detail::PromptBuilder builder;
  const auto both = [&](const std::string& piece) { builder.glue(piece); };
  const auto describe = [&](const std::string& name, const std::string& role) {
    for (const auto* piece : {"   ", " :", "param"}) both(piece);
    both(name);
    if (!role.empty()) builder.mark(role);
    both(":");
    both(' ' + std::string{random.pick(words::adjectives)});
    both(' ' + std::string{random.pick(words::objects)});
    both("\n");
  };
  for (const auto* piece : {"def", " run", "(", "self"}) both(piece);
  // Arguments 0 to 2 are the clean definition's, 3 is named there too and never described, 4 to 7 are the corrupt ones.
  constexpr std::array<const char*, 4> roles{"first", "second", "third", ""};
  for (std::size_t i = 0; i < roles.size(); ++i) {
    both(",");
    builder.glue(argument(i), argument(i + 4));
    if (*roles[i] != '\0') builder.mark(roles[i]);
  }
  for (const auto* piece : {"):", "\n", "   ", " \"\"\"", "The"}) both(piece);
  both(' ' + std::string{random.pick(words::adjectives)});
  both(' ' + std::string{random.pick(words::objects)});
  both("\n\n");
  describe(argument(0), "doc1");
  describe(argument(1), "doc2");
  for (const auto* piece : {"   ", " :", "param"}) both(piece);
  std::vector<std::string> wrong;
  for (const std::size_t i : {0U, 1U, 3U, 4U, 5U, 6U, 7U}) wrong.push_back(argument(i));
  return std::move(builder).finish({argument(2)}, std::move(wrong));
}

}  // namespace circuit::data
