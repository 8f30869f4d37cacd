#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/data/tasks.hpp"
#include "circuit/data/training_text.hpp"

using namespace circuit;
using namespace circuit::data;

namespace {

const std::string& piece(const TaskPrompt& prompt, const std::string& role) {
  return prompt.clean.at(prompt.roles.at(role));
}

std::size_t count(const TaskPrompt& prompt, const std::string& word) {
  return static_cast<std::size_t>(std::count(prompt.clean.begin(), prompt.clean.end(), word));
}

/// What every contrast pair keeps: clean and corrupt line up, differ, and end at the role "end".
void check_pair(const TaskPrompt& prompt) {
  CHECK(prompt.clean.size() == prompt.corrupt.size());
  CHECK(prompt.clean != prompt.corrupt);
  CHECK(prompt.roles.at("end") == prompt.clean.size() - 1);
  CHECK_FALSE(prompt.answers.empty());
  for (const auto& answer : prompt.answers) {
    CHECK(std::count(prompt.wrong_answers.begin(), prompt.wrong_answers.end(), answer) == 0);
  }
}

}  // namespace

TEST_CASE("the same seed tells the same stories, another seed others") {
  Random one{3};
  Random same{3};
  Random other{4};
  bool differs = false;
  for (int i = 0; i < 50; ++i) {
    const auto line = make_training_line(one);
    CHECK(line.pieces == make_training_line(same).pieces);
    differs = differs || line.pieces != make_training_line(other).pieces;
  }
  CHECK(differs);
}

TEST_CASE("random draws are the standard's engine reduced without bias, so every platform draws the same") {
  Random random{5489};  // mt19937_64's default seed; its first value is fixed by the standard's algorithm
  CHECK(random.below(1000) == 14514284786278117030ULL % 1000);
  CHECK_THROWS_AS(random.below(0), ValueError);
  CHECK_THROWS_AS(random.distinct(3, 2), ValueError);
  const auto all = random.distinct(10, 10);
  CHECK(std::set<std::size_t>(all.begin(), all.end()).size() == 10);
}

TEST_CASE("an IOI prompt names S twice, asks for IO, and its corrupt form names three others") {
  Random random{1};
  for (int i = 0; i < 200; ++i) {
    const auto prompt = make_ioi(random);
    check_pair(prompt);
    CHECK(piece(prompt, "S1") == piece(prompt, "S2"));
    CHECK(prompt.answers.front() == piece(prompt, "IO"));
    CHECK(prompt.wrong_answers.front() == piece(prompt, "S1"));
    std::set<std::string> names;
    for (const auto* const role : {"S1", "IO", "S2"}) {
      names.insert(prompt.clean[prompt.roles.at(role)]);
      names.insert(prompt.corrupt[prompt.roles.at(role)]);
    }
    CHECK(names.size() == 5);
  }
}

TEST_CASE("ABBA names IO first, BABA names S first") {
  Random random{2};
  const auto abba = make_ioi(random, {.order = IoiOrder::abba});
  const auto baba = make_ioi(random, {.order = IoiOrder::baba});
  CHECK(abba.roles.at("IO") < abba.roles.at("S1"));
  CHECK(baba.roles.at("S1") < baba.roles.at("IO"));
}

TEST_CASE("a third of IOI prompts name S and IO equally often") {
  Random random{3};
  int equal = 0;
  for (int i = 0; i < 600; ++i) {
    const auto prompt = make_ioi(random);
    equal += count(prompt, prompt.answers.front()) == count(prompt, prompt.wrong_answers.front()) ? 1 : 0;
  }
  CHECK(equal > 160);
  CHECK(equal < 240);
}

TEST_CASE("a second pair of people is the same in the clean and the corrupt prompt") {
  Random random{4};
  const auto prompt = make_ioi(random, {.distractor = IoiDistractor::other_pair});
  for (const auto* const role : {"other1", "other2"}) {
    CHECK(prompt.clean[prompt.roles.at(role)] == prompt.corrupt[prompt.roles.at(role)]);
    CHECK(piece(prompt, role) != prompt.answers.front());
  }
}

TEST_CASE("the training and held-out parts of names and templates do not meet") {
  Random random{5};
  for (int i = 0; i < 200; ++i) {
    const auto seen = make_ioi(random, {.pairs = Split::training});
    const auto kept = make_ioi(random, {.pairs = Split::held_out});
    CHECK_FALSE(ioi::is_held_out_pair(piece(seen, "S1").substr(1), piece(seen, "IO").substr(1)));
    CHECK(ioi::is_held_out_pair(piece(kept, "S1").substr(1), piece(kept, "IO").substr(1)));
  }
  CHECK(ioi::openings.size() >= 15);
  CHECK(ioi::is_held_out_pair("Ann", "Bob") == ioi::is_held_out_pair("Bob", "Ann"));
}

TEST_CASE("one template gives prompts that line up") {
  Random random{6};
  const IoiOptions options{.order = IoiOrder::abba,
                           .distractor = IoiDistractor::other_pair,
                           .opening = 0,
                           .adverb = 0,
                           .action = 0,
                           .connective = 1,
                           .other_pair_first = true,
                           .other_opening = 4,
                           .other_adverb = 2,
                           .aside = false};
  const auto first = make_ioi(random, options);
  const auto second = make_ioi(random, options);
  CHECK(first.roles == second.roles);
  CHECK(first.clean.size() == second.clean.size());
}

TEST_CASE("an aside puts one more name behind the giver, the same in the clean and the corrupt prompt") {
  Random random{13};
  for (int i = 0; i < 50; ++i) {
    const auto prompt = make_ioi(random, {.aside = true});
    const auto aside = prompt.roles.at("aside");
    CHECK(aside > prompt.roles.at("S2"));
    CHECK(prompt.clean[aside] == prompt.corrupt[aside]);
    CHECK(prompt.clean[aside] != prompt.answers.front());
    CHECK(prompt.clean[aside] != prompt.wrong_answers.front());
    CHECK(make_ioi(random, {.aside = false}).roles.count("aside") == 0);
  }
}

TEST_CASE("lists ask for what they said, and no held-out pair are friends") {
  Random random{14};
  for (int i = 0; i < 300; ++i) {
    const auto line = make_training_line(random, {.lists_in_ten = 10});
    CHECK_FALSE(line.answers.empty());
    for (const auto answer : line.answers) {
      const auto& word = line.pieces[answer];
      CHECK(std::find(line.pieces.begin(), line.pieces.begin() + static_cast<std::ptrdiff_t>(answer), word) !=
            line.pieces.begin() + static_cast<std::ptrdiff_t>(answer));
    }
    if (line.pieces.front() != "Friends") continue;
    CHECK_FALSE(ioi::is_held_out_pair(line.pieces[2].substr(1), line.pieces[4].substr(1)));
  }
}

TEST_CASE("entries that are not there are refused, and lists of fewer than three words") {
  data::Random random{1};
  for (const auto& options :
       {data::IoiOptions{.opening = 24}, data::IoiOptions{.adverb = 99}, data::IoiOptions{.action = 20},
        data::IoiOptions{.connective = 5}, data::IoiOptions{.other_opening = 24}, data::IoiOptions{.other_adverb = 15},
        data::IoiOptions{.aside_clause = 4}}) {
    CHECK_THROWS_AS(data::make_ioi(random, options), IndexError);
  }
  const auto subordinate = [] {
    for (std::size_t i = 0; i < data::ioi::openings.size(); ++i) {
      if (data::ioi::openings[i].back() == ',') return i;
    }
    return data::ioi::openings.size();
  }();
  CHECK_THROWS_AS(data::make_ioi(random, {.other_opening = subordinate}), ConfigError);
  for (const std::size_t length : {0, 1, 2}) CHECK_THROWS_AS(data::make_induction(random, length), ValueError);
  CHECK(data::make_induction(random, 3).clean.size() > 0);
}

TEST_CASE("a subordinate opening cannot carry a distractor") {
  Random random{7};
  CHECK_THROWS_AS(make_ioi(random, {.distractor = IoiDistractor::equal_mentions, .opening = 16}), ConfigError);
}

TEST_CASE("stories of few names tell of the first women and men alone") {
  Random random{9};
  std::set<std::string> told;
  for (int i = 0; i < 200; ++i) {
    const auto prompt = make_ioi(random, {.names = 4, .pairs = Split::training});
    for (const auto role : {"S1", "IO", "S2"}) told.insert(piece(prompt, role).substr(1));
  }
  std::set<std::string> first{words::women.begin(), words::women.begin() + 4};
  first.insert(words::men.begin(), words::men.begin() + 4);
  CHECK(told == first);
  CHECK_THROWS_AS(make_ioi(random, {.names = 3}), ValueError);  // a story needs eight names
  // Their two pairs that are held out share a man, and a story needs two pairs.
  CHECK(ioi::is_held_out_pair("Anna", "Alan"));
  CHECK_THROWS_AS(make_ioi(random, {.names = 4, .pairs = Split::held_out}), ConfigError);
}

TEST_CASE("induction: the answer followed the asked word before") {
  Random random{8};
  for (int i = 0; i < 50; ++i) {
    const auto prompt = make_induction(random);
    check_pair(prompt);
    CHECK(piece(prompt, "first") == piece(prompt, "second"));
    CHECK(prompt.roles.at("source") == prompt.roles.at("first") + 1);
    CHECK(piece(prompt, "source") == prompt.answers.front());
  }
}

TEST_CASE("agreement: the verb has the subject's number and the time word's tense") {
  Random random{9};
  std::map<std::string, int> answers;
  for (int i = 0; i < 200; ++i) {
    const auto prompt = make_agreement(random);
    check_pair(prompt);
    ++answers[prompt.answers.front()];
    const bool many = prompt.answers.front() == " were" || prompt.answers.front() == " are";
    const bool known = std::any_of(words::nouns.begin(), words::nouns.end(), [&](const words::Noun& noun) {
      return piece(prompt, "subject") == ' ' + std::string{many ? noun.many : noun.one};
    });
    CHECK(known);
  }
  CHECK(answers.size() == 4);
}

TEST_CASE("greater-than: every later year of the century is right, no earlier one, and the corrupt start is 01") {
  Random random{10};
  for (int i = 0; i < 50; ++i) {
    const auto prompt = make_greater_than(random);
    check_pair(prompt);
    const auto start = std::stoul(piece(prompt, "start"));
    CHECK(prompt.corrupt[prompt.roles.at("start")] == "01");
    CHECK(prompt.answers.size() == 99 - start);
    CHECK(std::stoul(prompt.answers.front()) == start + 1);
    CHECK(prompt.answers.size() + prompt.wrong_answers.size() == 100);
    CHECK(piece(prompt, "century") == prompt.clean.back());
  }
}

TEST_CASE("pronoun: the answer has the subject's gender, not another person's") {
  Random random{11};
  for (int i = 0; i < 100; ++i) {
    const auto prompt = make_pronoun(random);
    check_pair(prompt);
    const auto name = piece(prompt, "name").substr(1);
    const bool woman = std::find(words::women.begin(), words::women.end(), name) != words::women.end();
    CHECK(prompt.answers.front() == (woman ? " she" : " he"));
  }
}

TEST_CASE("training lines fit the context and mark the answer's piece") {
  Random random{12};
  std::size_t longest = 0;
  int asked = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto line = make_training_line(random);
    longest = std::max(longest, line.pieces.size() + 1);
    asked += line.answers.empty() ? 0 : 1;
    for (const auto answer : line.answers) CHECK(answer < line.pieces.size());
  }
  CHECK(longest <= 48);
  CHECK(asked > 1700);
}
