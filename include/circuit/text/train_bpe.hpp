#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/error.hpp"
#include "circuit/text/bpe.hpp"
#include "circuit/text/spelling.hpp"
#include "circuit/text/tokenizer.hpp"
#include "circuit/text/words.hpp"

namespace circuit {

/// Words with how often each occurs.
using WordCounts = std::vector<std::pair<std::string, std::size_t>>;

struct BpeTrainingOptions {
  std::size_t vocab_size = 4096;           ///< at most so many tokens: 256 bytes, merges and the BOS
  std::vector<std::string> whole_words{};  ///< each becomes one token, whatever its count, such as " Mary"
  std::string bos = "<|endoftext|>";       ///< gets the last id, as GPT-2's; empty for none
  std::size_t min_count = 2;               ///< pairs rarer than this are not merged, except within whole words
};

/// What training makes; `tokenizer()` uses it, save_tokenizer_json stores it.
struct TrainedBpe {
  BpeVocabulary vocabulary{};
  std::string bos{};  ///< "" for none; its id follows the vocabulary's

  [[nodiscard]] std::vector<AddedToken> added_tokens() const {
    if (bos.empty()) return {};
    return {{.text = bos, .id = static_cast<std::int32_t>(vocabulary.tokens.size())}};
  }
  [[nodiscard]] Tokenizer tokenizer() const { return Tokenizer{vocabulary, added_tokens(), bos}; }
};

namespace detail {

/// Merges the most frequent neighbours of a set of words, one pair at a time; ties go to the smaller ids.
class PairMerger {
 public:
  using Pair = std::pair<std::int32_t, std::int32_t>;

  struct Word {
    std::vector<std::int32_t> ids;
    std::int64_t count;
  };

  explicit PairMerger(std::vector<Word> words) : words_{std::move(words)} {
    for (std::size_t i = 0; i < words_.size(); ++i) change_counts(i, +1);
    for (const auto& [pair, place] : pairs_) queue_.push({place.count, pair});
  }

  /// return  the most frequent pair and its count; a count of 0 when no word has two tokens left
  [[nodiscard]] std::pair<Pair, std::int64_t> best() {
    while (!queue_.empty()) {
      const auto top = queue_.top();
      const auto found = pairs_.find(top.pair);
      const auto count = found == pairs_.end() ? 0 : found->second.count;
      if (count == top.count) return {top.pair, count};
      queue_.pop();
      if (count > 0) queue_.push({count, top.pair});
    }
    return {};
  }

  void merge(Pair pair, std::int32_t merged) {
    auto places = std::move(pairs_.at(pair).words);
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    changed_.clear();
    for (const auto i : places) {
      change_counts(i, -1);
      join(words_[i].ids, pair, merged);
      change_counts(i, +1);
    }
    for (const auto& [touched, unused] : changed_) {
      const auto found = pairs_.find(touched);
      if (found == pairs_.end()) continue;
      if (found->second.count == 0) {
        pairs_.erase(found);
      } else {
        queue_.push({found->second.count, touched});
      }
    }
  }

 private:
  struct Place {
    std::int64_t count = 0;
    std::vector<std::size_t> words;  // may name a word twice, or one that lost the pair since
  };
  struct Entry {
    std::int64_t count;
    Pair pair;
    [[nodiscard]] friend bool operator<(const Entry& a, const Entry& b) noexcept {
      return a.count != b.count ? a.count < b.count : a.pair > b.pair;
    }
  };

  static void join(std::vector<std::int32_t>& ids, Pair pair, std::int32_t merged) {
    std::size_t kept = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool found = i + 1 < ids.size() && Pair{ids[i], ids[i + 1]} == pair;
      ids[kept++] = found ? merged : ids[i];
      if (found) ++i;
    }
    ids.resize(kept);
  }

  void change_counts(std::size_t i, std::int64_t sign) {
    const auto& word = words_[i];
    for (std::size_t j = 0; j + 1 < word.ids.size(); ++j) {
      const Pair pair{word.ids[j], word.ids[j + 1]};
      auto& place = pairs_[pair];
      place.count += sign * word.count;
      if (sign > 0 && (place.words.empty() || place.words.back() != i)) place.words.push_back(i);
      changed_[pair] = true;
    }
  }

  std::vector<Word> words_;
  std::map<Pair, Place> pairs_;
  std::map<Pair, bool> changed_;
  std::priority_queue<Entry> queue_;
};

class BpeTrainer {
 public:
  explicit BpeTrainer(const BpeTrainingOptions& options) : room_{options.vocab_size - (options.bos.empty() ? 0 : 1)} {
    // Bytes in the order of their spelling, as GPT-2 numbers them.
    std::vector<std::pair<char16_t, char>> bytes;
    constexpr auto characters = byte_characters();
    for (std::size_t byte = 0; byte < characters.size(); ++byte) {
      bytes.emplace_back(characters[byte], static_cast<char>(byte));
    }
    std::sort(bytes.begin(), bytes.end());
    for (const auto& [character, byte] : bytes) (void)token(std::string(1, byte));
  }

  [[nodiscard]] BpeVocabulary& vocabulary() noexcept { return vocabulary_; }

  /// Merges pairs within `words` until every one is rarer than `min_count`.
  /// return  false when the vocabulary was full before that
  bool train(std::span<const std::pair<std::string, std::size_t>> words, std::size_t min_count) {
    PairMerger merger{split(words)};
    while (true) {
      const auto [pair, count] = merger.best();
      if (count == 0 || static_cast<std::size_t>(count) < min_count) return true;
      const auto& tokens = vocabulary_.tokens;
      auto text = tokens[static_cast<std::size_t>(pair.first)] + tokens[static_cast<std::size_t>(pair.second)];
      if (tokens.size() >= room_ && !index_.contains(text)) return false;
      merger.merge(pair, token(std::move(text)));
      vocabulary_.merges.push_back(pair);
    }
  }

  /// Appends merges until each of `words` is one token. Training alone can miss that: it applies the merges one after
  /// the other, while encoding may return to an earlier merge once a later one has made its left side by another way.
  /// What is appended ranks last, so words that are whole already stay whole.
  /// return  false when the vocabulary was full before that
  bool complete(std::span<const std::pair<std::string, std::size_t>> words) {
    for (const auto& [word, unused] : words) {
      for (auto ids = pieces(word); ids.size() > 1; ids = pieces(word)) {
        if (vocabulary_.tokens.size() >= room_) return false;
        const auto& tokens = vocabulary_.tokens;
        (void)token(tokens[static_cast<std::size_t>(ids[0])] + tokens[static_cast<std::size_t>(ids[1])]);
        vocabulary_.merges.emplace_back(ids[0], ids[1]);
        bpe_.reset();
      }
    }
    return true;
  }

 private:
  [[nodiscard]] std::vector<std::int32_t> pieces(std::string_view word) {
    if (!bpe_) bpe_.emplace(vocabulary_);
    std::vector<std::int32_t> ids;
    Bpe::Scratch scratch;
    bpe_->encode_word(word, ids, scratch);
    return ids;
  }

  [[nodiscard]] std::int32_t token(std::string text) {
    const auto [found, added] = index_.emplace(text, static_cast<std::int32_t>(vocabulary_.tokens.size()));
    if (added) vocabulary_.tokens.push_back(std::move(text));
    return found->second;
  }

  [[nodiscard]] std::vector<PairMerger::Word> split(std::span<const std::pair<std::string, std::size_t>> words) const {
    const Bpe bpe{vocabulary_};
    Bpe::Scratch scratch;
    std::vector<PairMerger::Word> result;
    for (const auto& [text, count] : words) {
      PairMerger::Word word{.ids = {}, .count = static_cast<std::int64_t>(count)};
      bpe.encode_word(text, word.ids, scratch);
      if (word.ids.size() > 1 && count > 0) result.push_back(std::move(word));
    }
    return result;
  }

  std::size_t room_;
  BpeVocabulary vocabulary_;
  TokenIndex index_;
  std::optional<Bpe> bpe_;  // of vocabulary_, while complete() looks at words
};

}  // namespace detail

/// Splits texts into GPT-2's words and counts them, in alphabetical order.
/// throws  ValueError  when a text is not UTF-8
[[nodiscard]] inline WordCounts count_words(std::span<const std::string> texts) {
  const auto words = gpt2_words();
  std::map<std::string, std::size_t, std::less<>> counts;
  for (const auto& text : texts) {
    check_utf8(text);
    words.split(text, [&](std::string_view word) {
      const auto found = counts.find(word);
      if (found == counts.end()) {
        counts.emplace(word, 1);
      } else {
        ++found->second;
      }
    });
  }
  return {counts.begin(), counts.end()};
}

/// Learns a byte-level BPE: first the merges that make every whole word one token, by the same rule on those words
/// alone, then merges by count over all words until the vocabulary is full. The later merges come after in rank, so
/// they cannot take a whole word apart. The result depends on the words, counts and options only. throws  ConfigError
/// when the vocabulary is too small for the whole words throws  ValueError   when a whole word is empty, not UTF-8, or
/// not one word of GPT-2's split source  Sennrich et al. 2016, section 3.2
[[nodiscard]] inline TrainedBpe train_bpe(std::span<const std::pair<std::string, std::size_t>> word_counts,
                                          const BpeTrainingOptions& options = {}) {
  constexpr std::size_t bytes = 256;
  if (options.vocab_size <= bytes) {
    throw ConfigError{{.tensor = "vocab_size", .expected = "more than 256", .got = std::to_string(options.vocab_size)}};
  }
  const auto words = gpt2_words();
  std::map<std::string, std::size_t> forced;
  for (const auto& word : options.whole_words) {
    check_utf8(word);
    std::size_t pieces = 0;
    words.split(word, [&](std::string_view) { ++pieces; });
    if (pieces != 1) throw ValueError{{.tensor = word, .problem = "cannot be one token", .expected = "one word"}};
    forced[word] = 1;
  }
  for (const auto& [word, count] : word_counts) {
    if (const auto found = forced.find(word); found != forced.end()) found->second += count;
  }

  detail::BpeTrainer trainer{options};
  const WordCounts whole(forced.begin(), forced.end());
  if (!trainer.train(whole, 1) || !trainer.complete(whole)) {
    throw ConfigError{{.tensor = "vocab_size",
                       .problem = "the vocabulary is full before every whole word is one token",
                       .got = std::to_string(options.vocab_size),
                       .hint = "raise it, or force fewer words"}};
  }
  trainer.train(word_counts, std::max<std::size_t>(options.min_count, 1));
  return {.vocabulary = std::move(trainer.vocabulary()), .bos = options.bos};
}

/// Writes a tokenizer.json that the Python package `tokenizers` loads and reads the same way.
/// throws  FileError  when `path` cannot be written
inline void save_tokenizer_json(const std::filesystem::path& path, const TrainedBpe& trained) {
  using json = nlohmann::ordered_json;
  auto vocab = json::object();
  auto merges = json::array();
  const auto& tokens = trained.vocabulary.tokens;
  const auto spelt = [&](std::int32_t id) { return to_byte_level(tokens[static_cast<std::size_t>(id)]); };
  // nlohmann's ordered objects look keys up one by one; items are appended directly to stay linear.
  auto& items = vocab.get_ref<json::object_t&>();
  for (std::size_t id = 0; id < tokens.size(); ++id) items.push_back({to_byte_level(tokens[id]), json(id)});
  for (const auto& [left, right] : trained.vocabulary.merges) merges.push_back(spelt(left) + " " + spelt(right));

  auto added = json::array();
  for (const auto& token : trained.added_tokens()) {
    items.push_back({token.text, json(token.id)});
    added.push_back({{"id", token.id},
                     {"content", token.text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  const json root{{"version", "1.0"},
                  {"truncation", nullptr},
                  {"padding", nullptr},
                  {"added_tokens", added},
                  {"normalizer", nullptr},
                  {"pre_tokenizer", byte_level},
                  {"post_processor", byte_level},
                  {"decoder", byte_level},
                  {"model",
                   {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false},
                    {"ignore_merges", trained.vocabulary.whole_words_first},
                    {"vocab", std::move(vocab)},
                    {"merges", std::move(merges)}}}};
  write_file(path, root.dump(1, ' ') + '\n');
}

}  // namespace circuit
