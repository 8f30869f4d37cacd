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
#include "circuit/text/nfkc.hpp"

namespace circuit {

/// When a space is put before a stretch of text, so that its first word looks like any other. Stretches lie between
/// added tokens.
enum class PrefixSpace : std::uint8_t { none, always, at_start, unless_there, at_start_unless_there };

/// Compiled rules, and what is done with spaces behind them; unigram models have these.
struct CharsmapRules {
  std::shared_ptr<const Charsmap> map{};  ///< or nothing: characters stay
  std::vector<std::string> kept{};        ///< sorted: what stays as it is, whatever the map says of it
  bool as_tokenizers = false;   ///< the Python package, not the SentencePiece library: of the map, of trimming
  bool join_spaces = false;     ///< several become one
  bool trim_left = false;       ///< none begins a text
  bool trim_right = false;      ///< none ends one
  bool all_whitespace = false;  ///< what Unicode calls white space counts as a space

  [[nodiscard]] bool any() const {
    return map || !kept.empty() || join_spaces || trim_left || trim_right || all_whitespace;
  }
  friend bool operator==(const CharsmapRules&, const CharsmapRules&) = default;
};

/// What is changed in text before it is split into words: a form of Unicode, or compiled rules, and marks behind them.
struct Normalization {
  UnicodeForm form = UnicodeForm::none;
  ControlCharacters controls = ControlCharacters::kept;
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
  if (prefix == PrefixSpace::at_start) return at_start;
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

/// The longest of some texts, sorted, that another one begins with; "" for none.
[[nodiscard]] inline std::string_view longest_beginning(const std::vector<std::string>& sorted, std::string_view text) {
  std::string_view longest;
  for (auto i = std::ranges::lower_bound(sorted, text.substr(0, 1)); i != sorted.end() && (*i)[0] == text[0]; ++i) {
    if (i->size() > longest.size() && text.starts_with(*i)) longest = *i;
  }
  return longest;
}

/// `text` with a space for each character that Unicode calls white space.
[[nodiscard]] inline std::string with_plain_spaces(std::string_view text) {
  std::string result;
  for (; !text.empty(); text.remove_prefix(utf8_step(text).length)) {
    const auto character = text.substr(0, utf8_step(text).length);
    result += is_white_space(character) ? " " : character;
  }
  return result;
}

/// What form or rules make of text, piece by piece.
[[nodiscard]] inline std::vector<Piece> pieces_of(const Normalization& how, std::string_view text) {
  const auto& rules = how.rules;
  std::vector<Piece> pieces;
  const auto add = [&](std::string_view from, std::string_view to) {
    pieces.emplace_back(from.size(), rules.all_whitespace && is_white_space(to) ? " " : to);
  };
  if (rules.map && rules.as_tokenizers) {
    rules.map->for_each_grapheme_piece(text, add);
  } else if (rules.map || !rules.kept.empty()) {
    while (!text.empty()) {
      const auto kept = longest_beginning(rules.kept, text);
      const auto first = !kept.empty() || !rules.map ? Charsmap::Replaced{} : rules.map->first_piece(text);
      const auto from = text.substr(0, !kept.empty() ? kept.size()
                                       : rules.map   ? first.from.size()
                                                     : utf8_step(text).length);
      add(from, first.from.empty() ? from : first.to);
      text.remove_prefix(from.size());
    }
  } else {
    for_each_form_piece(text, how.form, how.controls, [&](std::string_view from, std::string_view to) {
      pieces.emplace_back(from.size(), rules.all_whitespace ? with_plain_spaces(to) : to);
    });
  }
  return pieces;
}

/// Takes from the end of a piece what is trimmed there: spaces; by `tokenizers` a piece of white space, by the SentencePiece
/// library marks.
inline void trim_end(const CharsmapRules& rules, std::string& piece) {
  std::string_view left = piece;
  while (left.ends_with(' ') || (!rules.as_tokenizers && left.ends_with(space_mark))) {
    left.remove_suffix(left.ends_with(' ') ? 1 : space_mark.size());
  }
  piece.erase(left.size());
  if (rules.as_tokenizers && is_white_space(piece)) piece.clear();
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
    trim_end(rules, pieces[i].second);
    if (!pieces[i].second.empty()) break;
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

/// As normalize, piece by piece.
inline void normalize_pieces(const Normalization& how, std::string_view text, bool at_start, std::string& buffer,
                             std::vector<TextChange>& changes) {
  buffer.clear();
  auto pieces = detail::pieces_of(how, text);
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
  if (how.rules.any() || how.form != UnicodeForm::none || how.controls != ControlCharacters::kept) {
    normalize_pieces(how, text, at_start, buffer, changes);
    return buffer;
  }
  const bool begins_with_mark = how.mark_is_space && text.starts_with(space_mark);
  const bool prefix =
      detail::wants_prefix(how.prefix, begins_with_mark && how.prefix != PrefixSpace::always ? " " : text, at_start);
  const bool marks = how.mark_is_space && text.find(space_mark) != text.npos;
  if (!prefix && !marks) return text;
  buffer.clear();
  if (prefix) detail::append_change("", " ", buffer, changes);
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
