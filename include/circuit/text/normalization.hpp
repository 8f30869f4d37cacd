#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "circuit/text/nfc.hpp"

namespace circuit {

/// When a space is put before a stretch of text, so that its first word looks like any other. Stretches lie between
/// added tokens.
enum class PrefixSpace : std::uint8_t { none, always, unless_there, at_start_unless_there };

/// What is changed in text before it is split into words: NFC or marks, no published tokenizer wants both.
struct Normalization {
  bool nfc = false;            ///< Unicode's normalisation form C
  bool mark_is_space = false;  ///< U+2581, SentencePiece's sign for a space, is read as one
  PrefixSpace prefix = PrefixSpace::none;

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

}  // namespace detail

/// `text` (valid UTF-8) normalised, in `buffer` where something changed; `changes` gets the changed stretches in order.
/// at_start  whether nothing stands before `text`
[[nodiscard]] inline std::string_view normalize(const Normalization& how, std::string_view text, bool at_start,
                                                std::string& buffer, std::vector<TextChange>& changes) {
  changes.clear();
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
