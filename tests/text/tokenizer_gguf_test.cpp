#include "circuit/text/tokenizer_gguf.hpp"

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "../io/files.hpp"
#include "../io/gguf_builder.hpp"
#include "catch.hpp"
#include "circuit/io/json.hpp"
#include "circuit/text/load_tokenizer.hpp"
#include "text/data.hpp"

using namespace circuit;
using namespace circuit_test;
using Ids = std::vector<std::int32_t>;

namespace {

/// Metadata that own their texts.
struct Stored {
  std::vector<std::string> tokens{};
  std::vector<std::string> merges{};
  GgufVocabulary rest{};

  [[nodiscard]] GgufVocabulary view() const {
    auto result = rest;
    result.tokens = {tokens.begin(), tokens.end()};
    result.merges = {merges.begin(), merges.end()};
    return result;
  }
  [[nodiscard]] Tokenizer make(const TokenizerOptions& options = {}) const {
    return make_tokenizer(view(), "some.gguf", options);
  }
  template <class E>
  [[nodiscard]] std::string error() const {
    return said<E>([&] { (void)make(); });
  }
};

/// A stored tokenizer.json as a conversion to GGUF writes it down.
Stored converted(const std::string& family, const std::string& pre) {
  const auto root = read_json(data / family / "tokenizer.json");
  Stored stored{.rest = {.model = "gpt2", .pre = pre}};
  const auto set = [&](const std::string& text, std::size_t id, std::int32_t type) {
    if (id >= stored.tokens.size()) stored.tokens.resize(id + 1);
    stored.rest.types.resize(stored.tokens.size(), 1);
    stored.tokens[id] = text;
    stored.rest.types[id] = type;
  };
  for (const auto& [text, id] : root.at("model").at("vocab").items()) set(text, id.get<std::size_t>(), 1);
  for (const auto& token : root.at("added_tokens")) {
    set(token.at("content"), token.at("id").get<std::size_t>(), token.at("special").get<bool>() ? 3 : 4);
  }
  for (const auto& merge : root.at("model").at("merges")) {
    stored.merges.push_back(merge[0].get<std::string>() + ' ' + merge[1].get<std::string>());
  }
  return stored;
}

Stored sentencepiece(const std::string& folder, bool add_space_prefix) {
  Stored stored{.rest = {.model = "llama", .bos = 1, .add_space_prefix = add_space_prefix}};
  for (const auto& piece : read_json(data / folder / "pieces.json")) {
    stored.tokens.push_back(piece.at(0));
    stored.rest.scores.push_back(piece.at(1));
    stored.rest.types.push_back(piece.at(2));
  }
  return stored;
}

std::string text_list(const std::string& key, const std::vector<std::string>& texts) {
  std::string bytes;
  for (const auto& text : texts) bytes += gguf::text(text);
  return gguf::list(key, 8, texts.size(), bytes);
}

template <class T>
std::string number_list(const std::string& key, std::uint32_t type, const std::vector<T>& values) {
  std::string bytes;
  for (const auto value : values) bytes += raw(value);
  return gguf::list(key, type, values.size(), bytes);
}

}  // namespace

TEST_CASE("tokenizer_gguf: byte-level vocabularies give the tokens of the tokenizer.json they came from") {
  const auto lines = read_json(data / "lines.json").get<std::vector<std::string>>();
  for (const auto& [family, pre] : std::vector<std::pair<std::string, std::string>>{{"gpt2", "gpt-2"},
                                                                                    {"llama3", "llama-bpe"},
                                                                                    {"qwen2", "qwen2"},
                                                                                    {"smollm2", "smollm"},
                                                                                    {"gpt_neox", "olmo"}}) {
    const auto tokenizer = converted(family, pre).make();
    const auto expected = read_json(data / family / "ids.json").get<std::vector<Ids>>();
    for (std::size_t i = 0; i < lines.size(); ++i) {
      INFO(family << ": " << lines[i]);
      CHECK(tokenizer.encode(lines[i]) == expected.at(i));
    }
  }
}

TEST_CASE("tokenizer_gguf: SentencePiece's pieces and scores give that library's tokens") {
  const auto lines = read_json(data / "lines.json").get<std::vector<std::string>>();
  for (const auto* const folder : {"sentencepiece", "sentencepiece_symbols"}) {
    const auto tokenizer = sentencepiece(folder, std::string{folder} == "sentencepiece").make();
    const auto expected = read_json(data / folder / "ids.json").get<std::vector<Ids>>();
    for (std::size_t i = 0; i < lines.size(); ++i) {
      // That library does not look for control tokens in text; `tokenizers` does.
      if (std::regex_search(lines[i], std::regex{"<s>|</s>|<unk>"})) continue;
      INFO(folder << ": " << lines[i]);
      CHECK(tokenizer.encode(lines[i]) == expected.at(i));
      CHECK(tokenizer.decode(expected.at(i)) == marks_to_spaces(lines[i]));
    }
  }
}

TEST_CASE("tokenizer_gguf: a file is read as its metadata are") {
  const auto stored = converted("smollm2", "smollm");
  const auto bos = static_cast<std::uint32_t>(stored.make().id_of("<|im_start|>").value());
  gguf::File file{.values = {gguf::value("tokenizer.ggml.model", 8, gguf::text("gpt2")),
                             gguf::value("tokenizer.ggml.pre", 8, gguf::text("smollm")),
                             text_list("tokenizer.ggml.tokens", stored.tokens),
                             text_list("tokenizer.ggml.merges", stored.merges),
                             number_list("tokenizer.ggml.token_type", 5, stored.rest.types),
                             gguf::value("tokenizer.ggml.bos_token_id", bos),
                             gguf::value("tokenizer.ggml.add_bos_token", 7, raw(std::uint8_t{1}))}};
  const Folder folder;
  const auto path = folder.file("model.gguf", file.bytes());
  const auto tokenizer = load_tokenizer(path);
  CHECK(tokenizer.encode(" letter 12") == stored.make().encode(" letter 12"));
  CHECK(tokenizer.bos_id() == static_cast<std::int32_t>(bos));
  CHECK(tokenizer.default_bos() == Bos::prepend);
  CHECK(load_tokenizer(open_gguf(path), {.bos = ""}).default_bos() == Bos::none);

  file.values.erase(file.values.begin() + 2);
  CHECK_THAT(said<ConfigError>([&] { (void)load_tokenizer(folder.file("model.gguf", file.bytes())); }),
             ContainsSubstring("tokenizer.ggml.tokens"));
}

TEST_CASE("tokenizer_gguf: the BOS is prepended as the file says, else as the family does") {
  auto smollm = converted("smollm2", "smollm");
  smollm.rest.bos = smollm.make().id_of("<|endoftext|>");
  CHECK(smollm.make().default_bos() == Bos::none);
  smollm.rest.add_bos = true;
  CHECK(smollm.make().default_bos() == Bos::prepend);
  smollm.rest.bos = {};
  CHECK(smollm.make().default_bos() == Bos::none);  // there is none to prepend
  CHECK_FALSE(smollm.make().bos_id().has_value());

  auto llama3 = converted("llama3", "llama-bpe");
  llama3.rest.bos = llama3.make().id_of("<|begin_of_text|>");
  CHECK(llama3.make().default_bos() == Bos::prepend);

  auto llama2 = sentencepiece("sentencepiece", true);
  CHECK(llama2.make().default_bos() == Bos::prepend);
  CHECK(llama2.make().bos_id() == 1);
  llama2.rest.add_bos = false;
  CHECK(llama2.make().default_bos() == Bos::none);
}

TEST_CASE("tokenizer_gguf: what is not supported is named") {
  auto stored = converted("gpt2", "gpt-2");
  stored.rest.pre = "deepseek-coder";
  CHECK_THAT(stored.error<ConfigError>(),
             ContainsSubstring("deepseek-coder") && ContainsSubstring("smollm") && ContainsSubstring("some.gguf"));
  stored.rest.pre.clear();
  CHECK_THAT(stored.error<ConfigError>(), ContainsSubstring("tokenizer.ggml.pre"));
  stored.rest.model = "bert";
  CHECK_THAT(stored.error<ConfigError>(), ContainsSubstring("bert"));
}

TEST_CASE("tokenizer_gguf: metadata that contradict each other are refused") {
  const auto with = [](auto&& change) {
    auto stored = converted("gpt2", "gpt-2");
    change(stored);
    return stored.error<FormatError>();
  };
  CHECK_THAT(with([](Stored& s) { s.tokens.clear(), s.rest.types.clear(); }), ContainsSubstring("tokens"));
  CHECK_THAT(with([](Stored& s) { s.rest.types.pop_back(); }), ContainsSubstring("token_type"));
  CHECK_THAT(with([](Stored& s) { s.rest.scores = {1.0F}; }), ContainsSubstring("scores"));
  CHECK_THAT(with([](Stored& s) { s.merges.push_back("nobody knows"); }), ContainsSubstring("nobody knows"));
  CHECK_THAT(with([](Stored& s) { s.merges.push_back("alone"); }), ContainsSubstring("alone"));
  CHECK_THAT(with([](Stored& s) { s.merges.push_back(s.merges.front()); }), ContainsSubstring("twice"));
  CHECK_THAT(with([](Stored& s) { s.tokens.push_back(s.tokens[71]), s.rest.types.push_back(1); }),
             ContainsSubstring("two ids"));
  CHECK_THAT(with([](Stored& s) { s.rest.bos = 1 << 20; }), ContainsSubstring("bos_token_id"));
  CHECK_THAT(with([](Stored& s) { s.rest.bos = -1; }), ContainsSubstring("bos_token_id"));

  const auto pieces = [](auto&& change) {
    auto stored = sentencepiece("sentencepiece", true);
    change(stored);
    return stored.error<FormatError>();
  };
  CHECK_THAT(pieces([](Stored& s) { s.rest.scores.clear(); }), ContainsSubstring("scores"));
  CHECK_THAT(pieces([](Stored& s) { s.tokens[300] = s.tokens[301]; }), ContainsSubstring("two ids"));
  CHECK_THAT(pieces([](Stored& s) { s.rest.types[3] = 1; }), ContainsSubstring("byte token 0"));
}
