#include "circuit/data/prompt_set.hpp"

#include <string>
#include <vector>

#include "catch.hpp"
#include "circuit/core/atomic_file.hpp"
#include "circuit/data/knowledge_tasks.hpp"
#include "circuit/data/load_prompt_set.hpp"
#include "circuit/text/train_bpe.hpp"

using namespace circuit;
using circuit_test::ContainsSubstring;

namespace {

/// Exactly these words are one token; any other is its letters.
const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    const BpeTrainingOptions options{
        .whole_words = {"Then", " Ann", " Bob", " Cid", " and", " met", " Dee", " to", " is", " are", "The", " dog"}};
    return train_bpe(WordCounts{}, options).tokenizer();
  }();
  return made;
}

std::filesystem::path file_of(const std::string& text) {
  const auto path = std::filesystem::temp_directory_path() / "circuit_prompt_set_test.json";
  write_file(path, text);
  return path;
}

/// "Then NAME met Bob": NAME may be several tokens.
data::TaskPrompt story(const std::string& name, const std::string& other) {
  return {.clean = {"Then", name, " met", " Bob"},
          .corrupt = {"Then", other, " met", " Bob"},
          .answers = {" to"},
          .wrong_answers = {" and"},
          .roles = {{"S", 1}, {"O", 3}, {"end", 3}}};
}

TokenId id(const std::string& word) { return tokenizer().single_token(word); }

}  // namespace

TEST_CASE("a role stands at the last token of its word, whatever the word's length") {
  const std::vector prompts{story(" Ann", " Cid"), story(" xyz", " uvw")};  // " xyz" is four tokens
  const auto set = make_prompt_set(prompts, tokenizer());
  REQUIRE(set.size() == 2);
  CHECK(set.positions("S") == std::vector{Position{2}, Position{5}});
  CHECK(set.positions("O") == std::vector{Position{4}, Position{7}});
  CHECK(set.last() == set.positions("end"));
  CHECK(set.lengths() == std::vector<std::int64_t>{5, 8});
  CHECK(set.prompts[1].tokens[5] == "z");
  CHECK_THROWS_AS(set.positions("X"), NameError);
  const auto bare = make_prompt_set(prompts, tokenizer(), {.bos = Bos::none});
  CHECK(bare.positions("S") == std::vector{Position{1}, Position{4}});
}

TEST_CASE("padding fills up on the right and changes nothing before it") {
  const auto set = make_prompt_set(std::vector{story(" Ann", " Cid"), story(" xyz", " uvw")}, tokenizer());
  const auto batch = set.padded(id(" to"));
  REQUIRE(batch.length() == 8);
  CHECK(std::vector(batch.clean[0].begin(), batch.clean[0].begin() + 5) == set.prompts[0].clean);
  CHECK(std::vector(batch.clean[0].begin() + 5, batch.clean[0].end()) == std::vector(3, id(" to")));
  CHECK(batch.corrupt[1] == set.prompts[1].corrupt);
  CHECK(batch.roles.empty());
  CHECK_THROWS_AS(PromptSet{}.padded(0), ValueError);
  CHECK_THROWS_AS(set.padded(-1), IndexError);
}

TEST_CASE("groups hold prompts of one length and the same roles, in order") {
  const auto set =
      make_prompt_set(std::vector{story(" Ann", " Cid"), story(" xyz", " uvw"), story(" Dee", " Ann")}, tokenizer());
  const auto groups = set.groups();
  REQUIRE(groups.size() == 2);
  CHECK(groups[0].members == std::vector<std::size_t>{0, 2});
  CHECK(groups[0].batch.role("S") == Position{2});
  CHECK(groups[0].batch.clean[1] == set.prompts[2].clean);
  CHECK(groups[1].members == std::vector<std::size_t>{1});
  CHECK(groups[1].batch.role("S") == Position{5});
}

TEST_CASE("pairs that do not line up are refused, or counted and left out") {
  auto odd = story(" Ann", " Cid");
  odd.answers = {" toe"};
  const std::vector prompts{story(" Ann", " xyz"), odd, story(" Ann", " Cid")};
  CHECK_THROWS_WITH(make_prompt_set(prompts, tokenizer()), ContainsSubstring("stands elsewhere when corrupt"));
  const auto set = make_prompt_set(prompts, tokenizer(), {.unfit = Unfit::skip});
  CHECK(set.size() == 1);
  CHECK(set.skipped == 2);
  CHECK_THROWS_AS(make_prompt_set(std::vector{odd}, tokenizer(), {.unfit = Unfit::skip}), ValueError);
}

TEST_CASE("a prompt file may give a role one place, or one for each prompt") {
  const std::string prompts =
      R"("prompts":[{"clean":"Then Ann met","corrupt":"Then Cid met","answers":[" to"],"wrong_answers":[]},)"
      R"({"clean":"Then Ann and Bob met","corrupt":"Then Cid and Bob met","answers":[" to"],"wrong_answers":[" and"]}]})";
  const auto set = load_prompt_set(file_of(R"({"word_idxs":{"S":1,"V":[2,4]},)" + prompts), tokenizer());
  CHECK(set.positions("S") == std::vector{Position{2}, Position{2}});
  CHECK(set.positions("V") == std::vector{Position{3}, Position{5}});
  CHECK(set.positions("end") == set.last());
  CHECK_THROWS_AS(load_prompt_set(file_of(R"({"word_idxs":{"V":[2]},)" + prompts), tokenizer()), IndexError);
  CHECK_THROWS_AS(load_prompt_set(file_of(R"({"word_idxs":{"V":-1},)" + prompts), tokenizer()), IndexError);
  CHECK_THROWS_AS(load_prompt_set(file_of(R"({"word_idxs":{"V":4},)" + prompts), tokenizer()), IndexError);
  CHECK_THROWS_AS(load_prompt_set(file_of(R"({"word_idxs":{"V":"x"},)" + prompts), tokenizer()), ConfigError);
  CHECK_THROWS_AS(load_prompt_set(file_of(R"({"word_idxs":[],)" + prompts), tokenizer()), FormatError);
}

TEST_CASE("feature-circuits' rows are pairs of prefixes with one answer each") {
  const std::string row =
      R"({"clean_prefix": "The dog", "patch_prefix": "The Bob", "clean_answer": " is", "patch_answer": " are", "case": "x"})";
  const auto set = load_feature_circuits_prompts(file_of(row + "\n\n" + row + "\n"), tokenizer());
  REQUIRE(set.size() == 2);
  CHECK(set.prompts[1].clean == std::vector{*tokenizer().bos_id(), id("The"), id(" dog")});
  CHECK(set.prompts[1].corrupt[2] == id(" Bob"));
  CHECK(set.prompts[0].answers == std::vector{id(" is")});
  CHECK(set.prompts[0].wrong_answers == std::vector{id(" are")});
  CHECK(set.positions("end") == std::vector{Position{2}, Position{2}});

  const std::string uneven =
      R"({"clean_prefix": "The dog", "patch_prefix": "The dogs", "clean_answer": " is", "patch_answer": " are"})";
  CHECK_THROWS_AS(load_feature_circuits_prompts(file_of(uneven), tokenizer()), ValueError);
  CHECK(load_feature_circuits_prompts(file_of(row + "\n" + uneven), tokenizer(), {.unfit = Unfit::skip}).skipped == 1);
  CHECK_THROWS_AS(load_feature_circuits_prompts(file_of(R"({"clean_prefix": "The dog"})"), tokenizer()), ConfigError);
  CHECK_THROWS_WITH(load_feature_circuits_prompts(file_of(row + "\n{\"clean"), tokenizer()),
                    ContainsSubstring("line 2"));
  CHECK_THROWS_AS(load_feature_circuits_prompts(file_of("7"), tokenizer()), FormatError);
  CHECK_THROWS_AS(load_feature_circuits_prompts(file_of("  \n"), tokenizer()), ValueError);
  CHECK_THROWS_AS(load_feature_circuits_prompts("/nowhere/x.json", tokenizer()), FileError);
}

TEST_CASE("MIB's rows give a prompt, its counterfactual and the choices") {
  const auto row = [](const std::string& choices, const std::string& key) {
    return R"({"prompt": "Then Ann and Bob met", "choices": )" + choices + R"(, "answerKey": )" + key +
           R"(, "flip": {"prompt": "Then Bob and Ann met", "choices": ["Bob", "Ann"], "answerKey": 0}, "metadata": {}})";
  };
  const auto set = load_mib_prompts(file_of("[" + row(R"(["Ann", "Bob"])", "1") + "," +
                                            row(R"({"label": [" Cid", "Dee"], "text": ["x", "y"]})", "0") + "]"),
                                    tokenizer(), "flip");
  REQUIRE(set.size() == 2);
  CHECK(set.prompts[0].answers == std::vector{id(" Bob")});
  CHECK(set.prompts[0].wrong_answers == std::vector{id(" Ann")});
  CHECK(set.prompts[1].answers == std::vector{id(" Cid")});
  CHECK(set.prompts[1].wrong_answers == std::vector{id(" Dee")});
  CHECK(set.prompts[0].corrupt[2] == id(" Bob"));
  CHECK_THROWS_AS(load_mib_prompts(file_of(row(R"(["Ann", "Bob"])", "2")), tokenizer(), "flip"), IndexError);
  CHECK_THROWS_AS(load_mib_prompts(file_of(row(R"(["Ann", "Bob"])", "-1")), tokenizer(), "flip"), ConfigError);
  CHECK_THROWS_AS(load_mib_prompts(file_of(row(R"(["Ann", "Bob"])", "0")), tokenizer(), "other"), ConfigError);
  CHECK_THROWS_AS(load_mib_prompts(file_of(row("7", "0")), tokenizer(), "flip"), ConfigError);
}
