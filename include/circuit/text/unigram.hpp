#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"

namespace circuit {

/// A unigram language model of tokens as data. Tokens are raw bytes, not a vocabulary file's spelling of them.
struct UnigramVocabulary {
  std::vector<std::string> tokens{};      ///< by id; empty where an id stands for nothing
  std::vector<double> scores{};           ///< by id, log-probabilities
  std::vector<std::uint8_t> in_text{};    ///< by id: whether text may become it; empty: all
  std::optional<std::int32_t> unknown{};  ///< stands for a stretch of characters that no token has
  std::vector<std::int32_t>
      byte_tokens{};              ///< the 256 bytes in order, which stand for such characters instead; or empty
  bool single_precision = false;  ///< scores are added as float32, as the SentencePiece library does
};

/// Splits a word into the tokens whose scores sum to the most (Viterbi). Encoding is const and safe from several
/// threads. source  Kudo 2018, section 3.2; a character without a token counts 10 less than the worst token, as in
/// SentencePiece
class Unigram {
 public:
  /// Memory that one thread reuses from word to word.
  struct Scratch;

  /// throws  ConfigError  when neither an unknown token nor 256 byte tokens are there
  /// throws  FormatError  when scores are not finite or not one per token, or an id is no token's
  explicit Unigram(UnigramVocabulary vocabulary, const std::filesystem::path& file = {});

  [[nodiscard]] const UnigramVocabulary& vocabulary() const noexcept { return vocabulary_; }
  [[nodiscard]] std::optional<std::int32_t> find(std::string_view bytes) const;

  /// Appends the tokens of one word of valid UTF-8, and where each ends in it. Time grows with the word's length times
  /// that of the longest token.
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids, std::vector<std::size_t>& ends,
                   Scratch& scratch) const;

 private:
  static constexpr std::int32_t none = -1;

  /// Calls `visit(length, id)` for the tokens that `text` begins with, the shortest first.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const;
  [[nodiscard]] const std::string& text_of(std::int32_t id) const {
    return vocabulary_.tokens[static_cast<std::size_t>(id)];
  }
  [[nodiscard]] double add(double best, double score) const {
    return vocabulary_.single_precision ? static_cast<double>(static_cast<float>(best + score)) : best + score;
  }
  void check(const std::filesystem::path& file) const;
  void append_unknown(std::string_view characters, std::size_t end, std::vector<std::int32_t>& ids,
                      std::vector<std::size_t>& ends) const;

  UnigramVocabulary vocabulary_;
  std::vector<std::int32_t> sorted_;  // ids of the tokens that text may become, by their bytes
  double unknown_score_ = 0;
};

struct Unigram::Scratch {
  struct Best {
    double score;
    std::size_t from;
    std::int32_t id;  ///< `none` for a character without a token
    bool reached;
  };
  std::vector<Best> best;           // by where a path ends
  std::vector<std::size_t> path{};  // ends of the best path's tokens, backwards
};

inline Unigram::Unigram(UnigramVocabulary vocabulary, const std::filesystem::path& file)
    : vocabulary_{std::move(vocabulary)} {
  check(file);
  const auto& v = vocabulary_;
  std::vector<std::int32_t> ids;
  double lowest = 0;
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.tokens[id].empty() || !(v.in_text.empty() || v.in_text[id] != 0)) continue;
    ids.push_back(static_cast<std::int32_t>(id));
    lowest = ids.size() == 1 ? v.scores[id] : std::min(lowest, v.scores[id]);
  }
  sorted_ = detail::sorted_by(std::move(ids), [&](auto a, auto b) { return text_of(a) < text_of(b); });
  constexpr double penalty = 10;
  unknown_score_ = add(lowest, -penalty);
}

inline void Unigram::check(const std::filesystem::path& file) const {
  const auto& v = vocabulary_;
  const auto bad = [&](std::string name, std::string problem) {
    return FormatError{{.file = file, .tensor = std::move(name), .problem = std::move(problem)}};
  };
  if (v.scores.size() != v.tokens.size()) throw bad("scores", "there is not one for each token");
  for (std::size_t id = 0; id < v.scores.size(); ++id) {
    if (!std::isfinite(v.scores[id])) throw bad("token " + std::to_string(id), "its score is not finite");
  }
  const auto is_token = [&](std::int32_t id) {
    return id >= 0 && static_cast<std::size_t>(id) < v.tokens.size() && !text_of(id).empty();
  };
  if (v.unknown && !is_token(*v.unknown)) throw bad("unk_id", "is no token's");
  const bool all_bytes = v.byte_tokens.size() == 256 && std::ranges::all_of(v.byte_tokens, is_token);
  if (!v.unknown && !all_bytes) {
    throw ConfigError{{.file = file,
                       .tensor = "unk_id",
                       .problem = "is missing, so that not every text has tokens",
                       .expected = "an unknown token, or byte tokens"}};
  }
}

template <class Visit>
void Unigram::for_each_prefix(std::string_view text, Visit&& visit) const {
  const auto byte_at = [&](std::size_t i) {
    return [this, i](std::int32_t id) { return static_cast<unsigned char>(text_of(id)[i]); };
  };
  auto low = sorted_.begin();
  auto high = sorted_.end();
  for (std::size_t i = 0; i < text.size() && low != high; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    low = std::ranges::lower_bound(low, high, byte, {}, byte_at(i));
    high = std::ranges::upper_bound(low, high, byte, {}, byte_at(i));
    if (low == high || text_of(*low).size() != i + 1) continue;
    visit(i + 1, *low);
    // Of tokens spelt the same, as a byte's and a character's, the first counts.
    while (low != high && text_of(*low).size() == i + 1) ++low;
  }
}

inline std::optional<std::int32_t> Unigram::find(std::string_view bytes) const {
  std::optional<std::int32_t> found;
  for_each_prefix(bytes, [&](std::size_t length, std::int32_t id) {
    if (length == bytes.size()) found = id;
  });
  return found;
}

inline void Unigram::encode_word(std::string_view word, std::vector<std::int32_t>& ids, std::vector<std::size_t>& ends,
                                 Scratch& scratch) const {
  auto& best = scratch.best;
  best.assign(word.size() + 1, {0, 0, none, false});
  best[0].reached = true;
  const auto offer = [&](std::size_t from, std::size_t to, double score, std::int32_t id) {
    const auto sum = add(best[from].score, score);
    if (!best[to].reached || sum > best[to].score) best[to] = {sum, from, id, true};
  };
  for (std::size_t from = 0; from < word.size();) {
    const auto character = detail::utf8_step(word.substr(from)).length;
    bool known = false;
    for_each_prefix(word.substr(from), [&](std::size_t length, std::int32_t id) {
      offer(from, from + length, vocabulary_.scores[static_cast<std::size_t>(id)], id);
      known = known || length == character;
    });
    if (!known) offer(from, from + character, unknown_score_, none);
    from += character;
  }
  scratch.path.clear();
  for (auto end = word.size(); end > 0; end = best[end].from) scratch.path.push_back(end);
  std::size_t unknown_from = word.size();  // where a stretch without tokens began
  for (auto i = scratch.path.rbegin(); i != scratch.path.rend(); ++i) {
    const auto& step = best[*i];
    if (step.id != none) {
      ids.push_back(step.id);
      ends.push_back(*i);
      continue;
    }
    unknown_from = std::min(unknown_from, step.from);
    const auto next = std::next(i);
    if (next != scratch.path.rend() && best[*next].id == none) continue;
    append_unknown(word.substr(unknown_from, *i - unknown_from), *i, ids, ends);
    unknown_from = word.size();
  }
}

inline void Unigram::append_unknown(std::string_view characters, std::size_t end, std::vector<std::int32_t>& ids,
                                    std::vector<std::size_t>& ends) const {
  const auto& bytes = vocabulary_.byte_tokens;
  const auto id_of = [&](char c) { return bytes[static_cast<std::uint8_t>(c)]; };
  if (bytes.size() != 256 || !std::ranges::all_of(characters, [&](char c) { return id_of(c) >= 0; })) {
    ids.push_back(*vocabulary_.unknown);
    ends.push_back(end);
    return;
  }
  for (std::size_t i = 0; i < characters.size(); ++i) {
    ids.push_back(id_of(characters[i]));
    ends.push_back(end - characters.size() + i + 1);
  }
}

}  // namespace circuit
