#include "circuit/text/words.hpp"

#include <string>
#include <string_view>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;
using circuit_test::said;
using Words = std::vector<std::string>;

namespace {

Words pieces_of(const Splitter& splitter, std::string_view text) {
  Words words;
  splitter.split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

}  // namespace

TEST_CASE("words: each family's own") {
  const std::string text = "I'LL 1234!\n\n  it's";
  CHECK(pieces_of(gpt2_words(), text) == Words{"I", "'", "LL", " 1234", "!", "\n\n ", " it", "'s"});
  CHECK(pieces_of(llama3_words(), text) == Words{"I", "'LL", " ", "123", "4", "!\n\n", " ", " it", "'s"});
  CHECK(pieces_of(qwen2_words(), text) == Words{"I", "'LL", " ", "1", "2", "3", "4", "!\n\n", " ", " it", "'s"});
  CHECK(pieces_of(smollm_words(), text) == Words{"I", "'", "LL", " ", "1", "2", "3", "4", "!", "\n\n ", " it", "'s"});
  CHECK(pieces_of(llama3_words(), "(word") == Words{"(word"});  // one sign may begin a word
}

TEST_CASE("words: U+180E is no white space, whatever PCRE2 says") {
  CHECK(pieces_of(gpt2_words(),
                  "a\xE1\xA0\x8E"
                  "b") == Words{"a", "\xE1\xA0\x8E", "b"});
  CHECK_FALSE(tokenizer_pattern(R"(\s)").matches("\xE1\xA0\x8E"));
  CHECK_FALSE(tokenizer_pattern(R"([\s])").matches("\xE1\xA0\x8E"));
  CHECK(tokenizer_pattern(R"(\S)").matches("\xE1\xA0\x8E"));
  CHECK(tokenizer_pattern(R"(\s)").matches("\xE3\x80\x80"));
}

TEST_CASE("words: what the two dialects understand differently is refused with its place") {
  for (const auto* const pattern :
       {R"(a\h)", R"(a\v)", R"(a\1)", R"(a\x41)", R"(a\w)", R"(a\)", R"(a[\S])", "a^", "a$", "a[[b]]", "a[b&&c]",
        "a[]b]", R"(a\p{L)", "a{1}+", "a{2}?", R"(\p{L&})", "(?m:a.b)", "(?ix)a"}) {
    INFO(pattern);
    CHECK_THAT(said<ConfigError>([&] { (void)tokenizer_pattern(pattern, "some.json"); }),
               ContainsSubstring("some.json") && ContainsSubstring("not supported from byte"));
  }
  CHECK_THAT(said<ConfigError>([] { (void)tokenizer_pattern("(a"); }), ContainsSubstring("not a valid"));
  CHECK_THAT(said<ConfigError>([] { (void)tokenizer_pattern(R"(\p{Letter})"); }), ContainsSubstring("not a valid"));
  for (const auto* const pattern : {"a|", "x{0,2}", "(?=b)", R"((?=(\d{3})+(?!\d)))"}) {
    INFO(pattern);
    CHECK_THAT(said<ConfigError>([&] { (void)tokenizer_pattern(pattern, "some.json"); }),
               ContainsSubstring("some.json") && ContainsSubstring("can match nothing"));
  }
}

TEST_CASE("words: a script is its own characters, as in the Oniguruma library, without the signs that it shares") {
  const auto isolated = [](std::string_view expression) {
    return Splitter{{SplitStep{tokenizer_pattern(expression)}}};
  };
  const std::string text = "\u4e2d\u3001\u6587\u3002\u300c\u6f22\u5b57\u300d";
  const Words apart{"\u4e2d", "\u3001", "\u6587", "\u3002\u300c", "\u6f22\u5b57", "\u300d"};
  CHECK(pieces_of(isolated(R"(\p{Han}+)"), text) == apart);
  CHECK(pieces_of(isolated(R"([\p{Han}]+)"), text) == apart);
  CHECK(pieces_of(isolated(R"(\p{^Han}+)"), text) == apart);
  CHECK(pieces_of(isolated(R"(\P{Han}+)"), text) == apart);
  CHECK(pieces_of(isolated(R"((?i:ab)+)"), "xABab") == Words{"x", "ABab"});
}

TEST_CASE("words: a literal pattern matches its own text only") {
  const std::string signs = R"(a.b*[c](d)\{e}|^$?+-# )";
  CHECK(literal_pattern(signs).matches("x" + signs + "y"));
  CHECK_FALSE(literal_pattern("a.b").matches("axb"));
}
