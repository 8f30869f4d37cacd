#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "circuit/core/compiled.hpp"
#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/text/spelling.hpp"
#include "circuit/text/tokenizer.hpp"
#include "circuit/text/tokenizer_layout.hpp"
#include "circuit/text/tokenizer_options.hpp"

namespace circuit {

/// Reads a Hugging Face tokenizer.json: byte-level BPE (GPT-2, GPT-NeoX, Llama 3, Qwen, SmolLM), or BPE with byte
/// tokens and U+2581 for spaces (Llama 2, Mistral, Gemma), or a Unigram model (T5, XLM-R, XGLM). Its post-processor is
/// not applied: `Bos` says what to prepend.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  not JSON, or a vocabulary and merges that contradict each other
/// throws  ConfigError  a setting that would change the tokens and is not supported, named
[[nodiscard]] Tokenizer read_tokenizer_json(const std::filesystem::path& path, const TokenizerOptions& options = {});

namespace detail::tokenizer_json {

inline constexpr std::string_view gpt2_end = "<|endoftext|>";
inline constexpr std::int32_t most_tokens = 1 << 24;

/// Fills tokens, and what is there of the 256 byte_tokens where the vocabulary is not byte-level.
inline void read_vocabulary(const nlohmann::json& object, bool byte_level, BpeVocabulary& bpe,
                            const std::filesystem::path& file) {
  if (!object.is_object()) throw FormatError{{.file = file, .tensor = "vocab", .expected = "an object of ids"}};
  auto& tokens = bpe.tokens;
  for (const auto& [text, value] : members(object)) {
    const auto id = json_holds<std::int32_t>(value) ? json_as<std::int32_t>(value) : -1;
    if (id < 0 || id >= most_tokens) {
      throw FormatError{{.file = file,
                         .tensor = text,
                         .problem = "bad token id",
                         .expected = "a whole number below " + std::to_string(most_tokens),
                         .got = short_dump(value)}};
    }
    const auto slot = static_cast<std::size_t>(id);
    if (slot >= tokens.size()) tokens.resize(slot + 1);
    if (!tokens[slot].empty()) throw FormatError{{.file = file, .tensor = text, .problem = "this token's id is taken"}};
    const auto byte = byte_level ? std::nullopt : byte_of_token(text);
    if (byte) bpe.byte_tokens[*byte] = id;
    tokens[slot] = byte         ? std::string(1, static_cast<char>(*byte))
                   : byte_level ? from_byte_level(text).value_or(text)
                                : marks_to_spaces(text);
  }
}

/// Ids of merged pairs, from the vocabulary file's spelling of both sides.
class MergeReader {
 public:
  MergeReader(const nlohmann::json& vocabulary, const std::filesystem::path& file)
      : vocabulary_{vocabulary}, file_{file} {}

  [[nodiscard]] std::pair<std::int32_t, std::int32_t> operator()(const std::string& left,
                                                                 const std::string& right) const {
    return {id(left), id(right)};
  }
  [[nodiscard]] std::pair<std::int32_t, std::int32_t> operator()(std::string_view line) const {
    const auto space = line.find(' ');
    if (space == line.npos || line.find(' ', space + 1) != line.npos) {
      throw FormatError{{.file = file_, .tensor = "merges", .expected = "two tokens", .got = std::string{line}}};
    }
    return {id(std::string{line.substr(0, space)}), id(std::string{line.substr(space + 1)})};
  }

 private:
  [[nodiscard]] std::int32_t id(const std::string& text) const {
    const auto* found = find_field(vocabulary_, text);
    if (found == nullptr) {
      throw FormatError{{.file = file_, .tensor = text, .problem = "a merge names a token that the vocabulary lacks"}};
    }
    return json_as<std::int32_t>(*found);
  }

  const nlohmann::json& vocabulary_;
  const std::filesystem::path& file_;
};

inline void read_merges(const nlohmann::json& model, const nlohmann::json& vocabulary, BpeVocabulary& bpe,
                        const std::filesystem::path& file) {
  const MergeReader merge{vocabulary, file};
  const auto& merges = require_field(model, "merges", file);
  if (!merges.is_array()) {
    throw FormatError{{.file = file, .tensor = "merges", .expected = "a list", .got = short_dump(merges)}};
  }
  for (const auto& entry : items(merges)) {
    if (const auto* line = stored<std::string>(entry)) {
      bpe.merges.push_back(merge(*line));
    } else if (json_holds<std::vector<std::string>>(entry) && entry.size() == 2) {
      const auto pair = json_as<std::vector<std::string>>(entry);
      bpe.merges.push_back(merge(pair[0], pair[1]));
    } else {
      throw FormatError{{.file = file, .tensor = "merges", .expected = "two tokens", .got = short_dump(entry)}};
    }
  }
}

[[nodiscard]] inline BpeVocabulary read_model(const nlohmann::json& model, bool byte_level,
                                              const std::filesystem::path& file) {
  const auto type = value_or<std::string>(model, "type", file, "BPE");
  if (type != "BPE")
    throw ConfigError{{.file = file, .tensor = "model.type", .expected = "BPE or Unigram", .got = type}};
  refuse(model, {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}, file);
  const bool byte_fallback = value_or(model, "byte_fallback", file, false);
  if (byte_fallback == byte_level) {
    throw ConfigError{{.file = file,
                       .tensor = "model.byte_fallback",
                       .problem = "is not supported",
                       .expected = byte_level ? "false, as the pre_tokenizer is ByteLevel" : "true, without ByteLevel",
                       .got = byte_fallback ? "true" : "false"}};
  }
  BpeVocabulary bpe{.whole_words_first = value_or(model, "ignore_merges", file, false)};
  if (byte_fallback) bpe.byte_tokens.assign(256, -1);
  const auto& vocabulary = require_field(model, "vocab", file);
  read_vocabulary(vocabulary, byte_level, bpe, file);
  read_merges(model, vocabulary, bpe, file);
  const bool lacks_bytes = byte_level && !has_all_utf8_bytes(bpe.tokens);
  if (lacks_bytes) refuse(model, {"unk_token"}, file);  // what has no token is left out, not replaced
  return bpe;
}

/// A list of [token, score]; the id is the place in it.
[[nodiscard]] inline UnigramVocabulary read_unigram(const nlohmann::json& model, const std::filesystem::path& file) {
  const auto& entries = require_field(model, "vocab", file);
  const auto bad = [&](std::string name, const nlohmann::json& got) {
    return FormatError{
        {.file = file, .tensor = std::move(name), .expected = "a list of [token, score]", .got = short_dump(got)}};
  };
  if (!entries.is_array() || entries.size() > static_cast<std::size_t>(most_tokens)) throw bad("vocab", entries);
  UnigramVocabulary v;
  const bool byte_fallback = value_or(model, "byte_fallback", file, false);
  if (byte_fallback) v.byte_tokens.assign(256, -1);
  for (const auto& entry : items(entries)) {
    const auto id = static_cast<std::int32_t>(v.tokens.size());
    const auto& pair = items(entry);
    if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_number()) {
      throw bad("token " + std::to_string(id), entry);
    }
    const auto text = json_as<std::string>(pair[0]);
    const auto byte = byte_fallback ? byte_of_token(text) : std::nullopt;
    if (byte) v.byte_tokens[*byte] = id;
    v.tokens.push_back(byte ? std::string(1, static_cast<char>(*byte)) : marks_to_spaces(text));
    v.scores.push_back(json_as<double>(pair[1]));
    v.in_text.push_back(byte ? 0 : 1);
  }
  const auto* unknown = find_field(model, "unk_id");
  if (unknown != nullptr && !unknown->is_null()) v.unknown = require<std::int32_t>(model, "unk_id", file);
  return v;
}

[[nodiscard]] inline std::vector<AddedToken> read_added(const nlohmann::json& root, const std::filesystem::path& file) {
  std::vector<AddedToken> added;
  for (const auto& entry : value_or<std::vector<nlohmann::json>>(root, "added_tokens", file, {})) {
    refuse(entry, {"single_word", "lstrip", "rstrip"}, file);
    AddedToken token{.text = require<std::string>(entry, "content", file),
                     .id = require<std::int32_t>(entry, "id", file),
                     .special = value_or(entry, "special", file, false)};
    token.normalized = value_or(entry, "normalized", file, !token.special);
    added.push_back(std::move(token));
  }
  const auto refuse_twice = [&](const auto& less) {
    const auto order = order_by(added.size(), [&](auto a, auto b) { return less(added[a], added[b]); });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (less(added[order[i - 1]], added[order[i]])) continue;
      throw FormatError{{.file = file, .tensor = added[order[i]].text, .problem = "this added token is there twice"}};
    }
  };
  refuse_twice([](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  refuse_twice([](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return added;
}

/// What cannot be looked at is not there; opening it says why.
[[nodiscard]] inline bool is_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

/// `bos_token` of a tokenizer_config.json or special_tokens_map.json: a string, or an object holding one.
[[nodiscard]] inline std::optional<std::string> bos_of(const std::filesystem::path& file) {
  if (!is_there(file)) return {};
  const auto root = read_json(file);
  const auto* found = find_field(root, "bos_token");
  if (found == nullptr || found->is_null()) return {};
  if (found->is_object()) return require<std::string>(*found, "content", file);
  return require<std::string>(root, "bos_token", file);
}

/// Text of the BOS token.
[[nodiscard]] inline std::string choose_bos(const TokenizerOptions& options, const std::filesystem::path& folder,
                                            const std::optional<std::string>& first,
                                            const std::vector<AddedToken>& added) {
  if (options.bos) return *options.bos;
  for (const auto* const name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    if (const auto bos = bos_of(folder / name)) return *bos;
  }
  if (first) return *first;
  const auto is_end = [](const AddedToken& token) { return token.text == gpt2_end; };
  return std::ranges::any_of(added, is_end) ? std::string{gpt2_end} : std::string{};
}

/// `add_bos_token` of tokenizer_config.json, else whether the post-processor puts the BOS first.
[[nodiscard]] inline Bos choose_default_bos(const std::filesystem::path& folder,
                                            const std::optional<std::string>& first, const std::string& bos) {
  if (bos.empty()) return Bos::none;
  bool prepend = first == bos;
  if (const auto config = folder / "tokenizer_config.json"; is_there(config)) {
    const auto root = read_json(config);
    if (root.is_object()) prepend = value_or(root, "add_bos_token", config, prepend);
  }
  return prepend ? Bos::prepend : Bos::none;
}

}  // namespace detail::tokenizer_json

#ifdef CIRCUIT_DEFINE
CIRCUIT_DEFINE Tokenizer read_tokenizer_json(const std::filesystem::path& path, const TokenizerOptions& options) {
  namespace tj = detail::tokenizer_json;
  const auto root = read_json(path);
  auto layout = tj::LayoutReader{path}.read(root);
  const auto folder = path.parent_path();
  auto added = tj::read_added(root, path);
  const auto bos = tj::choose_bos(options, folder, layout.first, added);
  const auto& model = require_field(root, "model", path);
  const bool unigram = value_or<std::string>(model, "type", path, "") == "Unigram";
  if (unigram && layout.byte_level) {
    throw ConfigError{{.file = path, .tensor = "pre_tokenizer", .problem = "is ByteLevel, of a Unigram model"}};
  }
  if (!unigram && layout.normalization.rules.any()) {
    throw ConfigError{{.file = path, .tensor = "normalizer", .problem = "is of a Unigram model, which this is not"}};
  }
  TokenizerParts parts;
  if (unigram) parts.unigram = tj::read_unigram(model, path);
  if (!unigram) parts.vocabulary = tj::read_model(model, layout.byte_level, path);
  parts.words = Splitter{std::move(layout.steps)};
  parts.normalization = std::move(layout.normalization);
  parts.added = std::move(added);
  parts.bos = bos;
  parts.default_bos = tj::choose_default_bos(folder, layout.first, bos);
  parts.decode_drops_space = layout.decode_drops_space;
  return Tokenizer{std::move(parts), path};
}
#endif

/// Reads GPT-2's own two files: ids in vocab.json, one merge per line in merges.txt.
/// throws  as read_tokenizer_json
[[nodiscard]] inline Tokenizer read_vocab_and_merges(const std::filesystem::path& vocab,
                                                     const std::filesystem::path& merges,
                                                     const TokenizerOptions& options = {}) {
  namespace tj = detail::tokenizer_json;
  const auto vocabulary = read_json(vocab);
  BpeVocabulary bpe;
  tj::read_vocabulary(vocabulary, /*byte_level=*/true, bpe, vocab);
  const auto mapping = Mapping::open(merges);
  std::string_view text{reinterpret_cast<const char*>(mapping->bytes().data()), mapping->bytes().size()};
  const tj::MergeReader merge{vocabulary, merges};
  for (bool first = true; !text.empty(); first = false) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || (first && line.starts_with("#version"))) continue;
    bpe.merges.push_back(merge(line));
  }
  std::vector<AddedToken> added;
  const std::string end_text{tj::gpt2_end};
  if (const auto* end = find_field(vocabulary, end_text)) {
    added.push_back({.text = end_text, .id = detail::json_as<std::int32_t>(*end)});
  }
  const auto bos = tj::choose_bos(options, vocab.parent_path(), {}, added);
  return Tokenizer{std::move(bpe), std::move(added), bos, vocab};
}

}  // namespace circuit
