#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/text/split.hpp"

namespace circuit {

/// A pattern as tokenizer files write it (the Oniguruma library's dialect, Ruby's syntax), with the same meaning here.
///
/// White space is spelt out as Unicode's White_Space property: PCRE2's \s would add U+180E, which is none since Unicode
/// 6.3 and which the tokenizers that models were trained with do not count.
/// throws  ConfigError  when it is not valid, or uses what the two dialects understand differently
[[nodiscard]] Pattern tokenizer_pattern(std::string_view expression, const std::filesystem::path& file = {});

/// A pattern that matches `text` itself.
[[nodiscard]] Pattern literal_pattern(std::string_view text);

/// GPT-2's words, each with the space before it: contractions, letters, digits, other signs, space. Also GPT-NeoX's.
/// source  Radford et al. 2019, the released encoder's pattern
[[nodiscard]] Splitter gpt2_words();

/// Llama 3's words: digits in threes, line ends with the signs before them, one sign may begin a word.
/// source  the pattern of Llama 3's published tokenizer.json
[[nodiscard]] Splitter llama3_words();

/// The words of Qwen 2, 2.5 and 3: Llama 3's with every digit alone.
/// source  the pattern of Qwen2's published tokenizer.json
[[nodiscard]] Splitter qwen2_words();

/// SmolLM's words (also StarCoder's): every digit alone, the rest GPT-2's.
/// source  SmolLM2's published tokenizer.json
[[nodiscard]] Splitter smollm_words();

namespace detail {

/// What stands in the braces of \p: a general category, or a script. PCRE2 takes a script's name for all characters that
/// its texts use (Script_Extensions), unless told otherwise; the other dialect, for the script's own.
inline void append_property(std::string_view name, std::string& out) {
  if (name.starts_with('^')) {
    out += '^';
    name.remove_prefix(1);
  }
  const bool category = name.size() <= 2 || name == "Any";
#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
  if (!category) out += "sc:";
#endif
  out += name;
}

/// Appends what the escape beginning at `expression[i]`, a backslash, means in PCRE2, and returns where it ends.
inline std::size_t append_escape(std::string_view expression, std::size_t i, bool in_class, std::string& out) {
  static constexpr std::string_view space =
      R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
  const auto end = i + 2;
  const char kind = end <= expression.size() ? expression[i + 1] : '\0';
  if (kind == 's') {
    if (!in_class) out += '[';
    out += space;
    if (!in_class) out += ']';
    return end;
  }
  if (kind == 'S' && !in_class) {
    out += "[^";
    out += space;
    out += ']';
    return end;
  }
  if (kind == 'p' || kind == 'P') {
    const auto close = expression.find('}', end);
    if (close != expression.npos && expression.substr(end, 1) == "{" &&
        expression.substr(end, close - end).find('&') == expression.npos) {
      out += expression.substr(i, 3);
      append_property(expression.substr(i + 3, close - i - 3), out);
      out += '}';
      return close + 1;
    }
  }
  const bool sign = kind > ' ' && kind < '\x7F' &&
                    !((kind >= '0' && kind <= '9') || (kind >= 'A' && kind <= 'Z') || (kind >= 'a' && kind <= 'z'));
  if (sign || std::string_view{"rntfdD"}.find(kind) != std::string_view::npos) {
    out += expression.substr(i, 2);
    return end;
  }
  return 0;  // another meaning in each dialect, or none
}

/// Whether a group begins that sets options, other than the one for case alone.
[[nodiscard]] inline bool sets_options(std::string_view group) {
  if (!group.starts_with("(?")) return false;
  const auto options = group.substr(2, group.find_first_of(":)", 2) - 2);
  return options.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") == options.npos &&
         options.find_first_not_of("i-") != options.npos;
}

/// `expression` as PCRE2 writes it; the place of what has no counterpart otherwise, then `out` is not complete.
[[nodiscard]] inline std::size_t translate_pattern(std::string_view expression, std::string& out) {
  bool in_class = false;
  for (std::size_t i = 0; i < expression.size();) {
    const char c = expression[i];
    if (c == '\\') {
      const auto end = append_escape(expression, i, in_class, out);
      if (end == 0) return i;
      i = end;
      continue;
    }
    const bool anchor = (c == '^' || c == '$') && !in_class;  // of a line there, of the text here
    const bool nested = in_class && (c == '[' || c == '&');   // sets of sets
    const auto pair = expression.substr(i, 2);
    // Greedy there, possessive or literal here; optional there, as few as may be here.
    const bool repeated = !in_class && (pair == "}+" || pair == "}?" || pair == "{,");
    if (anchor || nested || repeated || (!in_class && sets_options(expression.substr(i)))) return i;
    out += c;
    ++i;
    if (c == '[') {
      in_class = true;
      if (i < expression.size() && expression[i] == '^') out += expression[i++];
      if (i < expression.size() && expression[i] == ']') return i;  // a sign there, an error here
    } else if (c == ']') {
      in_class = false;
    }
  }
  return expression.size();
}

inline constexpr std::string_view gpt2_expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

[[nodiscard]] inline Splitter isolated(std::string_view expression) {
  return Splitter{{SplitStep{tokenizer_pattern(expression)}}};
}

}  // namespace detail

inline Pattern tokenizer_pattern(std::string_view expression, const std::filesystem::path& file) {
  const auto refused = [&](std::string problem, std::string got) {
    return ConfigError{
        {.file = file, .tensor = std::string{expression}, .problem = std::move(problem), .got = std::move(got)}};
  };
  std::string translated;
  const auto end = detail::translate_pattern(expression, translated);
  if (end != expression.size()) {
    throw refused("this pattern is not supported from byte " + std::to_string(end) + " on",
                  std::string{expression.substr(end, 12)});
  }
  Pattern pattern{translated};
  if (pattern.may_match_nothing()) throw refused("a pattern that can match nothing is not supported", {});
  return pattern;
}

inline Pattern literal_pattern(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c > ' ' && c < '\x7F' && std::string_view{R"(\^$.[]|()?*+{}-#)"}.find(c) != std::string_view::npos) {
      escaped += '\\';
    }
    escaped += c;
  }
  return Pattern{escaped};
}

inline Splitter gpt2_words() { return detail::isolated(detail::gpt2_expression); }

inline Splitter llama3_words() {
  return detail::isolated(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3})"
                          R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

inline Splitter qwen2_words() {
  return detail::isolated(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})"
                          R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

inline Splitter smollm_words() {
  return Splitter{{SplitStep{Pattern{R"(\p{N})"}}, SplitStep{tokenizer_pattern(detail::gpt2_expression)}}};
}

}  // namespace circuit
