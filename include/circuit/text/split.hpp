#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/text/pattern.hpp"

namespace circuit {

/// What becomes of a match, by the names that `tokenizers` uses: a piece of its own, the end of the piece before it, or
/// the beginning of the piece after it. No piece has two matches.
enum class SplitBehavior : std::uint8_t { isolated, merged_with_previous, merged_with_next };

/// One step of a splitter: cuts text at the matches of a pattern; the pieces joined are the text again.
struct SplitStep {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;

  /// Calls `visit(piece)` from left to right.
  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    std::string_view open;  // a piece that the next one may complete
    pattern.scan(text, [&](std::string_view piece, bool matched) {
      if (behavior != SplitBehavior::isolated && matched == (behavior == SplitBehavior::merged_with_next)) {
        if (!open.empty()) visit(open);
        open = piece;
      } else {
        visit(open.empty() ? piece : std::string_view{open.data(), open.size() + piece.size()});
        open = {};
      }
    });
    if (!open.empty()) visit(open);
  }
};

/// Cuts text into the words that are merged apart from each other: each step cuts what the one before it left whole.
/// Without steps the text is one word. A value; const calls are safe from several threads.
class Splitter {
 public:
  Splitter() = default;
  explicit Splitter(std::vector<SplitStep> steps) : steps_{std::move(steps)} {}

  /// Calls `visit(word)` from left to right; the words joined are `text`, which must be valid UTF-8.
  /// throws  ValueError  when matching needs more work than its limits allow
  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    if (!text.empty()) split_from(0, text, visit);
  }

  [[nodiscard]] std::size_t size() const noexcept { return steps_.size(); }

 private:
  template <class Visit>
  void split_from(std::size_t step, std::string_view text, Visit& visit) const {
    if (step == steps_.size()) return visit(text);
    steps_[step].split(text, [&](std::string_view piece) { split_from(step + 1, piece, visit); });
  }

  std::vector<SplitStep> steps_;
};

}  // namespace circuit
