#include "circuit/text/unigram.hpp"

#include <cmath>
#include <regex>

#include "circuit/text/load_tokenizer.hpp"
#include "io/files.hpp"
#include "text/data.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

using Ids = std::vector<std::int32_t>;

/// Compared with what `tokenizers` or `sentencepiece` gave, line by line, but for lines that match `skipped`.
void compare(const char* folder, const char* skipped) {
  const auto lines = read_json(data / "lines.json").get<std::vector<std::string>>();
  const auto tokenizer = load_tokenizer(data / folder);
  const auto expected = read_json(data / folder / "ids.json").get<std::vector<Ids>>();
  std::size_t compared = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (std::regex_search(lines[i], std::regex{skipped})) continue;
    INFO(folder << ": " << lines[i]);
    ++compared;
    const auto encoding = tokenizer.encode_with_offsets(lines[i]);
    REQUIRE(encoding.ids == expected.at(i));
    std::size_t end = 0;
    for (const auto& span : encoding.offsets) {
      CHECK(span.begin == end);
      end = span.end;
    }
    CHECK(end <= lines[i].size());
  }
  CHECK(compared > 150);
}

/// "a" -1, "b" -2, "ab" -2.5, "abc" -9; "c" has no token.
UnigramVocabulary small_unigram() {
  return {.tokens = {"<unk>", "a", "b", "ab", "abc"},
          .scores = {0, -1, -2, -2.5, -9},
          .in_text = {false, true, true, true, true},
          .unknown = 0};
}

Ids encode_word(const UnigramVocabulary& vocabulary, std::string_view word) {
  Ids ids;
  std::vector<std::size_t> ends;
  Unigram::Scratch scratch;
  Unigram{vocabulary}.encode_word(word, ids, ends, scratch);
  CHECK(ends.size() == ids.size());
  if (!ends.empty()) CHECK(ends.back() == word.size());
  return ids;
}

nlohmann::json json_of(const char* folder) { return read_json(data / folder / "tokenizer.json"); }

template <class E>
std::string unigram_refused(const nlohmann::json& root) {
  const Folder folder;
  const auto file = folder.file("tokenizer.json", root.dump());
  return said<E>([&] { (void)load_tokenizer(file); });
}

}  // namespace

TEST_CASE("unigram: files of the Python packages give those packages' tokens") {
  compare("t5", "$^");
  compare("nmt_nfkc", "\xF0\x90\x9E\x98");  // of a newer Unicode than that package's
  compare("unigram_bytes", "<0x");          // there a byte token is found by its spelling too
  compare("unigram", "<s>|</s>|<unk>");     // control tokens are found in text here, not there
}

TEST_CASE("unigram: the tokens with the best sum of scores are chosen") {
  CHECK(encode_word(small_unigram(), "ab") == Ids{3});  // -2.5 over -1 - 2
  CHECK(encode_word(small_unigram(), "aab") == Ids{1, 3});
  CHECK(encode_word(small_unigram(), "abc") == Ids{4});  // -9 over -2.5 - 19
  CHECK(encode_word(small_unigram(), "") == Ids{});
}

TEST_CASE("unigram: a stretch without tokens is one unknown token, or its bytes") {
  CHECK(encode_word(small_unigram(), "accca") == Ids{1, 0, 1});
  auto bytes = small_unigram();
  bytes.byte_tokens.assign(256, -1);
  for (int byte = 0; byte < 256; ++byte) {
    bytes.byte_tokens[static_cast<std::size_t>(byte)] = static_cast<std::int32_t>(bytes.tokens.size());
    bytes.tokens.push_back(std::string(1, static_cast<char>(byte)));
    bytes.scores.push_back(0);
    bytes.in_text.push_back(false);
  }
  CHECK(encode_word(bytes, "a\xC3\xA9") == Ids{1, 5 + 0xC3, 5 + 0xA9});
}

TEST_CASE("unigram: a vocabulary that contradicts itself is refused") {
  const auto bad = [](auto&& change) {
    auto v = small_unigram();
    change(v);
    return v;
  };
  CHECK_THAT(said<FormatError>([&] { Unigram{bad([](auto& v) { v.scores.pop_back(); })}; }),
             ContainsSubstring("not one for each"));
  CHECK_THAT(said<FormatError>([&] { Unigram{bad([](auto& v) { v.scores[2] = NAN; })}; }),
             ContainsSubstring("not finite"));
  CHECK_THAT(said<FormatError>([&] { Unigram{bad([](auto& v) { v.unknown = 9; })}; }), ContainsSubstring("unk_id"));
  CHECK_THAT(said<ConfigError>([&] { Unigram{bad([](auto& v) { v.unknown = {}; })}; }), ContainsSubstring("unk_id"));
}

TEST_CASE("unigram: a tokenizer.json that cannot be followed is refused by name") {
  auto root = json_of("unigram_bytes");
  root["model"]["unk_id"] = 1 << 28;
  CHECK_THAT(unigram_refused<FormatError>(root), ContainsSubstring("unk_id"));
  root = json_of("unigram_bytes");
  root["model"]["vocab"][5] = {"text", "no score"};
  CHECK_THAT(unigram_refused<FormatError>(root), ContainsSubstring("[token, score]"));
  root = json_of("unigram_bytes");
  root["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", "A*=="}};
  CHECK_THAT(unigram_refused<FormatError>(root), ContainsSubstring("base64"));
  root["normalizer"] = {{"type", "NFKD"}};
  CHECK_THAT(unigram_refused<ConfigError>(root), ContainsSubstring("NFKD"));
  const nlohmann::json nmt{{"type", "Nmt"}};
  const nlohmann::json nfkc{{"type", "NFKC"}};
  root["normalizer"] = {{"type", "Sequence"}, {"normalizers", {nfkc, nmt}}};  // another text than the other way round
  CHECK_THAT(unigram_refused<ConfigError>(root), ContainsSubstring("in this order"));
}

TEST_CASE("unigram: an answer goes on from a prompt, with the space it begins with") {
  const auto tokenizer = load_tokenizer(data / "t5");
  const auto id = tokenizer.single_token(" is");
  CHECK(tokenizer.token_text(id) == " is");
}
