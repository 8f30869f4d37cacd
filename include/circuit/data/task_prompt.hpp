#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"

namespace circuit::data {

/// One contrast pair as the generators make it. A piece is a word with its leading space, or a punctuation mark, and is
/// meant to be one token; the text is the pieces joined. Clean and corrupt have the same number of pieces.
struct TaskPrompt {
  std::vector<std::string> clean;
  std::vector<std::string> corrupt;
  std::vector<std::string> answers;          ///< right next pieces; usually one
  std::vector<std::string> wrong_answers;    ///< what a model that missed the point would say
  std::map<std::string, std::size_t> roles;  ///< piece index, without a beginning-of-sequence token
};

/// The pieces joined: what a person reads and a tokenizer takes.
[[nodiscard]] inline std::string text_of(std::span<const std::string> pieces) {
  std::string text;
  for (const auto& piece : pieces) text += piece;
  return text;
}

namespace detail {

/// What stands in a slot such as `{place}`: the clean word, the corrupt one, and the role it is known by ("" for none).
struct Filling {
  std::string clean;
  std::string corrupt;
  std::string role;
};

/// Collects pieces from templates such as "Then, {A} and {B} went to the {place}.".
class PromptBuilder {
 public:
  using Fillings = std::map<std::string, Filling, std::less<>>;

  /// throws  NameError  when the template names a slot that `fillings` lacks
  void append(std::string_view text, const Fillings& fillings) {
    std::size_t at_char = 0;
    while (at_char < text.size()) {
      const std::size_t stop = next_end(text, at_char);
      append_word(text.substr(at_char, stop - at_char), fillings);
      at_char = stop + (stop < text.size() && text[stop] == ' ' ? 1 : 0);
    }
  }

  /// A piece that is the same in both runs and follows without a space: punctuation, the digits of a year.
  void glue(std::string_view piece) { push(std::string{piece}, std::string{piece}); }
  void glue(std::string_view clean, std::string_view corrupt) { push(std::string{clean}, std::string{corrupt}); }

  void mark(const std::string& role) { prompt_.roles[role] = prompt_.clean.size() - 1; }

  [[nodiscard]] std::size_t size() const noexcept { return prompt_.clean.size(); }

  /// The prompt so far; its last piece gets the role "end".
  [[nodiscard]] TaskPrompt finish(std::vector<std::string> answers, std::vector<std::string> wrong_answers) && {
    mark("end");
    prompt_.answers = std::move(answers);
    prompt_.wrong_answers = std::move(wrong_answers);
    return std::move(prompt_);
  }

 private:
  static bool is_mark(char c) { return c == '.' || c == ',' || c == ':'; }

  static std::size_t next_end(std::string_view text, std::size_t from) {
    if (is_mark(text[from])) return from + 1;
    std::size_t stop = from;
    while (stop < text.size() && text[stop] != ' ' && !is_mark(text[stop])) ++stop;
    return stop;
  }

  void append_word(std::string_view word, const Fillings& fillings) {
    if (word.front() != '{') {
      const std::string piece = (is_mark(word.front()) || prompt_.clean.empty() ? "" : " ") + std::string{word};
      push(piece, piece);
      return;
    }
    const auto found = fillings.find(word.substr(1, word.size() - 2));
    if (found == fillings.end()) {
      throw NameError{{.tensor = std::string{word}, .problem = "the template names a slot that nothing fills"}};
    }
    const auto& [clean, corrupt, role] = found->second;
    const std::string space = prompt_.clean.empty() ? "" : " ";
    push(space + clean, space + corrupt);
    if (!role.empty()) mark(role);
  }

  void push(std::string clean, std::string corrupt) {
    prompt_.clean.push_back(std::move(clean));
    prompt_.corrupt.push_back(std::move(corrupt));
  }

  TaskPrompt prompt_;
};

}  // namespace detail
}  // namespace circuit::data
