#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/io/gguf.hpp"
#include "circuit/text/spelling.hpp"
#include "circuit/text/tokenizer.hpp"
#include "circuit/text/tokenizer_options.hpp"

namespace circuit {

/// A tokenizer as GGUF metadata hold it, under tokenizer.ggml; texts are views of the file.
struct GgufVocabulary {
  std::string model{};                     ///< "gpt2": byte-level BPE; "llama": SentencePiece's BPE
  std::string pre{};                       ///< the pre-tokenizer's name, such as "llama-bpe"; byte-level only
  std::vector<std::string_view> tokens{};  ///< by id, spelt as in a tokenizer.json
  std::vector<std::string_view> merges{};  ///< "left right", first merge first; byte-level only
  std::vector<float> scores{};             ///< by id; SentencePiece's only
  std::vector<std::int32_t> types{};       ///< by id: normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6
  std::optional<std::int64_t> bos{};
  std::optional<bool> add_bos{};  ///< absent: true for SentencePiece's and Llama 3's, else false
  bool add_space_prefix = true;   ///< SentencePiece's only
  /// SentencePiece's only: a space is put before what follows a user-defined token too, as llama.cpp does; the library
  /// puts one before the whole text, and finds user-defined tokens in what that gives.
  bool prefixes_each_stretch = true;
};

/// throws  ConfigError  when model or tokens are missing, or a value is of the wrong type
[[nodiscard]] GgufVocabulary read_gguf_vocabulary(const GgufMetadata& metadata);

/// throws  FormatError  lists of different lengths, merges or scores that contradict the tokens, a BOS that is none
/// throws  ConfigError  a model or pre-tokenizer that is not supported, named
[[nodiscard]] Tokenizer make_tokenizer(const GgufVocabulary& vocabulary, const std::filesystem::path& file = {},
                                       const TokenizerOptions& options = {});

/// The tokenizer in a GGUF file. SentencePiece's is put together from its pieces' scores.
/// throws  as read_gguf_vocabulary and make_tokenizer
[[nodiscard]] inline Tokenizer load_tokenizer(const GgufFile& file, const TokenizerOptions& options = {}) {
  return make_tokenizer(read_gguf_vocabulary(file.metadata()), file.path(), options);
}

namespace detail::tokenizer_gguf {

enum class Type : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };

/// What a pre-tokenizer's name stands for. Form C is not in the files; it is what the models were trained with.
struct PreTokenizer {
  std::string_view name;
  Splitter (*words)();
  bool nfc = false;
  bool whole_words_first = false;
  bool add_bos = false;
};

inline constexpr std::array<PreTokenizer, 11> pre_tokenizers{
    {{"gpt-2", gpt2_words},
     {"gpt2", gpt2_words},
     {"olmo", gpt2_words, /*nfc=*/true},  // GPT-NeoX's
     {"llama-bpe", llama3_words, false, /*whole_words_first=*/true, /*add_bos=*/true},
     {"llama3", llama3_words, false, true, true},
     {"llama-v3", llama3_words, false, true, true},
     {"qwen2", qwen2_words, true},
     {"deepseek-r1-qwen", qwen2_words, true},
     {"smollm", smollm_words},
     {"starcoder", smollm_words},
     {"refact", smollm_words}}};

class Maker {
 public:
  Maker(const GgufVocabulary& from, const std::filesystem::path& file) : from_{from}, file_{file} {}

  [[nodiscard]] Tokenizer make(const TokenizerOptions& options) {
    check_lengths();
    if (from_.model == "gpt2") {
      byte_level();
    } else if (from_.model == "llama") {
      sentencepiece();
    } else {
      throw ConfigError{{.file = file_,
                         .tensor = "tokenizer.ggml.model",
                         .problem = "is not supported",
                         .expected = "gpt2 or llama",
                         .got = from_.model}};
    }
    parts_.bos = options.bos ? *options.bos : bos();
    if (parts_.bos.empty()) parts_.default_bos = Bos::none;
    return Tokenizer{std::move(parts_), file_};
  }

 private:
  [[nodiscard]] FormatError bad(std::string name, std::string problem, std::string expected = {},
                                std::string got = {}) const {
    return FormatError{{.file = file_,
                        .tensor = std::move(name),
                        .problem = std::move(problem),
                        .expected = std::move(expected),
                        .got = std::move(got)}};
  }

  void check_lengths() const {
    constexpr std::size_t most = 1 << 24;
    const auto count = from_.tokens.size();
    if (count == 0 || count > most) {
      throw bad("tokenizer.ggml.tokens", "impossible count", "1 to " + std::to_string(most), std::to_string(count));
    }
    const auto same = [&](const char* name, std::size_t size) {
      if (size != 0 && size != count) {
        throw bad(name, "has another length than the tokens", std::to_string(count), std::to_string(size));
      }
    };
    same("tokenizer.ggml.token_type", from_.types.size());
    same("tokenizer.ggml.scores", from_.scores.size());
  }

  [[nodiscard]] Type type(std::size_t id) const {
    return from_.types.empty() ? Type::normal : static_cast<Type>(from_.types[id]);
  }

  /// Tokens found in the text as they are; the text of a special one marks structure.
  void add(std::size_t id) {
    AddedToken token{.text = std::string{from_.tokens[id]}, .id = static_cast<std::int32_t>(id)};
    token.special = type(id) != Type::user_defined;
    token.normalized = !token.special && parts_.normalization.prefix != PrefixSpace::always;
    if (!token.text.empty()) parts_.added.push_back(std::move(token));
  }

  void byte_level() {
    const auto* const pre = std::find_if(pre_tokenizers.begin(), pre_tokenizers.end(),
                                         [&](const PreTokenizer& known) { return known.name == from_.pre; });
    if (pre == pre_tokenizers.end()) {
      std::string names;
      for (const auto& known : pre_tokenizers) names += (names.empty() ? "" : ", ") + std::string{known.name};
      throw ConfigError{{.file = file_,
                         .tensor = "tokenizer.ggml.pre",
                         .problem = from_.pre.empty() ? "is missing, so that words cannot be split as in training"
                                                      : "is not supported",
                         .expected = "one of " + names,
                         .got = from_.pre}};
    }
    parts_.words = pre->words();
    if (pre->nfc) parts_.normalization.form = UnicodeForm::c;
    parts_.vocabulary.whole_words_first = pre->whole_words_first;
    parts_.default_bos = from_.add_bos.value_or(pre->add_bos) ? Bos::prepend : Bos::none;
    byte_level_tokens();
    merges();
  }

  void byte_level_tokens() {
    auto& tokens = parts_.vocabulary.tokens;
    tokens.resize(from_.tokens.size());
    for (std::size_t id = 0; id < tokens.size(); ++id) {
      const auto spelt = from_.tokens[id];
      auto bytes = from_byte_level(spelt);
      if (type(id) == Type::normal) {
        tokens[id] = bytes ? std::move(*bytes) : std::string{spelt};
        continue;
      }
      add(id);
      if (bytes == spelt) tokens[id] = std::move(*bytes);  // merges may make it too
    }
  }

  void merges() {
    std::unordered_map<std::string_view, std::int32_t> ids;
    for (std::size_t id = 0; id < from_.tokens.size(); ++id) {
      ids.emplace(from_.tokens[id], static_cast<std::int32_t>(id));
    }
    for (const auto merge : from_.merges) {
      const auto space = merge.find(' ');
      const auto left = ids.find(merge.substr(0, space));
      const auto right = space == merge.npos ? ids.end() : ids.find(merge.substr(space + 1));
      if (left == ids.end() || right == ids.end()) {
        throw bad("tokenizer.ggml.merges", "a merge that does not name two tokens", {}, std::string{merge});
      }
      parts_.vocabulary.merges.emplace_back(left->second, right->second);
    }
  }

  void sentencepiece() {
    if (from_.scores.empty()) throw bad("tokenizer.ggml.scores", "is missing");
    parts_.words = Splitter{};
    parts_.normalization.mark_is_space = true;
    const bool has_user_defined =
        std::ranges::find(from_.types, static_cast<std::int32_t>(Type::user_defined)) != from_.types.end();
    if (from_.add_space_prefix) {
      parts_.normalization.prefix =
          has_user_defined && !from_.prefixes_each_stretch ? PrefixSpace::at_start : PrefixSpace::always;
    }
    parts_.decode_drops_space = from_.add_space_prefix;
    parts_.default_bos = from_.add_bos.value_or(true) ? Bos::prepend : Bos::none;
    auto& vocabulary = parts_.vocabulary;
    vocabulary.scores = from_.scores;
    vocabulary.byte_tokens.assign(256, -1);
    vocabulary.tokens.resize(from_.tokens.size());
    for (std::size_t id = 0; id < from_.tokens.size(); ++id) piece(id);
  }

  void piece(std::size_t id) {
    auto& vocabulary = parts_.vocabulary;
    const auto byte = byte_of_token(from_.tokens[id]);
    if (type(id) == Type::normal) {
      vocabulary.tokens[id] = marks_to_spaces(from_.tokens[id]);
    } else if (type(id) == Type::byte && byte) {
      vocabulary.tokens[id] = std::string(1, static_cast<char>(*byte));
      vocabulary.byte_tokens[*byte] = static_cast<std::int32_t>(id);
    } else {
      add(id);
    }
  }

  /// Text of the BOS, as the added token or the vocabulary has it.
  [[nodiscard]] std::string bos() const {
    if (!from_.bos) return {};
    const auto id = *from_.bos;
    if (id < 0 || static_cast<std::uint64_t>(id) >= from_.tokens.size()) {
      throw bad("tokenizer.ggml.bos_token_id", "is no token", "below " + std::to_string(from_.tokens.size()),
                std::to_string(id));
    }
    const auto i = static_cast<std::size_t>(id);
    return type(i) == Type::normal ? parts_.vocabulary.tokens[i] : std::string{from_.tokens[i]};
  }

  const GgufVocabulary& from_;
  const std::filesystem::path& file_;
  TokenizerParts parts_{};
};

}  // namespace detail::tokenizer_gguf

inline GgufVocabulary read_gguf_vocabulary(const GgufMetadata& metadata) {
  const auto optional = [&]<class T>(std::string_view key, std::optional<T> absent) {
    return metadata.contains(key) ? std::optional{metadata.require<T>(key)} : absent;
  };
  return {.model = metadata.require<std::string>("tokenizer.ggml.model"),
          .pre = metadata.value_or<std::string>("tokenizer.ggml.pre", {}),
          .tokens = metadata.require<std::vector<std::string_view>>("tokenizer.ggml.tokens"),
          .merges = metadata.value_or<std::vector<std::string_view>>("tokenizer.ggml.merges", {}),
          .scores = metadata.value_or<std::vector<float>>("tokenizer.ggml.scores", {}),
          .types = metadata.value_or<std::vector<std::int32_t>>("tokenizer.ggml.token_type", {}),
          .bos = optional("tokenizer.ggml.bos_token_id", std::optional<std::int64_t>{}),
          .add_bos = optional("tokenizer.ggml.add_bos_token", std::optional<bool>{}),
          .add_space_prefix = metadata.value_or("tokenizer.ggml.add_space_prefix", true)};
}

inline Tokenizer make_tokenizer(const GgufVocabulary& vocabulary, const std::filesystem::path& file,
                                const TokenizerOptions& options) {
  return detail::tokenizer_gguf::Maker{vocabulary, file}.make(options);
}

}  // namespace circuit
