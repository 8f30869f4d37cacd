#include "circuit/text/load_tokenizer.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"

using namespace circuit;
using namespace circuit_test;
using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

namespace {

const std::filesystem::path data = std::filesystem::path{CIRCUIT_TEST_DATA} / "tokenizer";

/// The stored tokenizer.json with one thing changed, read back.
template <class Change>
Tokenizer changed(Change&& change) {
  auto root = read_json(data / "tokenizer.json");
  change(root);
  const Folder folder;
  return load_tokenizer(folder.file("tokenizer.json", root.dump()));
}

template <class E, class Change>
std::string error(Change&& change) {
  return said<E>([&] { (void)changed(change); });
}

}  // namespace

TEST_CASE("load_tokenizer: GPT-2's end of text is the BOS unless the folder or the caller says otherwise") {
  CHECK(load_tokenizer(data).bos_id() == load_tokenizer(data).id_of("<|endoftext|>"));
  CHECK(load_tokenizer(data, {.bos = "<mask>"}).bos_id() == load_tokenizer(data).id_of("<mask>"));
  CHECK_FALSE(load_tokenizer(data, {.bos = ""}).bos_id().has_value());

  const Folder folder;
  (void)folder.file("tokenizer.json", bytes_of(data / "tokenizer.json"));
  (void)folder.file("special_tokens_map.json", R"({"bos_token":"!"})");
  CHECK(load_tokenizer(folder.path).bos_id() == load_tokenizer(data).id_of("!"));
  (void)folder.file("tokenizer_config.json", R"({"bos_token":{"content":"<mask>"}})");
  CHECK(load_tokenizer(folder.path).bos_id() == load_tokenizer(data).id_of("<mask>"));
}

TEST_CASE("load_tokenizer: merges may be strings or pairs") {
  const auto tokenizer = changed([](Json& root) {
    for (auto& merge : root["model"]["merges"]) {
      if (!merge.is_array()) continue;
      merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    }
  });
  const auto pairs = changed([](Json& root) {
    for (auto& merge : root["model"]["merges"]) {
      if (!merge.is_string()) continue;
      const auto text = merge.get<std::string>();
      merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
    }
  });
  const std::string text = "latin small letter isn't LATIN";
  CHECK(tokenizer.encode(text) == load_tokenizer(data).encode(text));
  CHECK(pairs.encode(text) == load_tokenizer(data).encode(text));
}

TEST_CASE("load_tokenizer: GPT-2's vocab.json and merges.txt give the same tokens") {
  const auto root = read_json(data / "tokenizer.json");
  auto vocabulary = root.at("model").at("vocab");
  for (const auto& token : root.at("added_tokens")) {
    if (token.at("content") == "<|endoftext|>") vocabulary["<|endoftext|>"] = token.at("id");
  }
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : root.at("model").at("merges")) {
    merges +=
        merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>();
    merges += '\n';
  }
  const Folder folder;
  (void)folder.file("vocab.json", vocabulary.dump());
  (void)folder.file("merges.txt", merges);
  const auto tokenizer = load_tokenizer(folder.path);
  for (const auto& line : read_json(data / "lines.json")) {
    const auto text = line.at("text").get<std::string>();
    if (text.find("<mask>") != text.npos) continue;  // the two files know no other added tokens
    CHECK(tokenizer.encode(text) == line.at("ids").get<Ids>());
  }
  CHECK(tokenizer.bos_id() == load_tokenizer(data).bos_id());

  (void)folder.file("merges.txt", "a b c\n");
  CHECK_THAT(said<FormatError>([&] { (void)load_tokenizer(folder.path); }), ContainsSubstring("merges.txt"));
  (void)folder.file("merges.txt", "unknown! token!\n");
  CHECK_THAT(said<FormatError>([&] { (void)load_tokenizer(folder.path); }), ContainsSubstring("unknown!"));
}

TEST_CASE("load_tokenizer: a folder without a tokenizer and a missing file say so") {
  const Folder folder;
  CHECK_THAT(said<FileError>([&] { (void)load_tokenizer(folder.path); }), ContainsSubstring("there is no tokenizer"));
  CHECK_THROWS_AS(load_tokenizer(folder.path / "tokenizer.json"), FileError);
  (void)folder.file("vocab.json", "{}");
  CHECK_THROWS_AS(load_tokenizer(folder.path), FileError);  // merges.txt
}

TEST_CASE("load_tokenizer: settings that would change the tokens are refused by name") {
  CHECK_THAT(error<ConfigError>([](Json& r) { r["normalizer"] = {{"type", "NFC"}}; }), ContainsSubstring("normalizer"));
  CHECK_THAT(error<ConfigError>([](Json& r) {
               r["pre_tokenizer"] = {{"type", "Whitespace"}};
             }),
             ContainsSubstring("Whitespace"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["pre_tokenizer"] = nullptr; }), ContainsSubstring("pre_tokenizer"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["pre_tokenizer"]["use_regex"] = false; }),
             ContainsSubstring("pre_tokenizer"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["pre_tokenizer"]["add_prefix_space"] = true; }),
             ContainsSubstring("add_prefix_space"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["model"]["type"] = "Unigram"; }), ContainsSubstring("Unigram"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["model"]["dropout"] = 0.1; }), ContainsSubstring("dropout"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["model"]["continuing_subword_prefix"] = "##"; }),
             ContainsSubstring("continuing_subword_prefix"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["added_tokens"][0]["lstrip"] = true; }), ContainsSubstring("lstrip"));
}

TEST_CASE("load_tokenizer: malformed vocabularies and merges are refused") {
  CHECK_THAT(error<ConfigError>([](Json& r) { r.erase("model"); }), ContainsSubstring("\"model\""));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["model"].erase("merges"); }), ContainsSubstring("merges"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["vocab"] = Json::array(); }), ContainsSubstring("vocab"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["vocab"]["new"] = 0; }), ContainsSubstring("id is taken"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["vocab"]["new"] = -1; }), ContainsSubstring("bad token id"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["vocab"]["new"] = 4'000'000'000U; }),
             ContainsSubstring("bad token id"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["vocab"]["new"] = "7"; }), ContainsSubstring("bad token id"));
  CHECK_THAT(error<ConfigError>([](Json& r) {
               r["model"]["vocab"].erase("!");
               r["model"]["merges"] = Json::array();
             }),
             ContainsSubstring("byte 33"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["merges"].push_back("nobody knows"); }),
             ContainsSubstring("nobody"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["merges"].push_back(Json::array({"a"})); }),
             ContainsSubstring("two tokens"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["model"]["merges"].push_back(r["model"]["merges"][0]); }),
             ContainsSubstring("twice"));
  CHECK_THAT(error<FormatError>([](Json& r) { r["added_tokens"].push_back(r["added_tokens"][0]); }),
             ContainsSubstring("twice"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["added_tokens"] = 5; }), ContainsSubstring("added_tokens"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["added_tokens"][0].erase("content"); }), ContainsSubstring("content"));
}

TEST_CASE("load_tokenizer: a truncated file is refused, wherever the cut falls") {
  const auto whole = bytes_of(data / "tokenizer.json");
  const Folder folder;
  for (std::size_t size = 0; size + 1 < whole.size(); size += 997) {
    CHECK_THROWS_AS(load_tokenizer(folder.file("tokenizer.json", whole.substr(0, size))), FormatError);
  }
}
