#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"

namespace circuit {

/// A byte-pair encoding as data. Tokens are raw bytes, not a vocabulary file's spelling of them.
struct BpeVocabulary {
  std::vector<std::string> tokens{};                            ///< by id; empty where an id stands for nothing
  std::vector<std::pair<std::int32_t, std::int32_t>> merges{};  ///< ids of left and right, first merge first
  bool whole_words_first = false;  ///< a word that is a token is taken whole, whatever the merges say
  /// Empty: merging begins with bytes. Else it begins with characters, and one that is no token becomes its bytes: the
  /// ids of the 256 bytes in order, which may differ from those of characters spelt the same.
  std::vector<std::int32_t> byte_tokens{};
  /// By id, instead of merges, as SentencePiece's BPE: neighbours whose joined text is a token merge, the best score
  /// first; byte tokens take no part.
  std::vector<float> scores{};
};

namespace detail {

struct StringHash {
  using is_transparent = void;
  [[nodiscard]] std::size_t operator()(std::string_view text) const noexcept {
    return std::hash<std::string_view>{}(text);
  }
};

using TokenIndex = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

}  // namespace detail

/// Splits words into tokens by merging, again and again, the neighbours whose merge comes first.
/// Encoding is const and safe from several threads.
/// source  Sennrich et al. 2016, section 3.2, on bytes as in Radford et al. 2019
class Bpe {
 public:
  /// Memory that one thread reuses from word to word.
  struct Scratch;

  /// throws  ConfigError  when a printable ASCII byte is no token, or there are not 256 byte tokens
  /// throws  FormatError  when a token has two ids, a merge joins unknown tokens, makes an unknown one or is there
  ///                      twice, a score is not finite or a scored token absurdly long
  explicit Bpe(BpeVocabulary vocabulary, const std::filesystem::path& file = {});

  [[nodiscard]] const BpeVocabulary& vocabulary() const noexcept { return vocabulary_; }
  [[nodiscard]] std::optional<std::int32_t> find(std::string_view bytes) const {
    const auto found = index_.find(bytes);
    return found == index_.end() ? std::nullopt : std::optional{found->second};
  }

  /// Whether some token can stand for this byte. Bytes that none can are left out, as in the Python package
  /// `tokenizers`; published vocabularies lack a few control characters.
  [[nodiscard]] bool has_byte(char byte) const noexcept { return bytes_[static_cast<std::uint8_t>(byte)] >= 0; }

  /// Appends the tokens of one word, which is UTF-8 where merging begins with characters. Time grows as n log n with
  /// its length.
  void encode_word(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const;

 private:
  struct Merge {
    std::int32_t rank;
    std::int32_t id;
  };

  [[nodiscard]] static std::uint64_t key(std::int32_t left, std::int32_t right) noexcept {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) | static_cast<std::uint32_t>(right);
  }
  void index_tokens(const std::filesystem::path& file);
  void index_bytes(const std::filesystem::path& file);
  void index_merges(const std::filesystem::path& file);
  void index_scores(const std::filesystem::path& file);
  void add_splits(std::int32_t id, std::int32_t rank);
  void begin_with_bytes(std::string_view bytes, Scratch& scratch) const;
  void begin_with_characters(std::string_view word, Scratch& scratch) const;
  void offer(std::int32_t left, std::int32_t right, Scratch& scratch) const;
  void merge_symbols(Scratch& scratch) const;

  BpeVocabulary vocabulary_;
  detail::TokenIndex index_;
  std::array<std::int32_t, 256> bytes_{};
  std::unordered_map<std::uint64_t, Merge> merges_;
};

struct Bpe::Scratch {
  struct Symbol {
    std::int32_t id;  ///< -1 once merged into the symbol on its left
    std::int32_t previous;
    std::int32_t next;
  };
  struct Candidate {
    std::int32_t rank;
    std::int32_t left;      ///< symbol
    std::int32_t right_id;  ///< what stood on its right when this was found; else the candidate is stale
    std::int32_t left_id;
    std::int32_t merged_id;
    [[nodiscard]] friend bool operator>(const Candidate& a, const Candidate& b) noexcept {
      return std::tie(a.rank, a.left) > std::tie(b.rank, b.left);
    }
  };
  void append(std::int32_t id) {
    const auto i = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({id, i - 1, i + 1});
  }

  std::vector<Symbol> symbols;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
};

inline Bpe::Bpe(BpeVocabulary vocabulary, const std::filesystem::path& file) : vocabulary_{std::move(vocabulary)} {
  index_tokens(file);
  index_bytes(file);
  vocabulary_.scores.empty() ? index_merges(file) : index_scores(file);
}

inline void Bpe::index_tokens(const std::filesystem::path& file) {
  std::vector<std::uint8_t> is_byte(vocabulary_.tokens.size());
  for (const auto id : vocabulary_.byte_tokens) {
    if (id >= 0 && static_cast<std::size_t>(id) < is_byte.size()) is_byte[static_cast<std::size_t>(id)] = 1;
  }
  index_.reserve(vocabulary_.tokens.size());
  for (std::size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
    const auto& token = vocabulary_.tokens[id];
    if (token.empty() || is_byte[id] != 0) continue;
    if (!index_.emplace(token, static_cast<std::int32_t>(id)).second) {
      throw FormatError{{.file = file, .tensor = token, .problem = "this token has two ids"}};
    }
  }
}

inline void Bpe::index_bytes(const std::filesystem::path& file) {
  const auto& own = vocabulary_.byte_tokens;
  if (!own.empty() && own.size() != bytes_.size()) {
    throw ConfigError{{.file = file, .problem = "byte tokens", .expected = "256", .got = std::to_string(own.size())}};
  }
  for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
    const std::string text(1, static_cast<char>(byte));
    if (!own.empty()) {
      const auto id = static_cast<std::size_t>(own[byte]);
      if (id >= vocabulary_.tokens.size() || vocabulary_.tokens[id] != text) {
        throw FormatError{
            {.file = file, .tensor = "byte token " + std::to_string(byte), .problem = "is missing, or another token"}};
      }
    }
    bytes_[byte] = own.empty() ? find(text).value_or(-1) : own[byte];
    if (bytes_[byte] < 0 && byte >= 0x20 && byte < 0x7F) {
      throw ConfigError{{.file = file,
                         .problem = "the vocabulary has no token for byte " + std::to_string(byte),
                         .expected = "every printable ASCII byte",
                         .hint = "this is no byte-level vocabulary"}};
    }
  }
}

inline void Bpe::index_merges(const std::filesystem::path& file) {
  const auto& tokens = vocabulary_.tokens;
  merges_.reserve(vocabulary_.merges.size());
  for (std::size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) {
    const auto [left, right] = vocabulary_.merges[rank];
    const auto known = [&](std::int32_t id) {
      return id >= 0 && static_cast<std::size_t>(id) < tokens.size() && !tokens[static_cast<std::size_t>(id)].empty();
    };
    const auto bad = [&](std::string problem) {
      return FormatError{{.file = file, .tensor = "merge " + std::to_string(rank), .problem = std::move(problem)}};
    };
    if (!known(left) || !known(right)) throw bad("joins tokens that the vocabulary lacks");
    const auto merged = find(tokens[static_cast<std::size_t>(left)] + tokens[static_cast<std::size_t>(right)]);
    if (!merged) throw bad("makes a token that the vocabulary lacks");
    if (!merges_.emplace(key(left, right), Merge{static_cast<std::int32_t>(rank), *merged}).second) {
      throw bad("is there twice");
    }
  }
}

inline void Bpe::index_scores(const std::filesystem::path& file) {
  constexpr std::size_t longest = 256;  // the work below grows with the square of a length
  const auto& [tokens, merges, whole, bytes, scores] = vocabulary_;
  if (scores.size() != tokens.size()) {
    throw FormatError{{.file = file,
                       .problem = "scores of tokens",
                       .expected = std::to_string(tokens.size()),
                       .got = std::to_string(scores.size())}};
  }
  std::vector<std::int32_t> ids;
  for (const auto& [text, id] : index_) {
    if (!std::isfinite(scores[static_cast<std::size_t>(id)]) || text.size() > longest) {
      throw FormatError{{.file = file,
                         .tensor = "token " + std::to_string(id),
                         .problem = "score not finite or text too long",
                         .expected = "a finite score and at most " + std::to_string(longest) + " bytes",
                         .got = std::to_string(text.size()) + " bytes"}};
    }
    ids.push_back(id);
  }
  const auto score = [&](std::size_t i) { return vocabulary_.scores[static_cast<std::size_t>(ids[i])]; };
  const auto order = detail::order_by(ids.size(), [&](std::size_t a, std::size_t b) { return score(a) > score(b); });
  std::int32_t rank = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (i > 0 && score(order[i]) != score(order[i - 1])) ++rank;
    add_splits(ids[order[i]], rank);
  }
}

/// Every way to make a token of two.
inline void Bpe::add_splits(std::int32_t id, std::int32_t rank) {
  const std::string_view text = vocabulary_.tokens[static_cast<std::size_t>(id)];
  for (std::size_t cut = 1; cut < text.size(); ++cut) {
    const auto left = find(text.substr(0, cut));
    const auto right = left ? find(text.substr(cut)) : std::nullopt;
    if (right) merges_.emplace(key(*left, *right), Merge{rank, id});
  }
}

inline void Bpe::offer(std::int32_t left, std::int32_t right, Scratch& scratch) const {
  if (left < 0 || right < 0) return;
  const auto left_id = scratch.symbols[static_cast<std::size_t>(left)].id;
  const auto right_id = scratch.symbols[static_cast<std::size_t>(right)].id;
  const auto found = merges_.find(key(left_id, right_id));
  if (found == merges_.end()) return;
  scratch.candidates.push({found->second.rank, left, right_id, left_id, found->second.id});
}

inline void Bpe::merge_symbols(Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) offer(i, i + 1, scratch);
  while (!scratch.candidates.empty()) {
    const auto best = scratch.candidates.top();
    scratch.candidates.pop();
    auto& left = symbols[static_cast<std::size_t>(best.left)];
    if (left.id != best.left_id || left.next < 0) continue;
    auto& right = symbols[static_cast<std::size_t>(left.next)];
    if (right.id != best.right_id) continue;
    left.id = best.merged_id;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) symbols[static_cast<std::size_t>(left.next)].previous = best.left;
    offer(left.previous, best.left, scratch);
    offer(best.left, left.next, scratch);
  }
}

inline void Bpe::encode_word(std::string_view word, std::vector<std::int32_t>& ids, Scratch& scratch) const {
  if (vocabulary_.whole_words_first) {
    if (const auto whole = find(word)) return ids.push_back(*whole);
  }
  if (word.size() >= static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw ValueError{{.problem = "a word is too long", .got = std::to_string(word.size()) + " bytes"}};
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  vocabulary_.byte_tokens.empty() ? begin_with_bytes(word, scratch) : begin_with_characters(word, scratch);
  if (symbols.empty()) return;
  symbols.back().next = -1;
  merge_symbols(scratch);
  for (const auto& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

inline void Bpe::begin_with_bytes(std::string_view bytes, Scratch& scratch) const {
  for (const auto byte : bytes) {
    if (has_byte(byte)) scratch.append(bytes_[static_cast<std::uint8_t>(byte)]);
  }
}

inline void Bpe::begin_with_characters(std::string_view word, Scratch& scratch) const {
  while (!word.empty()) {
    const auto character = word.substr(0, detail::utf8_step(word).length);
    const auto id = find(character);
    id ? scratch.append(*id) : begin_with_bytes(character, scratch);
    word.remove_prefix(character.size());
  }
}

}  // namespace circuit
