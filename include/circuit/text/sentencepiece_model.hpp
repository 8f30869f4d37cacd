#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/text/tokenizer_gguf.hpp"
#include "circuit/text/tokenizer_options.hpp"

namespace circuit {

/// Reads a tokenizer.model of the SentencePiece library: BPE with byte fallback and no rules of normalisation, which is
/// what Llama 2, Mistral and Gemma have, or a unigram model with any rules. The BOS is prepended by default unless a
/// tokenizer_config.json beside it says otherwise.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  not such a file, truncated, or pieces and scores that contradict each other
/// throws  ConfigError  word and character models, rules of a BPE's and other settings not supported, named; a unigram
///                      model without an unknown piece
/// source  sentencepiece_model.proto of the library, and protocol buffers' wire format
[[nodiscard]] Tokenizer read_sentencepiece_model(const std::filesystem::path& path,
                                                 const TokenizerOptions& options = {});

namespace detail::sentencepiece {

/// One field of a message: a number of some width, or bytes.
struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view bytes{};
};

/// The fields of one message, front to back.
class Message {
 public:
  Message(std::string_view bytes, const std::filesystem::path& file) : bytes_{bytes}, file_{file} {}

  /// return  nothing at the end
  [[nodiscard]] std::optional<Field> next() {
    if (bytes_.empty()) return {};
    const auto key = varint();
    Field field{.number = key >> 3U};
    switch (key & 7U) {
      case 0: field.value = varint(); break;
      case 1: field.value = fixed(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.value = fixed(4); break;
      default: throw bad("a field of unknown kind " + std::to_string(key & 7U));
    }
    return field;
  }

 private:
  [[nodiscard]] FormatError bad(std::string problem) const {
    return FormatError{
        {.file = file_, .problem = std::move(problem), .hint = "truncated, or not a SentencePiece model"}};
  }

  [[nodiscard]] std::string_view take(std::uint64_t size) {
    if (size > bytes_.size()) throw bad("a field longer than the file");
    const auto part = bytes_.substr(0, static_cast<std::size_t>(size));
    bytes_.remove_prefix(part.size());
    return part;
  }

  [[nodiscard]] std::uint64_t fixed(std::size_t size) {
    const auto part = take(size);
    std::uint64_t value = 0;
    for (std::size_t i = size; i-- > 0;) value = (value << 8U) | static_cast<std::uint8_t>(part[i]);
    return value;
  }

  [[nodiscard]] std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1).front());
      value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return value;
    }
    throw bad("a number of more than 64 bits");
  }

  std::string_view bytes_;
  const std::filesystem::path& file_;
};

/// Pieces as GGUF files keep them, with the same numbers for their types; the library's defaults where nothing is said.
class Reader {
 public:
  Reader(std::string_view bytes, const std::filesystem::path& file) : bytes_{bytes}, file_{file} {}

  /// A unigram model, once it is read; its pieces are those of `read`.
  [[nodiscard]] bool is_unigram() const { return model_type_ == 1; }
  [[nodiscard]] TokenizerParts unigram_parts(const GgufVocabulary& pieces) const;

  [[nodiscard]] GgufVocabulary read() {
    result_.model = "llama";
    result_.bos = 1;
    result_.prefixes_each_stretch = false;
    Message model{bytes_, file_};
    while (const auto field = model.next()) {
      if (field->number == 1) piece(field->bytes);
      if (field->number == 2) trainer(field->bytes);
      if (field->number == 3) normalizer(field->bytes);
    }
    if (result_.tokens.empty()) {
      throw FormatError{{.file = file_, .problem = "no pieces", .hint = "not a SentencePiece model"}};
    }
    if (!has_trainer_ || !has_normalizer_) {
      throw FormatError{{.file = file_, .problem = "no trainer_spec or normalizer_spec", .hint = "truncated"}};
    }
    const std::string_view kinds[] = {"", "unigram", "BPE", "word", "char"};
    const auto kind = model_type_ < 5 ? std::string{kinds[model_type_]} : std::to_string(model_type_);
    need(model_type_ == 1 || model_type_ == 2, "trainer_spec.model_type", "unigram or BPE", kind);
    need(is_unigram() || byte_fallback_, "trainer_spec.byte_fallback", "true", "false");
    need(!spaces_end_words_, "trainer_spec.treat_whitespace_as_suffix", "false", "true");
    need(is_unigram() || charsmap_.empty(), "normalizer_spec.precompiled_charsmap", "none, as of the rule \"identity\"",
         rule_);
    need(is_unigram() || !trims_, "normalizer_spec.remove_extra_whitespaces", "false", "true");
    need(escapes_, "normalizer_spec.escape_whitespaces", "true", "false");
    if (static_cast<std::int32_t>(*result_.bos) < 0) result_.bos = {};
    return std::move(result_);
  }

 private:
  [[nodiscard]] static float score_of_chosen(std::string_view piece);
  void need(bool holds, const char* setting, const char* expected, std::string got) const {
    if (holds) return;
    throw ConfigError{{.file = file_,
                       .tensor = setting,
                       .problem = "is not supported",
                       .expected = expected,
                       .got = std::move(got),
                       .hint = "use the model's tokenizer.json if it has one"}};
  }

  void piece(std::string_view bytes) {
    std::string_view text;
    float score = 0;
    std::int32_t type = 1;
    Message message{bytes, file_};
    while (const auto field = message.next()) {
      if (field->number == 1) text = field->bytes;
      if (field->number == 2) score = std::bit_cast<float>(static_cast<std::uint32_t>(field->value));
      if (field->number == 3) type = static_cast<std::int32_t>(field->value);
    }
    result_.tokens.push_back(text);
    result_.scores.push_back(score);
    result_.types.push_back(type);
  }

  void trainer(std::string_view bytes) {
    has_trainer_ = true;
    Message message{bytes, file_};
    while (const auto field = message.next()) {
      if (field->number == 3) model_type_ = field->value;
      if (field->number == 24) spaces_end_words_ = field->value != 0;
      if (field->number == 35) byte_fallback_ = field->value != 0;
      if (field->number == 41) result_.bos = static_cast<std::int64_t>(field->value);
    }
  }

  void normalizer(std::string_view bytes) {
    has_normalizer_ = true;
    Message message{bytes, file_};
    while (const auto field = message.next()) {
      if (field->number == 1) rule_ = std::string{field->bytes};
      if (field->number == 2) charsmap_ = field->bytes;
      if (field->number == 3) result_.add_space_prefix = field->value != 0;
      if (field->number == 4) trims_ = field->value != 0;
      if (field->number == 5) escapes_ = field->value != 0;
    }
  }

  std::string_view bytes_;
  const std::filesystem::path& file_;
  GgufVocabulary result_{};
  std::uint64_t model_type_ = 1;
  bool has_trainer_ = false;
  bool has_normalizer_ = false;
  bool byte_fallback_ = false;
  bool spaces_end_words_ = false;
  std::string rule_{};
  std::string_view charsmap_{};
  bool trims_ = true;
  bool escapes_ = true;
};

/// The score of a piece that the user chose, better than any other way to spell it; of several such ways, one long piece
/// is best. source  unigram_model.cc of the library's release 0.2.3
inline float Reader::score_of_chosen(std::string_view piece) {
  constexpr double by_byte = 0.1;
  return static_cast<float>(by_byte * (static_cast<double>(piece.size()) - 1));
}

inline TokenizerParts Reader::unigram_parts(const GgufVocabulary& pieces) const {
  enum class Type : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };
  TokenizerParts parts;
  UnigramVocabulary v;
  v.single_precision = true;
  if (byte_fallback_) v.byte_tokens.assign(256, -1);
  for (std::size_t i = 0; i < pieces.tokens.size(); ++i) {
    const auto type = static_cast<Type>(pieces.types[i]);
    const auto id = static_cast<std::int32_t>(i);
    const auto byte = byte_of_token(pieces.tokens[i]);
    if (type == Type::unknown) v.unknown = id;
    if (type == Type::byte && byte && byte_fallback_) v.byte_tokens[*byte] = id;
    if (type == Type::control && !pieces.tokens[i].empty()) {
      parts.added.push_back({.text = std::string{pieces.tokens[i]}, .id = id});
    }
    v.tokens.push_back(type == Type::control        ? std::string{}
                       : type == Type::byte && byte ? std::string(1, static_cast<char>(*byte))
                                                    : marks_to_spaces(pieces.tokens[i]));
    const bool chosen = type == Type::user_defined && !pieces.tokens[i].empty();
    if (chosen) {
      if (!is_utf8(pieces.tokens[i])) {
        throw FormatError{{.file = file_, .tensor = "piece " + std::to_string(i), .problem = "is not UTF-8"}};
      }
      parts.normalization.rules.kept.emplace_back(pieces.tokens[i]);
    }
    v.scores.push_back(static_cast<double>(chosen ? score_of_chosen(pieces.tokens[i]) : pieces.scores[i]));
    v.in_text.push_back(type == Type::normal || chosen ? 1 : 0);
  }
  std::ranges::sort(parts.normalization.rules.kept);
  parts.unigram = std::move(v);
  parts.words = Splitter{};
  auto& how = parts.normalization;
  how.mark_is_space = true;
  if (pieces.add_space_prefix) how.prefix = PrefixSpace::always;
  if (!charsmap_.empty()) how.rules.map = std::make_shared<const Charsmap>(charsmap_, file_);
  how.rules.join_spaces = how.rules.trim_left = how.rules.trim_right = trims_;
  parts.decode_drops_space = pieces.add_space_prefix;
  parts.default_bos = pieces.bos && pieces.add_bos.value_or(true) ? Bos::prepend : Bos::none;
  const auto bos = pieces.bos.value_or(-1);
  if (bos >= 0 && static_cast<std::size_t>(bos) < pieces.tokens.size()) {
    parts.bos = pieces.tokens[static_cast<std::size_t>(bos)];
  }
  return parts;
}

}  // namespace detail::sentencepiece

inline Tokenizer read_sentencepiece_model(const std::filesystem::path& path, const TokenizerOptions& options) {
  const auto mapping = Mapping::open(path);
  const auto bytes = mapping->bytes();
  detail::sentencepiece::Reader reader{{reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path};
  auto vocabulary = reader.read();
  const auto config = path.parent_path() / "tokenizer_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(config, ignored)) {
    const auto root = read_json(config);
    if (root.is_object()) vocabulary.add_bos = value_or(root, "add_bos_token", config, true);
  }
  if (!reader.is_unigram()) return make_tokenizer(vocabulary, path, options);
  auto parts = reader.unigram_parts(vocabulary);
  if (options.bos) parts.bos = *options.bos;
  if (parts.bos.empty()) parts.default_bos = Bos::none;
  return Tokenizer{std::move(parts), path};
}

}  // namespace circuit
