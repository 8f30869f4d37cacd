#include "circuit/text/tokenizer.hpp"

#include <cstdint>
#include <filesystem>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"
#include "circuit/io/json.hpp"
#include "circuit/text/load_tokenizer.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;
using circuit_test::said;
using Ids = std::vector<std::int32_t>;

namespace {

const std::filesystem::path data = std::filesystem::path{CIRCUIT_TEST_DATA} / "tokenizer";

const Tokenizer& stored() {
  static const auto tokenizer = load_tokenizer(data);
  return tokenizer;
}

/// All bytes, then "ab" and " ab"; "<s>" is an added token.
Tokenizer small(const std::string& bos = "<s>") {
  BpeVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.tokens.push_back(std::string(1, static_cast<char>(byte)));
  vocabulary.tokens.insert(vocabulary.tokens.end(), {"ab", " ab"});
  vocabulary.merges = {{'a', 'b'}, {' ', 256}};
  return Tokenizer{vocabulary, {{.text = "<s>", .id = 258}, {.text = "<s>x", .id = 260}}, bos};
}

}  // namespace

TEST_CASE("tokenizer: ids are those of the Python package on mixed Unicode") {
  const auto lines = read_json(data / "lines.json");
  REQUIRE(lines.size() == 300);
  for (const auto& line : lines) {
    const auto text = line.at("text").get<std::string>();
    INFO(text);
    CHECK(stored().encode(text) == line.at("ids").get<Ids>());
  }
}

TEST_CASE("tokenizer: decoding gives the text back, and offsets cover it") {
  for (const auto& line : read_json(data / "lines.json")) {
    const auto text = line.at("text").get<std::string>();
    const auto encoding = stored().encode_with_offsets(text);
    CHECK(stored().decode(encoding.ids) == text);
    REQUIRE(encoding.offsets.size() == encoding.ids.size());
    std::size_t end = 0;
    for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
      CHECK(encoding.offsets[i].begin == end);
      end = encoding.offsets[i].end;
      CHECK(text.substr(encoding.offsets[i].begin, end - encoding.offsets[i].begin) ==
            stored().token_bytes(encoding.ids[i]));
    }
    CHECK(end == text.size());
  }
}

TEST_CASE("tokenizer: a BOS is prepended only when asked for, and takes no part of the text") {
  const auto tokenizer = small();
  CHECK(tokenizer.encode(" ab") == Ids{257});
  CHECK(tokenizer.encode(" ab", Bos::prepend) == Ids{258, 257});
  const auto encoding = tokenizer.encode_with_offsets(" ab", Bos::prepend);
  CHECK(encoding.offsets == std::vector<ByteSpan>{{0, 0}, {0, 3}});
  CHECK(tokenizer.encode("", Bos::prepend) == Ids{258});
  CHECK(tokenizer.bos_id() == 258);
}

TEST_CASE("tokenizer: without a BOS token none can be prepended") {
  const auto tokenizer = small("");
  CHECK_FALSE(tokenizer.bos_id().has_value());
  CHECK_THROWS_AS(tokenizer.encode("a", Bos::prepend), ConfigError);
  CHECK_THROWS_AS(small("<nothing>"), ConfigError);
}

TEST_CASE("tokenizer: added tokens are found before words, the longest first") {
  const auto tokenizer = small();
  CHECK(tokenizer.encode("ab<s>ab") == Ids{256, 258, 256});
  CHECK(tokenizer.encode("<s>x<s>") == Ids{260, 258});
  CHECK(tokenizer.encode("<s") == Ids{'<', 's'});
  CHECK(tokenizer.decode(Ids{256, 258, 260}) == "ab<s><s>x");
}

TEST_CASE("tokenizer: text that is not UTF-8 is refused with its byte") {
  const auto tokenizer = small();
  CHECK_THAT(said<ValueError>([&] { (void)tokenizer.encode("abc\xFF"); }),
             ContainsSubstring("byte 3") && ContainsSubstring("0xff"));
  CHECK_THAT(said<ValueError>([&] { (void)tokenizer.encode("\xED\xA0\x80"); }), ContainsSubstring("byte 0"));
  CHECK_THAT(said<ValueError>([&] { (void)tokenizer.encode("a\xC3"); }), ContainsSubstring("byte 1"));
}

TEST_CASE("tokenizer: tokens that are part of a character are shown as U+FFFD, and joined as the character") {
  const auto tokenizer = small();
  const auto ids = tokenizer.encode("\xC3\xA9");
  REQUIRE(ids.size() == 2);
  CHECK(tokenizer.token_text(ids[0]) == "\xEF\xBF\xBD");
  CHECK(tokenizer.token_bytes(ids[0]) == "\xC3");
  CHECK(tokenizer.decode(ids) == "\xC3\xA9");
}

TEST_CASE("tokenizer: ids that no token has are refused") {
  const auto tokenizer = small();
  CHECK(tokenizer.size() == 261);
  for (const auto id : {-1, 259, 261, 1 << 30}) CHECK_THROWS_AS(tokenizer.decode(Ids{id}), IndexError);
  CHECK_THROWS_AS(tokenizer.token_text(259), IndexError);
}

TEST_CASE("tokenizer: an answer must be one token, and the error shows its pieces") {
  const auto tokenizer = small();
  CHECK(tokenizer.single_token(" ab") == 257);
  CHECK(tokenizer.id_of(" ab") == 257);
  CHECK(tokenizer.id_of("<s>") == 258);
  CHECK_FALSE(tokenizer.id_of("abc").has_value());
  CHECK_THAT(said<ValueError>([&] { (void)tokenizer.single_token("abc"); }),
             ContainsSubstring("2: \"ab\" + \"c\"") && ContainsSubstring("leading space"));
  CHECK_THROWS_AS(tokenizer.single_token(""), ValueError);
}

TEST_CASE("tokenizer: added tokens that contradict the vocabulary are refused") {
  const auto vocabulary = small().vocabulary();
  const auto with = [&](AddedToken token) {
    return said<FormatError>([&] { (void)Tokenizer{vocabulary, {std::move(token)}}; });
  };
  CHECK_THAT(with({.text = "<s>", .id = 256}), ContainsSubstring("id is taken"));
  CHECK_THAT(with({.text = "ab", .id = 300}), ContainsSubstring("another id"));
  CHECK_THAT(with({.text = "<s>", .id = -1}), ContainsSubstring("out of range"));
  CHECK_THAT(with({.text = "<s>", .id = 2'000'000'000}), ContainsSubstring("out of range"));
  CHECK_THAT(with({.text = "", .id = 300}), ContainsSubstring("bad added token"));
}

TEST_CASE("tokenizer: two threads sharing one tokenizer agree with one") {
  const auto lines = read_json(data / "lines.json");
  const auto encode_all = [&](std::vector<Ids>& result) {
    for (const auto& line : lines) result.push_back(stored().encode(line.at("text").get<std::string>()));
  };
  std::vector<Ids> alone;
  std::vector<Ids> first;
  std::vector<Ids> second;
  encode_all(alone);
  std::thread other{[&] { encode_all(first); }};
  encode_all(second);
  other.join();
  CHECK(first == alone);
  CHECK(second == alone);
}

TEST_CASE("tokenizer: long runs of space and of letters are split within the match limits") {
  const auto tokenizer = small();
  const std::size_t length = 1'000'000;
  CHECK(tokenizer.encode(std::string(length, ' ') + "ab").size() == length);
  CHECK(tokenizer.encode(std::string(length, 'a')).size() == length);
  std::string alternating;
  for (std::size_t i = 0; i < length / 2; ++i) alternating += "ab";
  CHECK(tokenizer.encode(alternating).size() == length / 2);
}
