#include "circuit/text/train_bpe.hpp"

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"
#include "circuit/text/load_tokenizer.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

const std::vector<std::string> texts{
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The banana that Ann and Anna ate was the best of all bananas in 1987.",
    "She isn't here; they're there, and the others aren't.",
};

}  // namespace

TEST_CASE("train_bpe: words are counted as GPT-2 splits them") {
  CHECK(count_words(std::vector<std::string>{"a a's", " a 12b"}) ==
        WordCounts{{" 12", 1}, {" a", 2}, {"'s", 1}, {"a", 1}, {"b", 1}});
}

TEST_CASE("train_bpe: merges follow the counts by hand") {
  // Pairs: ab 5, bc 3+1, then abc 3, then nothing more often than twice but "bc" once.
  const auto trained = train_bpe(WordCounts{{"ab", 2}, {"abc", 3}, {"bc", 1}}, {.vocab_size = 300, .bos = ""});
  const auto& tokens = trained.vocabulary.tokens;
  REQUIRE(tokens.size() == 258);
  CHECK(tokens[256] == "ab");
  CHECK(tokens[257] == "abc");
}

TEST_CASE("train_bpe: every forced word is one token, in and out of context") {
  std::mt19937 random{3};
  for (int trial = 0; trial < 30; ++trial) {
    std::vector<std::string> words{"When", " Mary", " John", "19", " 87", "'s", "?"};
    for (int i = 0; i < 40; ++i) {
      std::string word = random() % 2 == 0 ? " " : "";
      for (auto n = 2 + random() % 9; n > 0; --n) word += static_cast<char>('a' + static_cast<int>(random() % 3));
      words.push_back(word);
    }
    auto counts = count_words(texts);
    for (std::size_t i = 0; i < words.size(); i += 2) counts.emplace_back(words[i], 1 + random() % 9);
    const auto tokenizer = train_bpe(counts, {.vocab_size = 2000, .whole_words = words}).tokenizer();
    for (const auto& word : words) {
      INFO(word);
      CHECK(tokenizer.encode(word).size() == 1);
    }
    CHECK(tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]);
  }
}

TEST_CASE("train_bpe: completion alone makes words whole and keeps those that are") {
  const WordCounts first{{" abab", 1}, {"aab", 1}};
  const WordCounts second{{" ababa", 1}, {"baab", 1}, {"bab", 1}};
  detail::BpeTrainer trainer{{.vocab_size = 400}};
  REQUIRE(trainer.complete(first));
  REQUIRE(trainer.complete(second));
  const Tokenizer tokenizer{trainer.vocabulary()};
  for (const auto& words : {first, second}) {
    for (const auto& [word, unused] : words) CHECK(tokenizer.encode(word).size() == 1);
  }
}

TEST_CASE("train_bpe: the vocabulary is filled to its size and no further, with the BOS last") {
  const auto trained = train_bpe(count_words(texts), {.vocab_size = 280, .min_count = 1});
  CHECK(trained.vocabulary.tokens.size() == 279);
  CHECK(trained.tokenizer().size() == 280);
  CHECK(trained.tokenizer().bos_id() == 279);
  const auto all = train_bpe(count_words(texts), {.vocab_size = 100'000, .min_count = 1});
  for (const auto& [word, unused] : count_words(texts)) CHECK(all.tokenizer().encode(word).size() == 1);
}

TEST_CASE("train_bpe: the order of words does not matter") {
  auto counts = count_words(texts);
  const auto forward = train_bpe(counts, {.vocab_size = 330});
  std::reverse(counts.begin(), counts.end());
  const auto backward = train_bpe(counts, {.vocab_size = 330});
  CHECK(forward.vocabulary.merges == backward.vocabulary.merges);
  CHECK(forward.vocabulary.tokens == backward.vocabulary.tokens);
}

TEST_CASE("train_bpe: what is saved is what is loaded") {
  const Folder folder;
  const auto trained = train_bpe(count_words(texts), {.vocab_size = 320, .whole_words = {" Mary"}});
  save_tokenizer_json(folder.path / "tokenizer.json", trained);
  const auto loaded = load_tokenizer(folder.path);
  CHECK(loaded.vocabulary().tokens.size() >= trained.vocabulary.tokens.size());
  CHECK(loaded.vocabulary().merges == trained.vocabulary.merges);
  CHECK(loaded.bos_id() == trained.tokenizer().bos_id());
  for (const auto& text : texts) CHECK(loaded.encode(text) == trained.tokenizer().encode(text));
}

TEST_CASE("train_bpe: a vocabulary too small for the forced words, and words that are several, are refused") {
  const auto counts = count_words(texts);
  CHECK_THROWS_AS(train_bpe(counts, {.vocab_size = 256}), ConfigError);
  CHECK_THROWS_AS(train_bpe(counts, {.vocab_size = 260, .whole_words = {" Mary", " John"}}), ConfigError);
  CHECK_THROWS_AS(train_bpe(counts, {.whole_words = {" Mary Ann"}}), ValueError);
  CHECK_THROWS_AS(train_bpe(counts, {.whole_words = {""}}), ValueError);
  CHECK_THROWS_AS(train_bpe(counts, {.whole_words = {"\xFF"}}), ValueError);
  CHECK_THROWS_AS(count_words(std::vector<std::string>{"ok", "\xFF"}), ValueError);
}
