#include "circuit/text/bpe.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace circuit;
using Ids = std::vector<std::int32_t>;

namespace {

BpeVocabulary byte_vocabulary() {
  BpeVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(std::string(1, static_cast<char>(byte)));
  return vocabulary;
}

Ids encode(const Bpe& bpe, const std::string& word) {
  Ids ids;
  Bpe::Scratch scratch;
  bpe.encode_word(word, ids, scratch);
  return ids;
}

/// The definition, word for word: find the neighbours with the first merge, leftmost on ties, join, repeat.
Ids by_definition(const BpeVocabulary& vocabulary, const std::string& word) {
  std::map<std::pair<std::int32_t, std::int32_t>, std::size_t> ranks;
  for (std::size_t rank = 0; rank < vocabulary.merges.size(); ++rank) ranks[vocabulary.merges[rank]] = rank;
  Ids ids;
  for (const auto byte : word) ids.push_back(static_cast<std::uint8_t>(byte));
  while (true) {
    std::size_t best = vocabulary.merges.size();
    std::size_t where = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = ranks.find({ids[i], ids[i + 1]});
      if (found == ranks.end() || found->second >= best) continue;
      best = found->second;
      where = i;
    }
    if (best == vocabulary.merges.size()) return ids;
    const auto text = vocabulary.tokens[static_cast<std::size_t>(ids[where])] +
                      vocabulary.tokens[static_cast<std::size_t>(ids[where + 1])];
    const auto token = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text);
    ids[where] = static_cast<std::int32_t>(token - vocabulary.tokens.begin());
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(where) + 1);
  }
}

}  // namespace

TEST_CASE("bpe: the first merge in the list is made first, wherever it stands") {
  auto vocabulary = byte_vocabulary();
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"bc", "ab", "abc"});
  vocabulary.merges = {{'b', 'c'}, {'a', 'b'}};
  CHECK(encode(Bpe{vocabulary}, "abc") == Ids{'a', 256});
  vocabulary.merges = {{'a', 'b'}, {'b', 'c'}};
  CHECK(encode(Bpe{vocabulary}, "abc") == Ids{257, 'c'});
  vocabulary.merges = {{'a', 'b'}, {'b', 'c'}, {257, 'c'}};
  CHECK(encode(Bpe{vocabulary}, "abc") == Ids{258});
}

TEST_CASE("bpe: repeated letters are joined from the left") {
  auto vocabulary = byte_vocabulary();
  vocabulary.tokens.push_back("aa");
  vocabulary.merges = {{'a', 'a'}};
  CHECK(encode(Bpe{vocabulary}, "aaaaa") == Ids{256, 256, 'a'});
  CHECK(encode(Bpe{vocabulary}, "").empty());
}

TEST_CASE("bpe: any list of merges gives what the definition gives") {
  std::mt19937 random{7};
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  for (int trial = 0; trial < 60; ++trial) {
    auto vocabulary = byte_vocabulary();
    std::vector<std::int32_t> parts{'a', 'b', 'c'};
    for (int merge = 0; merge < 25; ++merge) {
      const std::pair pair{parts[below(parts.size())], parts[below(parts.size())]};
      if (std::find(vocabulary.merges.begin(), vocabulary.merges.end(), pair) != vocabulary.merges.end()) continue;
      const auto text = vocabulary.tokens[static_cast<std::size_t>(pair.first)] +
                        vocabulary.tokens[static_cast<std::size_t>(pair.second)];
      vocabulary.merges.insert(
          vocabulary.merges.begin() + static_cast<std::ptrdiff_t>(below(vocabulary.merges.size() + 1)), pair);
      if (std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), text) == vocabulary.tokens.end()) {
        parts.push_back(static_cast<std::int32_t>(vocabulary.tokens.size()));
        vocabulary.tokens.push_back(text);
      }
    }
    const Bpe bpe{vocabulary};
    for (int sample = 0; sample < 20; ++sample) {
      std::string word;
      for (auto n = 1 + below(30); n > 0; --n) word += static_cast<char>('a' + below(3));
      INFO(word);
      CHECK(encode(bpe, word) == by_definition(vocabulary, word));
    }
  }
}

TEST_CASE("bpe: a long word costs little more than its length") {
  auto vocabulary = byte_vocabulary();
  std::int32_t last = 'a';
  for (int doubling = 0; doubling < 16; ++doubling) {  // aa, aaaa, ...: every merge is followed by another one
    vocabulary.merges.push_back({last, last});
    const auto text = vocabulary.tokens[static_cast<std::size_t>(last)];
    last = static_cast<std::int32_t>(vocabulary.tokens.size());
    vocabulary.tokens.push_back(text + text);
  }
  CHECK(encode(Bpe{vocabulary}, std::string(1U << 19U, 'a')) == Ids(8, last));
}

TEST_CASE("bpe: a word that is a token is taken whole where the vocabulary says so") {
  auto vocabulary = byte_vocabulary();
  vocabulary.tokens.push_back("xyz");
  CHECK(encode(Bpe{vocabulary}, "xyz") == Ids{'x', 'y', 'z'});
  vocabulary.whole_words_first = true;
  CHECK(encode(Bpe{vocabulary}, "xyz") == Ids{256});
}

TEST_CASE("bpe: vocabularies and merges that contradict each other are refused") {
  auto lacking = byte_vocabulary();
  lacking.tokens['A'] = "";
  CHECK_THROWS_AS(Bpe{lacking}, ConfigError);
  lacking.tokens['A'] = "A";
  lacking.tokens[4] = "";  // a control character, which some published vocabularies lack
  CHECK_FALSE(Bpe{lacking}.has_byte('\x04'));
  CHECK(encode(Bpe{lacking},
               "A\x04"
               "B") == Ids{'A', 'B'});
  auto doubled = byte_vocabulary();
  doubled.tokens.push_back("a");
  CHECK_THROWS_AS(Bpe{doubled}, FormatError);
  for (const auto& merge : {std::pair<std::int32_t, std::int32_t>{-1, 0}, {0, 300}, {'a', 'b'}}) {
    auto wrong = byte_vocabulary();
    wrong.merges = {merge};
    CHECK_THROWS_AS(Bpe{wrong}, FormatError);
  }
  auto twice = byte_vocabulary();
  twice.tokens.push_back("ab");
  twice.merges = {{'a', 'b'}, {'a', 'b'}};
  CHECK_THROWS_AS(Bpe{twice}, FormatError);
}

TEST_CASE("bpe: merging may begin with characters, and with bytes for those that are no token") {
  auto vocabulary = byte_vocabulary();
  for (std::int32_t byte = 0; byte < 256; ++byte) vocabulary.byte_tokens.push_back(byte);
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"a", "\xC3\xA9", "a\xC3\xA9"});
  vocabulary.merges = {{256, 257}};
  const Bpe bpe{vocabulary};
  CHECK(encode(bpe, "a\xC3\xA9") == Ids{258});
  CHECK(encode(bpe,
               "\xC3\xA9"
               "b") == Ids{257, 'b'});
  CHECK(encode(bpe, "\xC3\xAA") == Ids{0xC3, 0xAA});

  vocabulary.byte_tokens.pop_back();
  CHECK_THROWS_AS(Bpe{vocabulary}, ConfigError);
  vocabulary.byte_tokens.push_back(7);
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
  vocabulary.byte_tokens.back() = -1;
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
  vocabulary.byte_tokens.back() = 1 << 30;
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
}

TEST_CASE("bpe: with scores, the neighbours that make the best token merge first") {
  auto vocabulary = byte_vocabulary();
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"ab", "bc", "abc", "cd"});
  vocabulary.scores.assign(vocabulary.tokens.size(), -100);
  const auto with = [&](float ab, float bc, float abc, float cd) {
    std::copy_n(std::vector{ab, bc, abc, cd}.begin(), 4, vocabulary.scores.begin() + 256);
    return Bpe{vocabulary};
  };
  CHECK(encode(with(-1, -2, -3, -4), "abcd") == Ids{258, 'd'});         // ab, then abc
  CHECK(encode(with(-2, -1, -3, -4), "abcd") == Ids{258, 'd'});         // bc, then abc by another way
  CHECK(encode(with(-1, -2, -4, -3), "abcd") == Ids{256, 259});         // ab, then cd before abc
  CHECK(encode(with(-1, -1, -4, -1), "abcbcd") == Ids{258, 257, 'd'});  // leftmost of equals

  vocabulary.scores.back() = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
  vocabulary.scores.pop_back();
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
  vocabulary.scores.push_back(0);
  vocabulary.tokens.back() = std::string(5000, 'x');
  CHECK_THROWS_AS(Bpe{vocabulary}, FormatError);
}
