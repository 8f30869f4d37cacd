#pragma once

#include <cstddef>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/text/pattern.hpp"

namespace circuit {

/// How one step of a splitter cuts text at the matches of a pattern; the pieces joined are the text again.
namespace split {

/// Matches and what lies between them are pieces of their own.
struct Isolated {
  Pattern pattern;

  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    pattern.scan(text, [&](std::string_view piece, bool) { visit(piece); });
  }
};

/// A match ends the piece before it, unless that is a match too.
struct MergedWithPrevious {
  Pattern pattern;

  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    std::string_view open;
    pattern.scan(text, [&](std::string_view piece, bool matched) {
      if (!matched) {
        open = piece;
      } else if (open.empty()) {
        visit(piece);
      } else {
        visit(std::string_view{open.data(), open.size() + piece.size()});
        open = {};
      }
    });
    if (!open.empty()) visit(open);
  }
};

/// A match begins the piece after it, unless that is a match too.
struct MergedWithNext {
  Pattern pattern;

  template <class Visit>
  void split(std::string_view text, Visit&& visit) const {
    std::string_view open;
    pattern.scan(text, [&](std::string_view piece, bool matched) {
      if (matched) {
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

}  // namespace split

/// Cuts text into the words that are merged apart from each other: each step cuts what the one before it left whole.
/// Without steps the text is one word. A value; const calls are safe from several threads.
class Splitter {
 public:
  using Step = std::variant<split::Isolated, split::MergedWithPrevious, split::MergedWithNext>;

  Splitter() = default;
  explicit Splitter(std::vector<Step> steps) : steps_{std::move(steps)} {}

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
    std::visit(
        [&](const auto& kind) {
          kind.split(text, [&](std::string_view piece) { split_from(step + 1, piece, visit); });
        },
        steps_[step]);
  }

  std::vector<Step> steps_;
};

}  // namespace circuit
