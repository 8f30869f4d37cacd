#include "circuit/text/sentencepiece_model.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <regex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"
#include "circuit/io/json.hpp"
#include "circuit/text/load_tokenizer.hpp"
#include "text/data.hpp"

using namespace circuit;
using namespace circuit_test;
using Ids = std::vector<std::int32_t>;

namespace {

/// Fields of a message; the library's own files hold more, which are passed over.
std::string number(int field, int value) { return {static_cast<char>(field << 3), static_cast<char>(value)}; }
std::string wide_number(int field, int value) {  // field numbers from 16 on take two bytes
  return {static_cast<char>(((field << 3) & 0x7F) | 0x80), static_cast<char>(field >> 4), static_cast<char>(value)};
}
std::string bytes(int field, const std::string& content) {
  return std::string{static_cast<char>((field << 3) | 2), static_cast<char>(content.size())} + content;
}

const std::string trainer = number(3, 2) + wide_number(35, 1);
const std::string normalizer = bytes(1, "identity") + number(4, 0);

/// The bytes, "<unk>" and "<s>", with these specifications.
std::string model(const std::string& trainer_spec, const std::string& normalizer_spec) {
  auto all = bytes(1, bytes(1, "<unk>") + number(3, 2)) + bytes(1, bytes(1, "<s>") + number(3, 3));
  constexpr std::string_view digits = "0123456789ABCDEF";
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const std::string text{'<', '0', 'x', digits[byte / 16], digits[byte % 16], '>'};
    all += bytes(1, bytes(1, text) + number(3, 6));
  }
  return all + bytes(2, trainer_spec) + bytes(3, normalizer_spec);
}

/// One piece with its score; kind 1 is an ordinary one, 4 one that the user chose.
std::string piece(const std::string& text, float score, int kind) {
  std::string four(sizeof(float), '\0');
  std::memcpy(four.data(), &score, sizeof(float));
  return bytes(1, bytes(1, text) + std::string{2 << 3 | 5} + four + number(3, kind));
}

template <class E>
std::string model_error(const std::string& content) {
  const Folder folder;
  const auto path = folder.file("tokenizer.model", content);
  return said<E>([&] { (void)read_sentencepiece_model(path); });
}

}  // namespace

TEST_CASE("sentencepiece_model: the library's own files give the library's tokens") {
  const auto lines = read_json(data / "lines.json").get<std::vector<std::string>>();
  for (const auto* const folder : {"sentencepiece", "sentencepiece_symbols"}) {
    const auto tokenizer = load_tokenizer(data / folder);
    const auto expected = read_json(data / folder / "ids.json").get<std::vector<Ids>>();
    for (std::size_t i = 0; i < lines.size(); ++i) {
      if (std::regex_search(lines[i], std::regex{"<s>|</s>|<unk>"})) continue;  // found in text here, not there
      INFO(folder << ": " << lines[i]);
      CHECK(tokenizer.encode(lines[i]) == expected.at(i));
    }
    CHECK(tokenizer.bos_id() == 1);
    CHECK(tokenizer.default_bos() == Bos::prepend);
  }
}

// Written by the package `sentencepiece`: pieces that the user chose, among them some that the rules of normalisation
// would change, and what it gives for texts of them.
TEST_CASE("sentencepiece_model: what the user chose is found in a unigram model's text before all rules") {
  const auto tokenizer = load_tokenizer(data / "unigram_symbols" / "tokenizer.model");
  const auto lines = read_json(data / "unigram_symbols" / "lines.json");
  REQUIRE(lines.size() == 120);
  for (const auto& line : lines) {
    const auto text = line.at(0).get<std::string>();
    INFO(text);
    CHECK(tokenizer.encode(text) == line.at(1).get<Ids>());
    const auto offsets = tokenizer.encode_with_offsets(text).offsets;
    std::size_t end = 0;
    for (const auto& span : offsets) {
      CHECK(span.begin == end);
      end = span.end;
    }
    CHECK(end <= text.size());
  }
}

// As the package `sentencepiece` 0.2.3 does: "cat<sep>cat" is a space, cat, <sep>, cat without one.
TEST_CASE("sentencepiece_model: a space is put before the whole text, not behind what the user chose") {
  const std::string mark = "\xE2\x96\x81";
  auto more = piece("<sep>", 0, 4);
  for (const auto& [text, score] : std::vector<std::pair<std::string, float>>{{"cat", -1.0F},
                                                                              {mark, -4.0F},
                                                                              {mark + "cat", -0.5F},
                                                                              {"ca", -3.0F},
                                                                              {"c", -4.0F},
                                                                              {"a", -4.0F},
                                                                              {"t", -4.0F}}) {
    more += piece(text, score, 1);
  }
  const Folder folder;
  const auto path = folder.file("tokenizer.model", model(trainer, normalizer + number(3, 1)) + more);
  const auto tokenizer = read_sentencepiece_model(path);
  constexpr std::int32_t sep = 258, cat = 259, space = 260, space_cat = 261;
  CHECK(tokenizer.encode("cat<sep>cat") == Ids{space_cat, sep, cat});
  CHECK(tokenizer.encode("<sep>cat") == Ids{space, sep, cat});
  CHECK(tokenizer.encode("cat <sep> cat") == Ids{space_cat, space, sep, space_cat});
  CHECK(tokenizer.decode(tokenizer.encode("cat<sep>cat")) == "cat<sep>cat");
}

// The ids are those that the package `sentencepiece` 0.2.3 gives with the same pieces.
TEST_CASE("sentencepiece_model: a chosen piece counts by its length beside the scores of others") {
  auto all = piece("<unk>", 0, 2) + piece("<s>", 0, 3);
  for (const auto& [text, score] : std::vector<std::pair<std::string, float>>{
           {"a", -3.0F}, {"b", -3.0F}, {"c", -0.5F}, {"abc", -0.5F}, {"bc", -1.5F}, {"ca", -0.75F}}) {
    all += piece(text, score, 1);
  }
  for (const auto* const text : {"ab", "cab", "bb", "bbb"}) all += piece(text, 0, 4);
  const Folder folder;
  const auto path = folder.file("tokenizer.model", all + bytes(2, number(3, 1)) + bytes(3, normalizer + number(3, 0)));
  const auto tokenizer = read_sentencepiece_model(path);
  CHECK(tokenizer.encode("abc") == Ids{8, 4});
  CHECK(tokenizer.encode("ababb") == Ids{8, 8, 3});
  CHECK(tokenizer.encode("abcba") == Ids{8, 4, 3, 2});
  CHECK(tokenizer.encode("bbbab") == Ids{11, 8});
}

TEST_CASE("sentencepiece_model: the folder may say that no BOS is prepended") {
  const Folder folder;
  (void)folder.file("tokenizer.model", model(trainer, normalizer));
  CHECK(load_tokenizer(folder.path).default_bos() == Bos::prepend);
  CHECK(load_tokenizer(folder.path).encode("a") == Ids{' ' + 2, 'a' + 2});
  (void)folder.file("tokenizer_config.json", R"({"add_bos_token":false})");
  CHECK(load_tokenizer(folder.path).default_bos() == Bos::none);
  (void)folder.file("tokenizer.model", model(trainer, normalizer + number(3, 0)));
  CHECK(load_tokenizer(folder.path / "tokenizer.model").encode("a") == Ids{'a' + 2});
}

TEST_CASE("sentencepiece_model: settings that would change the tokens are refused by name") {
  const auto refused = [](const std::string& trainer_spec, const std::string& normalizer_spec) {
    return model_error<ConfigError>(model(trainer_spec, normalizer_spec));
  };
  CHECK_THAT(refused(number(3, 3), normalizer), ContainsSubstring("word"));
  CHECK_THAT(refused(number(3, 1) + wide_number(24, 1), normalizer), ContainsSubstring("treat_whitespace_as_suffix"));
  CHECK_THAT(refused(number(3, 9), normalizer), ContainsSubstring("model_type"));
  CHECK_THAT(refused(number(3, 2), normalizer), ContainsSubstring("byte_fallback"));
  CHECK_THAT(refused(trainer + wide_number(24, 1), normalizer), ContainsSubstring("treat_whitespace_as_suffix"));
  CHECK_THAT(refused(trainer, bytes(1, "nmt_nfkc") + bytes(2, "rules") + number(4, 0)), ContainsSubstring("nmt_nfkc"));
  CHECK_THAT(refused(trainer, bytes(1, "identity")), ContainsSubstring("remove_extra_whitespaces"));
  CHECK_THAT(refused(trainer, normalizer + number(5, 0)), ContainsSubstring("escape_whitespaces"));
}

TEST_CASE("sentencepiece_model: files that are none, or broken, are refused") {
  CHECK_THROWS_AS(read_sentencepiece_model("no/such/tokenizer.model"), FileError);
  CHECK_THAT(model_error<FormatError>(""), ContainsSubstring("no pieces"));
  CHECK_THAT(model_error<FormatError>("{\"model\":1}"), ContainsSubstring("tokenizer.model"));
  CHECK_THAT(model_error<FormatError>("\x0A\x7F<unk>"), ContainsSubstring("longer than the file"));
  CHECK_THAT(model_error<FormatError>(std::string(11, '\xFF')), ContainsSubstring("64 bits"));
  CHECK_THAT(model_error<FormatError>("\x0B"), ContainsSubstring("unknown kind 3"));
  CHECK_THAT(model_error<FormatError>(model(trainer + wide_number(41, 0x7F), normalizer) + bytes(1, bytes(1, "a")) +
                                      bytes(1, bytes(1, "a"))),
             ContainsSubstring("two ids"));
  const auto whole = bytes_of(data / "sentencepiece" / "tokenizer.model");
  const Folder folder;
  for (std::size_t size = 0; size < whole.size(); size += 199) {
    const auto path = folder.file("tokenizer.model", whole.substr(0, size));
    CHECK_THROWS_AS(read_sentencepiece_model(path), Error);
  }
}
