#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace circuit {

/// A token found in the text before any other splitting, such as "<|endoftext|>".
struct AddedToken {
  std::string text{};
  std::int32_t id = 0;
  bool special = true;      ///< marks structure rather than words
  bool normalized = false;  ///< looked for in normalised text, after those that are not
};

namespace detail {

/// An added token as it is looked for.
struct Sought {
  std::string text;
  std::int32_t id;
};

/// Cuts `text` at the `sought`: leftmost first, the longest of those that begin together.
template <class OnToken, class OnText>
void split_at_added(const std::vector<Sought>& sought, std::string_view text, OnToken&& on_token, OnText&& on_text) {
  struct Next {
    const Sought* token;
    std::size_t at;
  };
  std::vector<Next> next;
  for (const auto& token : sought) {
    if (const auto at = text.find(token.text); at != text.npos) next.push_back({&token, at});
  }
  std::size_t done = 0;
  while (done < text.size()) {
    const Next* best = nullptr;
    for (auto& candidate : next) {
      if (candidate.at != text.npos && candidate.at < done) candidate.at = text.find(candidate.token->text, done);
      if (candidate.at == text.npos) continue;
      if (best == nullptr || candidate.at < best->at ||
          (candidate.at == best->at && candidate.token->text.size() > best->token->text.size())) {
        best = &candidate;
      }
    }
    const auto found = best == nullptr ? text.size() : best->at;
    if (found > done) on_text(text.substr(done, found - done));
    if (best == nullptr) return;
    on_token(best->token->id, text.substr(found, best->token->text.size()));
    done = found + best->token->text.size();
  }
}

}  // namespace detail

}  // namespace circuit
