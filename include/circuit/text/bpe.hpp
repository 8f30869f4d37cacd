#pragma once

#include <algorithm>
#include <array>
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

namespace circuit {

/// A byte-level byte-pair encoding as data. Tokens are raw bytes, not a vocabulary file's spelling of them.
struct BpeVocabulary {
  std::vector<std::string> tokens{};                            ///< by id; empty where an id stands for nothing
  std::vector<std::pair<std::int32_t, std::int32_t>> merges{};  ///< ids of left and right, first merge first
  bool whole_words_first = false;  ///< a word that is a token is taken whole, whatever the merges say
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

  /// throws  ConfigError  when one of the 256 single bytes is no token
  /// throws  FormatError  when a merge joins unknown tokens, makes an unknown one or is there twice
  explicit Bpe(BpeVocabulary vocabulary, const std::filesystem::path& file = {});

  [[nodiscard]] const BpeVocabulary& vocabulary() const noexcept { return vocabulary_; }
  [[nodiscard]] std::optional<std::int32_t> find(std::string_view bytes) const {
    const auto found = index_.find(bytes);
    return found == index_.end() ? std::nullopt : std::optional{found->second};
  }

  /// Appends the tokens of one word. Time grows as n log n with its length.
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
  void index_merges(const std::filesystem::path& file);
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
  std::vector<Symbol> symbols;
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
};

inline Bpe::Bpe(BpeVocabulary vocabulary, const std::filesystem::path& file) : vocabulary_{std::move(vocabulary)} {
  index_tokens(file);
  index_merges(file);
}

inline void Bpe::index_tokens(const std::filesystem::path& file) {
  index_.reserve(vocabulary_.tokens.size());
  for (std::size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
    const auto& token = vocabulary_.tokens[id];
    if (!token.empty() && !index_.emplace(token, static_cast<std::int32_t>(id)).second) {
      throw FormatError{{.file = file, .tensor = token, .problem = "this token has two ids"}};
    }
  }
  for (std::size_t byte = 0; byte < bytes_.size(); ++byte) {
    const auto id = find(std::string(1, static_cast<char>(byte)));
    if (!id) {
      throw ConfigError{{.file = file,
                         .problem = "the vocabulary has no token for byte " + std::to_string(byte),
                         .expected = "all 256 bytes",
                         .hint = "only byte-level vocabularies such as GPT-2's are supported"}};
    }
    bytes_[byte] = *id;
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
  for (const auto byte : word) {
    const auto i = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({bytes_[static_cast<std::uint8_t>(byte)], i - 1, i + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  merge_symbols(scratch);
  for (const auto& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace circuit
