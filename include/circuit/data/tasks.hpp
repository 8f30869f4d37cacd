#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/data/words.hpp"

/// Small tasks with known answers, each as contrast pairs with roles.
namespace circuit::data {

namespace detail {

[[nodiscard]] inline std::string two_digits(std::size_t number) {
  return {static_cast<char>('0' + number / 10), static_cast<char>('0' + number % 10)};
}

[[nodiscard]] inline Filling both(std::string_view word, std::string role = "") {
  return {std::string{word}, std::string{word}, std::move(role)};
}

[[nodiscard]] inline std::vector<std::string> people() {
  std::vector<std::string> pool{words::women.begin(), words::women.end()};
  pool.insert(pool.end(), words::men.begin(), words::men.end());
  return pool;
}

[[nodiscard]] inline std::vector<std::string> things() {
  std::vector<std::string> pool{words::objects.begin(), words::objects.end()};
  pool.insert(pool.end(), words::places.begin(), words::places.end());
  for (const auto& noun : words::nouns) pool.emplace_back(noun.one);
  return pool;
}

}  // namespace detail

/// A list of unrelated words starts over at one of its words, and the next word is the one that followed it.
/// Roles: first (the word's earlier occurrence), source (the word after it, which is the answer), second, end.
/// The corrupt prompt ends in another word of the list.
/// throws  ValueError  for fewer than three words, and as Random::distinct for more than there are
[[nodiscard]] inline TaskPrompt make_induction(Random& random, std::size_t length = 8) {
  if (length < 3) throw ValueError{{.tensor = "length", .expected = "at least 3", .got = std::to_string(length)}};
  const auto pool = detail::things();
  const auto chosen = random.distinct(length, pool.size());
  const std::size_t asked = random.below(length - 1);
  std::size_t other = random.below(length - 2);
  if (other >= asked) ++other;

  detail::PromptBuilder builder;
  builder.append("List:", {});
  for (std::size_t i = 0; i < length; ++i) {
    const std::string role = i == asked ? "first" : i == asked + 1 ? "source" : "";
    builder.append("{word}", {{"word", detail::both(pool[chosen[i]], role)}});
  }
  builder.append(". {again}", {{"again", {pool[chosen[asked]], pool[chosen[other]], "second"}}});
  return std::move(builder).finish({' ' + pool[chosen[asked + 1]]}, {' ' + pool[chosen[other + 1]]});
}

/// "Today the keys near the cabinet" -> " are". Roles: time, subject, attractor, end. The corrupt subject has the other
/// number.
[[nodiscard]] inline TaskPrompt make_agreement(Random& random) {
  static constexpr std::array<std::string_view, 4> present{"Today", "Now", "Often", "Usually"};
  static constexpr std::array<std::string_view, 4> past{"Yesterday", "Once", "Earlier", "Before"};
  static constexpr std::array<std::string_view, 5> relations{"near", "behind", "with", "beside", "under"};
  const bool is_past = random.chance(1, 2);
  const bool is_many = random.chance(1, 2);
  const auto picks = random.distinct(2, words::nouns.size());
  const auto& subject = words::nouns[picks[0]];
  const auto& attractor = words::nouns[picks[1]];
  const std::string one{subject.one};
  const std::string many{subject.many};

  detail::PromptBuilder builder;
  builder.append("{time} the {subject} {relation} the {attractor}",
                 {{"time", detail::both(random.pick(is_past ? past : present), "time")},
                  {"subject", {is_many ? many : one, is_many ? one : many, "subject"}},
                  {"relation", detail::both(random.pick(relations))},
                  {"attractor", detail::both(random.chance(1, 2) ? attractor.one : attractor.many, "attractor")}});
  const std::string plural = is_past ? " were" : " are";
  const std::string singular = is_past ? " was" : " is";
  return is_many ? std::move(builder).finish({plural}, {singular}) : std::move(builder).finish({singular}, {plural});
}

/// "The war lasted from the year 1732 to the year 17" -> any of 33 to 99 (Hanna et al. 2023, arXiv 2305.00586). A year
/// is two pieces, century and two digits. Roles: century, start, end. The corrupt prompt starts in year 01 of the
/// century.
[[nodiscard]] inline TaskPrompt make_greater_than(Random& random) {
  static constexpr std::array<std::string_view, 5> centuries{"15", "16", "17", "18", "19"};
  const std::string century{random.pick(centuries)};
  const std::size_t start = 2 + random.below(95);

  detail::PromptBuilder builder;
  builder.append("The {event} lasted from the year {century}",
                 {{"event", detail::both(random.pick(words::events))}, {"century", detail::both(century, "century")}});
  builder.glue(detail::two_digits(start), "01");
  builder.mark("start");
  builder.append("to the year {century}", {{"century", detail::both(century)}});
  std::vector<std::string> later;
  std::vector<std::string> not_later;
  for (std::size_t year = 0; year < 100; ++year) (year > start ? later : not_later).push_back(detail::two_digits(year));
  return std::move(builder).finish(std::move(later), std::move(not_later));
}

/// "Today Alice left the store because" -> " she". Roles: name, end; in the longer form also other, a person of the
/// other gender who is no clean subject. The corrupt subject has the other gender, and once in some 60 is that person.
[[nodiscard]] inline TaskPrompt make_pronoun(Random& random) {
  static constexpr std::array<std::string_view, 6> forms{"Today {name} left the {place} because",
                                                         "Yesterday {name} went home because",
                                                         "After {other} left, {name} slept because",
                                                         "In the end {name} lost the {object} because",
                                                         "Now {name} waited so that",
                                                         "When {other} came to the {place}, {name} smiled because"};
  const bool is_woman = random.chance(1, 2);
  const std::string woman{random.pick(words::women)};
  const std::string man{random.pick(words::men)};
  // The other person has the gender that is not the clean subject's, so "any pronoun that fits a name" fails.
  const std::string other{is_woman ? random.pick(words::men) : random.pick(words::women)};

  detail::PromptBuilder builder;
  builder.append(random.pick(forms), {{"name", {is_woman ? woman : man, is_woman ? man : woman, "name"}},
                                      {"other", detail::both(other, "other")},
                                      {"place", detail::both(random.pick(words::places))},
                                      {"object", detail::both(random.pick(words::objects))}});
  return is_woman ? std::move(builder).finish({" she"}, {" he"}) : std::move(builder).finish({" he"}, {" she"});
}

}  // namespace circuit::data
