#include "circuit/data/contrast_batch.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/core/atomic_file.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/text/train_bpe.hpp"

using namespace circuit;

namespace {

/// A tokenizer in which exactly the given words are one token.
Tokenizer tokenizer_of(const std::vector<std::string>& words) {
  const BpeTrainingOptions options{.whole_words = words};
  return train_bpe(WordCounts{}, options).tokenizer();
}

const Tokenizer& ten_words() {
  static const Tokenizer made =
      tokenizer_of({"Then", " Ann", " Bob", " Cid", " and", " met", " gave", " to", " Dee", " Eve"});
  return made;
}

std::filesystem::path batch_file(const std::string& json) {
  const auto path = std::filesystem::temp_directory_path() / "circuit_contrast_batch_test.json";
  write_file(path, json);
  return path;
}

std::string prompt(const std::string& clean, const std::string& corrupt, const std::string& answer) {
  return R"({"clean":")" + clean + R"(","corrupt":")" + corrupt + R"(","answers":[")" + answer +
         R"("],"wrong_answers":[" Bob"]})";
}

const std::string roles = R"({"word_idxs":{"IO":1,"S1":3,"S2":4,"end":5},"prompts":[)";
const std::string first = prompt("Then Ann and Bob met to", "Then Cid and Dee met to", " Ann");
const std::string second = prompt("Then Cid and Bob met to", "Then Ann and Dee met to", " Cid");

}  // namespace

TEST_CASE("a prompt file becomes token ids, roles shifted past the BOS") {
  const auto batch = load_contrast_batch(batch_file(roles + first + "," + second + "]}"), ten_words());
  CHECK(batch.size() == 2);
  CHECK(batch.length() == 7);
  CHECK(batch.clean[0][0] == *ten_words().bos_id());
  CHECK(batch.tokens[0] == std::vector<std::string>{"<|endoftext|>", "Then", " Ann", " and", " Bob", " met", " to"});
  CHECK(batch.role("IO") == Position{2});
  CHECK(batch.tokens[0][static_cast<std::size_t>(batch.role("IO").value)] == " Ann");
  CHECK(batch.answers[1] == std::vector<TokenId>{ten_words().single_token(" Cid")});
  CHECK(batch.wrong_answers[1] == std::vector<TokenId>{ten_words().single_token(" Bob")});
  CHECK(batch.corrupt[1][2] == ten_words().single_token(" Ann"));
}

TEST_CASE("without a BOS the roles are the file's") {
  const auto batch = load_contrast_batch(batch_file(roles + first + "]}"), ten_words(), {.bos = Bos::none});
  CHECK(batch.length() == 6);
  CHECK(batch.role("IO") == Position{1});
}

TEST_CASE("first and size choose prompts") {
  const auto path = batch_file(roles + first + "," + second + "]}");
  const auto batch = load_contrast_batch(path, ten_words(), {.first = 1, .size = 1});
  CHECK(batch.size() == 1);
  CHECK(batch.tokens[0][2] == " Cid");
  CHECK_THROWS_AS(load_contrast_batch(path, ten_words(), {.first = 1, .size = 2}), IndexError);
  CHECK_THROWS_AS(load_contrast_batch(path, ten_words(), {.first = 2}), IndexError);
}

TEST_CASE("an unknown role lists the roles there are") {
  const auto batch = load_contrast_batch(batch_file(roles + first + "]}"), ten_words());
  CHECK_THROWS_AS(batch.role("S3"), NameError);
  CHECK_THROWS_WITH(batch.role("S3"), circuit_test::ContainsSubstring("IO, S1, S2, end"));
}

TEST_CASE("a slice keeps roles and prompts, and refuses what is not there") {
  const auto batch = load_contrast_batch(batch_file(roles + first + "," + second + "]}"), ten_words());
  const auto part = batch.slice(1, 1);
  REQUIRE(part.size() == 1);
  CHECK(part.clean[0] == batch.clean[1]);
  CHECK(part.tokens[0] == batch.tokens[1]);
  CHECK(part.role("S2") == batch.role("S2"));
  CHECK_THROWS_AS(batch.slice(1, 2), IndexError);
  CHECK_THROWS_AS(batch.slice(0, 0), ValueError);
}

TEST_CASE("bad prompt files are refused with file and prompt") {
  const auto load = [](const std::string& json) { return load_contrast_batch(batch_file(json), ten_words()); };
  SECTION("no prompts") { CHECK_THROWS_AS(load(roles + "]}"), ValueError); }
  SECTION("lengths differ between prompts") {
    CHECK_THROWS_AS(load(roles + first + "," + prompt("Then Ann and Bob to", "Then Cid and Dee to", " Ann") + "]}"),
                    ValueError);
  }
  SECTION("lengths differ between clean and corrupt") {
    CHECK_THROWS_WITH(
        load(roles + first + "," + prompt("Then Ann and Bob met to", "Then Cid and Dee to", " Ann") + "]}"),
        circuit_test::ContainsSubstring("prompts[1].corrupt"));
  }
  SECTION("an answer of several tokens") {
    CHECK_THROWS_WITH(load(roles + prompt("Then Ann", "Then Bob", " Annabel") + "]}"),
                      circuit_test::ContainsSubstring("prompts[0].answers"));
  }
  SECTION("no answer") {
    CHECK_THROWS_AS(
        load(R"({"word_idxs":{},"prompts":[{"clean":"Then","corrupt":"Then","answers":[],"wrong_answers":[]}]})"),
        ValueError);
  }
  SECTION("a role outside the prompt") {
    CHECK_THROWS_AS(load(R"({"word_idxs":{"S1":6},"prompts":[)" + first + "]}"), IndexError);
    CHECK_THROWS_AS(load(R"({"word_idxs":{"S1":-1},"prompts":[)" + first + "]}"), IndexError);
  }
  SECTION("a missing part") { CHECK_THROWS_AS(load(R"({"word_idxs":{},"prompts":[{"clean":"Then"}]})"), ConfigError); }
  SECTION("no roles") { CHECK_THROWS_AS(load(R"({"prompts":[)" + first + "]}"), ConfigError); }
  SECTION("prompts that are no objects") {
    CHECK_THROWS_AS(load(R"({"word_idxs":{},"prompts":["Then"]})"), FormatError);
  }
  SECTION("prompts that are no list") { CHECK_THROWS_AS(load(R"({"word_idxs":{},"prompts":{}})"), FormatError); }
  SECTION("roles that are no object") { CHECK_THROWS_AS(load(R"({"word_idxs":[],"prompts":[]})"), Error); }
  SECTION("not JSON") { CHECK_THROWS_AS(load("prompts"), FormatError); }
  SECTION("no file") { CHECK_THROWS_AS(load_contrast_batch("/nowhere/prompts.json", ten_words()), FileError); }
}

TEST_CASE("a file of token ids needs no tokenizer") {
  const auto path = std::filesystem::path{CIRCUIT_TEST_DATA} / "golden" / "prompts.json";
  const auto batch = load_contrast_batch_ids(path);
  CHECK(batch.size() == 4);
  CHECK(batch.length() == 9);
  CHECK(batch.role("S2") == Position{7});  // the file counts its BOS
  CHECK(batch.clean[0] == std::vector<TokenId>{100, 47, 18, 50, 99, 28, 58, 96, 83});
  CHECK(batch.corrupt[3][2] == 90);
  CHECK(batch.answers[3] == std::vector<TokenId>{46});
  CHECK(batch.tokens.empty());
}

TEST_CASE("negative token ids are refused") {
  CHECK_THROWS_AS(
      load_contrast_batch_ids(batch_file(
          R"({"word_idxs":{},"prompts":[{"clean":[1,-2],"corrupt":[1,2],"answers":[3],"wrong_answers":[]}]})")),
      IndexError);
}

TEST_CASE("generated prompts make the same batch directly and through a file") {
  std::vector<std::string> words;
  data::Random random{5};
  std::vector<data::TaskPrompt> prompts;
  for (int i = 0; i < 6; ++i) {
    prompts.push_back(data::make_ioi(random, {.order = data::IoiOrder::baba,
                                              .distractor = data::IoiDistractor::none,
                                              .opening = 0,
                                              .adverb = 0,
                                              .action = 0,
                                              .connective = 1,
                                              .aside = false}));
    for (const auto* const pieces : {&prompts.back().clean, &prompts.back().corrupt, &prompts.back().answers}) {
      words.insert(words.end(), pieces->begin(), pieces->end());
    }
  }
  const auto own = tokenizer_of(words);
  const auto direct = make_contrast_batch(prompts, own);
  const auto path = std::filesystem::temp_directory_path() / "circuit_saved_prompts_test.json";
  save_prompts(path, prompts);
  const auto loaded = load_contrast_batch(path, own);
  CHECK(loaded.clean == direct.clean);
  CHECK(loaded.corrupt == direct.corrupt);
  CHECK(loaded.answers == direct.answers);
  CHECK(loaded.roles == direct.roles);
  CHECK(direct.role("S1") == Position{3});

  SECTION("but not when a word is several tokens") {
    CHECK_THROWS_AS(make_contrast_batch(prompts, ten_words()), ValueError);
  }
  SECTION("nor when the roles differ") {
    prompts[1].roles["S2"] = 0;
    CHECK_THROWS_AS(make_contrast_batch(prompts, own), ValueError);
    CHECK_THROWS_AS(save_prompts(path, prompts), ValueError);
  }
  SECTION("nor when there are none") {
    CHECK_THROWS_AS(make_contrast_batch({}, own), ValueError);
    CHECK_THROWS_AS(save_prompts(path, {}), ValueError);
  }
}
