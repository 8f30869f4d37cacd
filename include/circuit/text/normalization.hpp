#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/text/charsmap.hpp"
#include "circuit/text/nfc.hpp"

namespace circuit {

/// When a space is put before a stretch of text, so that its first word looks like any other. Stretches lie between
/// added tokens.
enum class PrefixSpace : std::uint8_t { none, always, unless_there, at_start_unless_there };

/// Compiled rules, and what is done with spaces behind them; unigram models have these.
struct CharsmapRules {
  std::shared_ptr<const Charsmap> map{};  ///< or nothing: characters stay
  bool as_tokenizers = false;   ///< the Python package, not the SentencePiece library: of the map, of trimming
  bool join_spaces = false;     ///< several become one
  bool trim_left = false;       ///< none begins a text
  bool trim_right = false;      ///< none ends one
  bool all_whitespace = false;  ///< what Unicode calls white space counts as a space

  [[nodiscard]] bool any() const { return map || join_spaces || trim_left || trim_right || all_whitespace; }
  friend bool operator==(const CharsmapRules&, const CharsmapRules&) = default;
};

/// What is changed in text before it is split into words: NFC, or marks, perhaps behind rules; no published tokenizer
/// wants NFC and marks.
struct Normalization {
  bool nfc = false;            ///< Unicode's normalisation form C
  bool mark_is_space = false;  ///< U+2581, SentencePiece's sign for a space, is read as one
  PrefixSpace prefix = PrefixSpace::none;
  CharsmapRules rules{};

  friend bool operator==(const Normalization&, const Normalization&) = default;
};

/// A stretch that normalisation changed.
struct TextChange {
  std::size_t at;      ///< where it begins in the normalised text, in bytes
  std::size_t length;  ///< its bytes in the normalised text
  std::size_t was;     ///< its bytes in the text
};

/// SentencePiece's sign for a space.
inline constexpr std::string_view space_mark = "\xE2\x96\x81";

/// `text` with every U+2581 replaced by a space.
[[nodiscard]] inline std::string marks_to_spaces(std::string_view text) {
  std::string result;
  for (auto mark = text.find(space_mark); mark != text.npos; mark = text.find(space_mark)) {
    result += text.substr(0, mark);
    result += ' ';
    text.remove_prefix(mark + space_mark.size());
  }
  return result += text;
}

namespace detail {

[[nodiscard]] inline bool wants_prefix(PrefixSpace prefix, std::string_view text, bool at_start) {
  if (prefix == PrefixSpace::none || text.empty()) return false;
  if (prefix == PrefixSpace::always) return true;
  return !text.starts_with(' ') && (prefix == PrefixSpace::unless_there || at_start);
}

/// Appends `to` to `result` in place of `from`.
inline void append_change(std::string_view from, std::string_view to, std::string& result,
                          std::vector<TextChange>& changes) {
  if (from != to) changes.push_back({result.size(), to.size(), from.size()});
  result += to;
}

using Piece = std::pair<std::size_t, std::string>;  // bytes of the text, and what they become

/// Unicode's White_Space.
[[nodiscard]] inline bool is_white_space(std::string_view c) {
  if (c.size() == 1) return c[0] == ' ' || (c[0] >= '\t' && c[0] <= '\r');
  for (const std::string_view space : {"\xC2\x85", "\xC2\xA0", "\xE1\x9A\x80", "\xE2\x80\xA8", "\xE2\x80\xA9",
                                       "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80"}) {
    if (c == space) return true;
  }
  return c.size() == 3 && c.starts_with("\xE2\x80") && static_cast<std::uint8_t>(c[2]) >= 0x80 &&
         static_cast<std::uint8_t>(c[2]) <= 0x8A;
}

/// What the rules make of text, piece by piece.
[[nodiscard]] inline std::vector<Piece> pieces_by_rules(const CharsmapRules& rules, std::string_view text) {
  std::vector<Piece> pieces;
  const auto add = [&](std::string_view from, std::string_view to) {
    pieces.emplace_back(from.size(), rules.all_whitespace && is_white_space(to) ? " " : to);
  };
  if (rules.map && rules.as_tokenizers) {
    rules.map->for_each_grapheme_piece(text, add);
  } else if (rules.map) {
    rules.map->for_each_piece(text, add);
  } else {
    for (; !text.empty(); text.remove_prefix(utf8_step(text).length)) {
      const auto character = text.substr(0, utf8_step(text).length);
      add(character, character);
    }
  }
  return pieces;
}

/// Whether the SentencePiece library, or `tokenizers`, takes this from the end of a text.
[[nodiscard]] inline bool is_trimmed(const CharsmapRules& rules, std::string_view piece) {
  return piece.empty() || is_white_space(piece) ? rules.as_tokenizers || piece.empty() || piece == " "
                                                : !rules.as_tokenizers && piece == space_mark;
}

/// Takes away spaces that the rules do not want. What is left of marks are spaces if `marks`.
inline void drop_spaces(const CharsmapRules& rules, bool marks, std::vector<Piece>& pieces) {
  bool after_space = rules.trim_left;
  for (auto& [was, piece] : pieces) {
    std::string kept;
    for (const char c : piece) {
      if (c != ' ' || !after_space) kept += c;
      if (c != ' ') after_space = false;
      if (c == ' ' && (rules.join_spaces || (after_space && rules.trim_left))) after_space = true;
    }
    piece = std::move(kept);
  }
  for (auto i = pieces.size(); rules.trim_right && i-- > 0;) {
    auto& piece = pieces[i].second;
    while (piece.size() > 1 && piece.ends_with(' ')) piece.pop_back();
    if (!is_trimmed(rules, piece)) break;
    piece.clear();
  }
  // A mark behind a space begins the next word as it is: the space goes.
  for (std::size_t i = 0; marks && rules.all_whitespace && i + 1 < pieces.size(); ++i) {
    if (pieces[i].second == " " && pieces[i + 1].second.starts_with(space_mark)) pieces[i].second.clear();
  }
  for (auto& [was, piece] : pieces) {
    if (marks) piece = marks_to_spaces(piece);
  }
}

}  // namespace detail

/// As normalize, by rules.
inline void normalize_by_rules(const Normalization& how, std::string_view text, bool at_start, std::string& buffer,
                               std::vector<TextChange>& changes) {
  buffer.clear();
  auto pieces = detail::pieces_by_rules(how.rules, text);
  detail::drop_spaces(how.rules, how.mark_is_space, pieces);
  std::string joined;
  for (const auto& [was, piece] : pieces) joined += piece;
  if (detail::wants_prefix(how.prefix, joined, at_start)) detail::append_change("", " ", buffer, changes);
  for (const auto& [was, piece] : pieces) {
    detail::append_change(text.substr(0, was), piece, buffer, changes);
    text.remove_prefix(was);
  }
}

/// `text` (valid UTF-8) normalised, in `buffer` where something changed; `changes` gets the changed stretches in order.
/// at_start  whether nothing stands before `text`
[[nodiscard]] inline std::string_view normalize(const Normalization& how, std::string_view text, bool at_start,
                                                std::string& buffer, std::vector<TextChange>& changes) {
  changes.clear();
  if (how.rules.any()) {
    normalize_by_rules(how, text, at_start, buffer, changes);
    return buffer;
  }
  const bool begins_with_mark = how.mark_is_space && text.starts_with(space_mark);
  const bool prefix =
      detail::wants_prefix(how.prefix, begins_with_mark && how.prefix != PrefixSpace::always ? " " : text, at_start);
  const bool marks = how.mark_is_space && text.find(space_mark) != text.npos;
  if (!prefix && !marks && !how.nfc) return text;
  buffer.clear();
  if (prefix) detail::append_change("", " ", buffer, changes);
  if (how.nfc) {
    for_each_nfc_piece(
        text, [&](std::string_view from, std::string_view to) { detail::append_change(from, to, buffer, changes); });
    return buffer;
  }
  while (marks) {
    const auto mark = text.find(space_mark);
    if (mark == text.npos) break;
    buffer += text.substr(0, mark);
    detail::append_change(space_mark, " ", buffer, changes);
    text.remove_prefix(mark + space_mark.size());
  }
  buffer += text;
  return buffer;
}

/// Takes positions in normalised text, in rising order, back to the text. A position within a changed stretch is the
/// end of that stretch, so that the first token of one stands for all of it.
class OffsetMap {
 public:
  /// changes  in order; must outlive this
  explicit OffsetMap(std::span<const TextChange> changes) : changes_{changes} {}

  [[nodiscard]] std::size_t operator()(std::size_t position) {
    while (!changes_.empty() && changes_.front().at + changes_.front().length <= position) {
      text_ += changes_.front().was;
      normal_ += changes_.front().length;
      changes_ = changes_.subspan(1);
    }
    if (changes_.empty() || changes_.front().at >= position) return position - normal_ + text_;
    return changes_.front().at - normal_ + text_ + changes_.front().was;
  }

 private:
  std::span<const TextChange> changes_;
  std::size_t text_ = 0;    // bytes of the changes so far, in the text
  std::size_t normal_ = 0;  // and in the normalised text
};

}  // namespace circuit
