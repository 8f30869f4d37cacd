#include "circuit/text/load_tokenizer.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../io/files.hpp"
#include "catch.hpp"

using namespace circuit;
using namespace circuit_test;
using Json = nlohmann::json;

namespace {

const std::filesystem::path gpt2_data = std::filesystem::path{CIRCUIT_TEST_DATA} / "tokenizer" / "gpt2";

/// The stored tokenizer.json with one thing changed, read back.
template <class Change>
Tokenizer changed(Change&& change) {
  auto root = read_json(gpt2_data / "tokenizer.json");
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
  CHECK(load_tokenizer(gpt2_data).bos_id() == load_tokenizer(gpt2_data).id_of("<|endoftext|>"));
  CHECK(load_tokenizer(gpt2_data, {.bos = "<mask>"}).bos_id() == load_tokenizer(gpt2_data).id_of("<mask>"));
  CHECK_FALSE(load_tokenizer(gpt2_data, {.bos = ""}).bos_id().has_value());

  const Folder folder;
  (void)folder.file("tokenizer.json", bytes_of(gpt2_data / "tokenizer.json"));
  (void)folder.file("special_tokens_map.json", R"({"bos_token":"!"})");
  CHECK(load_tokenizer(folder.path).bos_id() == load_tokenizer(gpt2_data).id_of("!"));
  (void)folder.file("tokenizer_config.json", R"({"bos_token":{"content":"<mask>"}})");
  CHECK(load_tokenizer(folder.path).bos_id() == load_tokenizer(gpt2_data).id_of("<mask>"));
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
  CHECK(tokenizer.encode(text) == load_tokenizer(gpt2_data).encode(text));
  CHECK(pairs.encode(text) == load_tokenizer(gpt2_data).encode(text));
}

TEST_CASE("load_tokenizer: GPT-2's vocab.json and merges.txt give the same tokens") {
  const auto root = read_json(gpt2_data / "tokenizer.json");
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
  const auto whole = load_tokenizer(gpt2_data);
  for (const auto& line : read_json(gpt2_data.parent_path() / "lines.json")) {
    const auto text = line.get<std::string>();
    if (text.find("<mask>") != text.npos) continue;  // the two files know no other added tokens
    CHECK(tokenizer.encode(text) == whole.encode(text));
  }
  CHECK(tokenizer.bos_id() == load_tokenizer(gpt2_data).bos_id());

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

TEST_CASE(
    "load_tokenizer: the BOS a post-processor puts first is the family's default, unless the folder says otherwise") {
  const auto families = gpt2_data.parent_path();
  for (const auto* const family : {"llama3", "llama2", "mistral", "gemma"}) {
    INFO(family);
    CHECK(load_tokenizer(families / family).default_bos() == Bos::prepend);
  }
  for (const auto* const family : {"gpt2", "qwen2", "smollm2", "gpt_neox"}) {
    INFO(family);
    CHECK(load_tokenizer(families / family).default_bos() == Bos::none);
    CHECK(load_tokenizer(families / family).bos_id().has_value());
  }
  const auto llama3 = load_tokenizer(families / "llama3");
  CHECK(llama3.bos_id() == llama3.id_of("<|begin_of_text|>"));
  CHECK(load_tokenizer(families / "gemma").bos_id() == 2);

  const Folder folder;
  (void)folder.file("tokenizer.json", bytes_of(families / "llama3" / "tokenizer.json"));
  (void)folder.file("tokenizer_config.json", R"({"add_bos_token":false})");
  CHECK(load_tokenizer(folder.path).default_bos() == Bos::none);
  CHECK(load_tokenizer(folder.path, {.bos = ""}).default_bos() == Bos::none);
}

TEST_CASE("load_tokenizer: steps before the model are those of the file") {
  const auto words = [](const char* pre_tokenizer, const std::string& text) {
    const auto tokenizer = changed([&](Json& r) {
      r["pre_tokenizer"] = Json::parse(pre_tokenizer);
      r["added_tokens"] = Json::array();
      r["model"]["merges"] = Json::array();
      for (int id = 2000; const auto* const word : {"ab", "abc", "bc", "12"}) r["model"]["vocab"][word] = id++;
      for (const auto* const merge : {"a b", "b c", "ab c", "1 2"}) r["model"]["merges"].push_back(merge);
    });
    std::vector<std::string> pieces;
    for (const auto id : tokenizer.encode(text)) pieces.push_back(tokenizer.token_text(id));
    return pieces;
  };
  using Words = std::vector<std::string>;
  const auto* const raw = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  const auto with = [&](const std::string& step) {
    return R"({"type":"Sequence","pretokenizers":[)" + step + "," + raw + "]}";
  };
  CHECK(words(raw, "abc12abc") == Words{"abc", "12", "abc"});
  CHECK(words(with(R"({"type":"Digits","individual_digits":true})").c_str(), "12") == Words{"1", "2"});
  CHECK(words(with(R"({"type":"Split","pattern":{"String":"b"},"behavior":"Isolated"})").c_str(), "abc") ==
        Words{"a", "b", "c"});
  CHECK(
      words(with(R"({"type":"Split","pattern":{"String":"b"},"behavior":"MergedWithPrevious","invert":false})").c_str(),
            "abc") == Words{"ab", "c"});
  CHECK(words(with(R"({"type":"Split","pattern":{"Regex":"b"},"behavior":"MergedWithNext"})").c_str(), "abc") ==
        Words{"a", "bc"});
  CHECK(words(R"({"type":"ByteLevel","add_prefix_space":true})", "abc") == Words{" ", "abc"});
}

TEST_CASE("load_tokenizer: settings that would change the tokens are refused by name") {
  CHECK_THAT(error<ConfigError>([](Json& r) {
               r["normalizer"] = {{"type", "NFKD"}};
             }),
             ContainsSubstring("normalizer") && ContainsSubstring("NFKD"));
  CHECK_THAT(error<ConfigError>([](Json& r) {
               r["normalizer"] = {{"type", "Prepend"}, {"prepend", "x"}};
             }),
             ContainsSubstring("normalizer"));
  const auto step = [](const char* text) {
    return error<ConfigError>([&](Json& r) { r["pre_tokenizer"] = Json::parse(text); });
  };
  CHECK_THAT(step(R"({"type":"Whitespace"})"), ContainsSubstring("Whitespace"));
  CHECK_THAT(step("null"), ContainsSubstring("pre_tokenizer"));
  CHECK_THAT(step(R"({"type":"ByteLevel"})"), ContainsSubstring("add_prefix_space"));
  CHECK_THAT(step("7"), ContainsSubstring("pre_tokenizer"));
  CHECK_THAT(
      step(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel","add_prefix_space":false},{"type":"Digits"}]})"),
      ContainsSubstring("after ByteLevel"));
  CHECK_THAT(
      step(
          R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel","add_prefix_space":true}]})"),
      ContainsSubstring("add_prefix_space"));
  CHECK_THAT(step(R"({"type":"Sequence","pretokenizers":7})"), ContainsSubstring("list of steps"));
  CHECK_THAT(step(R"({"type":"Split","pattern":{"Regex":"a"},"behavior":"Removed"})"), ContainsSubstring("Removed"));
  CHECK_THAT(step(R"({"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"})"), ContainsSubstring("(a"));
  CHECK_THAT(step(R"({"type":"Split","pattern":{"Regex":"a\\h"},"behavior":"Isolated"})"), ContainsSubstring("\\h"));
  CHECK_THAT(step(R"({"type":"Split","pattern":{"String":""},"behavior":"Isolated"})"), ContainsSubstring("empty"));
  CHECK_THAT(step(R"({"type":"Split","pattern":{"String":" "},"behavior":"MergedWithNext","invert":true})"),
             ContainsSubstring("invert"));
  CHECK_THAT(step(R"({"type":"Metaspace","replacement":"_"})"), ContainsSubstring("U+2581"));
  CHECK_THAT(error<ConfigError>([](Json& r) { r["model"]["byte_fallback"] = true; }),
             ContainsSubstring("byte_fallback"));
  CHECK_THAT(error<ConfigError>([](Json& r) {
               r["decoder"] = {{"type", "WordPiece"}};
             }),
             ContainsSubstring("WordPiece"));
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

TEST_CASE("load_tokenizer: byte tokens must all be there, and each be its byte") {
  const auto with = [](auto&& change) {
    auto root = read_json(gpt2_data.parent_path() / "llama2" / "tokenizer.json");
    change(root);
    const Folder folder;
    const auto file = folder.file("tokenizer.json", root.dump());
    return said<Error>([&] { (void)load_tokenizer(file); });
  };
  CHECK_THAT(with([](Json& r) { r["model"]["vocab"].erase("<0x41>"); }), ContainsSubstring("byte token 65"));
  CHECK_THAT(with([](Json& r) { r["model"]["byte_fallback"] = false; }), ContainsSubstring("byte_fallback"));
  CHECK_THAT(with([](Json& r) { r["normalizer"] = nullptr; }), ContainsSubstring("pre_tokenizer"));
  CHECK_THAT(with([](Json& r) {
               r["normalizer"]["normalizers"].push_back({{"type", "NFC"}});
             }),
             ContainsSubstring("NFC"));
  CHECK_THAT(with([](Json& r) {
               r["added_tokens"][0]["normalized"] = true;
               r["normalizer"] = nullptr;
               r["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}};
             }),
             ContainsSubstring("<unk>"));
  CHECK_THAT(with([](Json& r) { r["decoder"]["decoders"][3]["start"] = 2; }), ContainsSubstring("Strip"));
}

TEST_CASE("load_tokenizer: a truncated file is refused, wherever the cut falls") {
  const auto whole = bytes_of(gpt2_data / "tokenizer.json");
  const Folder folder;
  for (std::size_t size = 0; size + 1 < whole.size(); size += 997) {
    CHECK_THROWS_AS(load_tokenizer(folder.file("tokenizer.json", whole.substr(0, size))), FormatError);
  }
}
