#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/data/filler.hpp"
#include "circuit/data/random.hpp"
#include "circuit/data/task_prompt.hpp"
#include "circuit/data/words.hpp"

/// Indirect object identification (Wang et al. 2022, arXiv 2211.00593) in words of our own: two people are introduced,
/// one of them (S) gives something, and the next word is the other (IO).
namespace circuit::data {

enum class IoiOrder {
  abba,  ///< IO is named first: "Alice and Bob ... Bob gave ... to"
  baba,  ///< S is named first: "Bob and Alice ... Bob gave ... to"
};

enum class IoiDistractor {
  none,
  equal_mentions,  ///< a clause names IO once more, so that S and IO are named equally often
  other_pair,      ///< a second pair of people before or after the first: "the other name" is not enough to answer
};

/// Which part of the names or templates to draw from; the parts do not meet, so one can be trained on and the other
/// kept.
enum class Split { any, training, held_out };

namespace ioi {

/// Introductions of two people. Those that end in a comma go on into the action; the others are sentences that follow
/// one of `adverbs`, 15 x 18 of them, of which 15 x 16 are trained on.
inline constexpr std::array<std::string_view, 24> openings{
    "{A} and {B} went to the {place}.",
    "{A} and {B} walked to the {place}.",
    "{A} and {B} met at the {place}.",
    "{A} and {B} drove to the {place}.",
    "{A} and {B} worked at the {place}.",
    "{A} visited the {place} with {B}.",
    "{A} and {B} had lunch at the {place}.",
    "{A} met {B} at the {place}.",
    "{A} joined {B} at the {place}.",
    "{A} took {B} to the {place}.",
    "{A} followed {B} to the {place}.",
    "{A} and {B} sat together in the {place}.",
    "{A} found {B} near the {place}.",
    "{A} came to the {place} with {B}.",
    "the friends {A} and {B} stayed at the {place}.",
    "{A} called {B} from the {place}.",
    "When {A} and {B} got to the {place},",
    "After {A} and {B} arrived at the {place},",
    "While {A} and {B} were working at the {place},",
    "Because {A} and {B} had time at the {place},",
    "Once {A} was at the {place} with {B},",
    // from here on: held out
    "{A} and {B} sat near the {place}.",
    "the friends {A} and {B} had lunch in the {place}.",
    "When {A} met {B} at the {place},",
};
inline constexpr std::size_t first_held_out_opening = 21;

inline constexpr std::array<std::string_view, 15> adverbs{
    "Then,", "Yesterday", "Today",   "Later",     "Last week",  "In the morning", "At noon", "In the evening",
    "Once",  "Soon",      "One day", "On Monday", "After that", "Last night",     "At night"};

inline constexpr std::array<std::string_view, 20> actions{
    "{S} gave a {object} to",
    "{S} handed the {object} to",
    "{S} passed a {object} to",
    "{S} sent the {object} to",
    "{S} offered a small {object} to",
    "{S} decided to give a {object} to",
    "{S} brought the {object} back to",
    "{S} sold an old {object} to",
    "{S} wanted to show the {object} to",
    "{S} said a few words to",
    "{S} threw the {object} to",
    "{S} wrote a letter to",
    "{S} gave",
    "{S} thanked",
    "{S} talked to",
    "{S} smiled at",
    "{S} bought a {object} for",
    // from here on: held out
    "{S} sent a {object} back to",
    "{S} decided to show a {object} to",
    "{S} wanted to give the {object} to",
};
inline constexpr std::size_t first_held_out_action = 17;

/// Clauses about one person alone; they say who is present and nothing about who is with whom.
inline constexpr std::array<std::string_view, 8> mentions{
    "{X} was tired.",      "{X} liked the {place}.", "{X} looked at the {object}.", "{X} had a {object}.",
    "{X} was very happy.", "{X} saw a {object}.",    "{X} waited for a while.",     "{X} lost the {object}.",
};

/// What may stand between the giver and the verb: one more name, so that "the last name" is not always the giver.
inline constexpr std::array<std::string_view, 4> asides{", a friend of {N},", ", the neighbor of {N},",
                                                        ", who knew {N},", ", not {N},"};

/// Words before the giver. The empty one starts the sentence with the name.
inline constexpr std::array<std::string_view, 5> connectives{"", "Then", "Later", "After that", "Soon"};

/// A tenth of the unordered pairs of names is held out, chosen by a hash, so that both parts know every name.
[[nodiscard]] inline bool is_held_out_pair(std::string_view one, std::string_view other) {
  if (other < one) std::swap(one, other);
  std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const std::string_view name : {one, other}) {
    for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
    hash = (hash ^ 0x2fU) * 0x100000001b3ULL;
  }
  return (hash >> 20U) % 10 == 0;
}

[[nodiscard]] inline bool fits(Split split, bool held_out) {
  return split == Split::any || (split == Split::held_out) == held_out;
}

}  // namespace ioi

struct IoiOptions {
  std::size_t names = 0;                      ///< the first so many of the women and of the men; 0 for all
  std::optional<IoiOrder> order{};            ///< default: either
  std::optional<IoiDistractor> distractor{};  ///< default: any, a third of them equal_mentions
  Split pairs = Split::any;
  Split openings = Split::any;
  Split actions = Split::any;
  std::optional<std::size_t> opening{};     ///< one entry of ioi::openings; wins over the split
  std::optional<std::size_t> adverb{};      ///< one entry of ioi::adverbs, before an opening that is a sentence
  std::optional<std::size_t> action{};      ///< one entry of ioi::actions
  std::optional<std::size_t> connective{};  ///< one entry of ioi::connectives
  std::optional<bool> other_pair_first{};   ///< with IoiDistractor::other_pair
  std::optional<std::size_t> other_opening{};
  std::optional<std::size_t> other_adverb{};
  std::optional<bool> aside{};  ///< a clause with another name behind the giver; default: a quarter of the prompts
  std::optional<std::size_t> aside_clause{};  ///< one entry of ioi::asides
  std::size_t filler_in_ten = 0;              ///< how often, out of ten, a filler sentence comes first
};

namespace detail {

/// throws  IndexError, ConfigError  as make_ioi
inline void check_entries(const IoiOptions& options) {
  const auto check = [](const char* name, std::optional<std::size_t> entry, std::size_t size) {
    if (!entry || *entry < size) return;
    throw IndexError{{.tensor = name, .expected = "0 to " + std::to_string(size - 1), .got = std::to_string(*entry)}};
  };
  check("opening", options.opening, ioi::openings.size());
  check("adverb", options.adverb, ioi::adverbs.size());
  check("action", options.action, ioi::actions.size());
  check("connective", options.connective, ioi::connectives.size());
  check("other_opening", options.other_opening, ioi::openings.size());
  check("other_adverb", options.other_adverb, ioi::adverbs.size());
  check("aside_clause", options.aside_clause, ioi::asides.size());
  if (options.other_opening && ioi::openings[*options.other_opening].back() == ',') {
    throw ConfigError{{.tensor = "other_opening",
                       .problem = "a subordinate clause cannot tell of the other pair",
                       .got = std::string{ioi::openings[*options.other_opening]}}};
  }
}

/// One random story about one or two pairs of people, told clause by clause.
class IoiStory {
 public:
  struct Person {
    std::string clean;
    std::string corrupt;
  };

  IoiStory(Random& random, const IoiOptions& options) : random_{random}, options_{options} {
    // Two for the pair, two for the other pair, three that the corrupt prompt uses instead, one for asides.
    int tries = 100000;
    do {
      if (tries-- == 0) {
        throw ConfigError{{.tensor = "names",
                           .problem = "no pairs of this split are among them",
                           .got = std::to_string(options.names)}};
      }
      names_ = random_.distinct(8, 2 * each());
    } while (!ioi::fits(options.pairs, ioi::is_held_out_pair(name(0), name(1))) ||
             !ioi::fits(options.pairs, ioi::is_held_out_pair(name(2), name(3))));
  }

  TaskPrompt tell() {
    const auto order = options_.order.value_or(random_.chance(1, 2) ? IoiOrder::abba : IoiOrder::baba);
    const auto distractor = options_.distractor.value_or(any_distractor());
    const bool other_first =
        distractor == IoiDistractor::other_pair && options_.other_pair_first.value_or(random_.chance(1, 2));
    const bool other_last = distractor == IoiDistractor::other_pair && !other_first;

    if (random_.chance(options_.filler_in_ten, 10)) append_filler_sentence(random_, builder_);
    if (other_first) tell_other_pair();
    // A subordinate opening needs the action as its main clause, so nothing can come between them.
    const bool sentence_only = distractor == IoiDistractor::equal_mentions || other_last;
    open(subject(), indirect_object(), order, sentence_only);
    if (other_last) tell_other_pair();
    if (distractor == IoiDistractor::equal_mentions) mention(indirect_object(), "IO2");
    other_told_ = other_first || other_last;
    act(stranger_giver(), "S2");
    return std::move(builder_).finish({' ' + indirect_object().clean}, {' ' + subject().clean});
  }

  /// The clean story with its answer and further questions, about any of the people told of, as many as fit.
  /// return  at most `most` pieces (or the story alone), and the indices of the answers
  std::pair<std::vector<std::string>, std::vector<std::size_t>> tell_on(std::size_t most) {
    const auto first = tell();
    std::vector<std::string> pieces = first.clean;
    std::vector<std::size_t> answers{pieces.size()};
    pieces.push_back(first.answers.front());
    pieces.emplace_back(".");
    subordinate_ = false;
    for (;;) {
      builder_ = {};
      builder_.glue(".");  // so that the sentence is not the first of its line
      const std::size_t giver = random_.below(other_told_ ? 4 : 2);
      act({name(giver), name(giver)}, "");
      builder_.append("{partner}.", {{"partner", same(name(giver ^ 1U))}});
      const auto next = std::move(builder_).finish({}, {}).clean;
      if (pieces.size() + next.size() - 1 > most) return {std::move(pieces), std::move(answers)};
      pieces.insert(pieces.end(), next.begin() + 1, next.end());
      answers.push_back(pieces.size() - 2);
    }
  }

 private:
  /// How many women, and how many men, there are to tell of.
  [[nodiscard]] std::size_t each() const {
    static_assert(words::women.size() == words::men.size());
    return options_.names == 0 ? words::women.size() : std::min(options_.names, words::women.size());
  }
  [[nodiscard]] std::string name(std::size_t which) const {
    const std::size_t index = names_[which];
    const std::size_t women = each();
    return std::string{index < women ? words::women[index] : words::men[index - women]};
  }
  [[nodiscard]] Person subject() const { return {name(0), name(4)}; }
  [[nodiscard]] Person indirect_object() const { return {name(1), name(5)}; }
  [[nodiscard]] Person stranger_giver() const { return {name(0), name(6)}; }

  IoiDistractor any_distractor() {
    constexpr std::array choices{IoiDistractor::none, IoiDistractor::equal_mentions, IoiDistractor::other_pair};
    return random_.pick(choices);
  }

  static Filling same(const std::string& word) { return {word, word, ""}; }

  PromptBuilder::Fillings scenery() {
    return {{"place", same(std::string{random_.pick(words::places)})},
            {"object", same(std::string{random_.pick(words::objects)})}};
  }

  std::size_t draw(Split split, std::size_t size, std::size_t first_held_out) {
    const std::size_t low = split == Split::held_out ? first_held_out : 0;
    const std::size_t high = split == Split::training ? first_held_out : size;
    return low + random_.below(high - low);
  }

  void open(const Person& s, const Person& io, IoiOrder order, bool sentence_only) {
    std::size_t chosen = 0;
    do {
      chosen = options_.opening.value_or(draw(options_.openings, ioi::openings.size(), ioi::first_held_out_opening));
      subordinate_ = ioi::openings[chosen].back() == ',';
      if (subordinate_ && sentence_only && options_.opening) {
        throw ConfigError{{.tensor = "opening",
                           .problem = "a subordinate clause cannot be followed by a distractor",
                           .got = std::string{ioi::openings[chosen]}}};
      }
    } while (subordinate_ && sentence_only);
    const Filling s1{s.clean, s.corrupt, "S1"};
    const Filling io1{io.clean, io.corrupt, "IO"};
    auto fillings = scenery();
    fillings["A"] = order == IoiOrder::abba ? io1 : s1;
    fillings["B"] = order == IoiOrder::abba ? s1 : io1;
    if (!subordinate_) builder_.append(ioi::adverbs[options_.adverb.value_or(random_.below(ioi::adverbs.size()))], {});
    builder_.append(ioi::openings[chosen], fillings);
  }

  void tell_other_pair() {
    std::size_t chosen = 0;
    do {
      chosen =
          options_.other_opening.value_or(draw(options_.openings, ioi::openings.size(), ioi::first_held_out_opening));
    } while (ioi::openings[chosen].back() == ',' && !options_.other_opening);
    auto fillings = scenery();
    fillings["A"] = {name(2), name(2), "other1"};
    fillings["B"] = {name(3), name(3), "other2"};
    builder_.append(ioi::adverbs[options_.other_adverb.value_or(random_.below(ioi::adverbs.size()))], {});
    builder_.append(ioi::openings[chosen], fillings);
  }

  void mention(const Person& who, const std::string& role) {
    auto fillings = scenery();
    fillings["X"] = {who.clean, who.corrupt, role};
    builder_.append(random_.pick(ioi::mentions), fillings);
  }

  void act(const Person& giver, const std::string& role) {
    const std::size_t word = options_.connective.value_or(random_.below(ioi::connectives.size()));
    if (!subordinate_) builder_.append(ioi::connectives[word], {});
    auto fillings = scenery();
    fillings["S"] = {giver.clean, giver.corrupt, role};
    const std::size_t chosen =
        options_.action.value_or(draw(options_.actions, ioi::actions.size(), ioi::first_held_out_action));
    constexpr std::string_view giver_slot = "{S}";
    builder_.append(giver_slot, fillings);
    if (options_.aside.value_or(random_.chance(1, 4))) tell_aside(giver);
    builder_.append(ioi::actions[chosen].substr(giver_slot.size() + 1), fillings);
  }

  /// About a stranger, or about one of the other pair where it was told of.
  void tell_aside(const Person& giver) {
    std::size_t who = 7;
    if (other_told_ && random_.chance(1, 2)) who = 2 + random_.below(2);
    if (name(who) == giver.clean) who = 7;
    const std::size_t clause = options_.aside_clause.value_or(random_.below(ioi::asides.size()));
    builder_.append(ioi::asides[clause], {{"N", {name(who), name(who), "aside"}}});
  }

  Random& random_;
  const IoiOptions& options_;
  std::vector<std::size_t> names_;
  PromptBuilder builder_;
  bool subordinate_ = false;
  bool other_told_ = false;
};

}  // namespace detail

/// One contrast pair. Roles: S1, IO, S2, end; with a distractor also IO2, or other1 and other2. The corrupt prompt has
/// three unrelated names for S1, IO and S2 and is the same otherwise.
/// throws  ConfigError  when the chosen opening cannot carry the distractor, or cannot tell of the other pair
/// throws  IndexError   for an entry that is not there
[[nodiscard]] inline TaskPrompt make_ioi(Random& random, const IoiOptions& options = {}) {
  detail::check_entries(options);
  return detail::IoiStory{random, options}.tell();
}

}  // namespace circuit::data
