#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/text/added_token.hpp"
#include "circuit/text/bpe.hpp"
#include "circuit/text/normalization.hpp"
#include "circuit/text/spelling.hpp"
#include "circuit/text/unigram.hpp"
#include "circuit/text/words.hpp"

namespace circuit {

/// Whether an encoding begins with the beginning-of-sequence token, as TransformerLens' `to_tokens` lets it.
enum class Bos : std::uint8_t { none, prepend };

/// Bytes [begin, end) of a text.
struct ByteSpan {
  std::size_t begin = 0;
  std::size_t end = 0;

  friend bool operator==(const ByteSpan&, const ByteSpan&) = default;
};

/// Tokens and where each came from; a prepended BOS has the empty span [0, 0).
struct Encoding {
  std::vector<std::int32_t> ids{};
  std::vector<ByteSpan> offsets{};  ///< one per id; together they cover the text without gaps
};

/// What a tokenizer is made of; the defaults are GPT-2's.
struct TokenizerParts {
  BpeVocabulary vocabulary{};
  std::optional<UnigramVocabulary> unigram{};  ///< instead of `vocabulary`
  Splitter words = gpt2_words();
  Normalization normalization{};
  std::vector<AddedToken> added{};
  std::string bos{};                ///< text of the beginning-of-sequence token, which must be one token; "" for none
  Bos default_bos = Bos::none;      ///< what the model was trained with, as far as its files say
  bool decode_drops_space = false;  ///< decoding takes off one leading space, which encoding put there
};

/// Text to tokens and back, for BPE vocabularies (byte-level as GPT-2's, or SentencePiece's with byte tokens) and unigram
/// models. A value:
/// copies share the vocabulary, and const calls are safe from several threads. Agrees with the Python package
/// `tokenizers` token by token; Unicode tables differ between releases, so that characters assigned since PCRE2's or
/// nfc_tables.hpp's may split differently.
class Tokenizer {
 public:
  /// file    names the source in errors
  /// throws  ConfigError, FormatError  as Bpe, and when added tokens contradict the vocabulary
  explicit Tokenizer(TokenizerParts parts, const std::filesystem::path& file = {})
      : default_bos_{parts.default_bos}, state_{std::make_shared<const State>(std::move(parts), file)} {
    const auto& bos = state_->parts.bos;
    if (bos.empty()) return;
    bos_ = id_of(bos);
    if (!bos_) throw ConfigError{{.file = file, .tensor = bos, .problem = "the BOS token is not in the vocabulary"}};
  }

  /// GPT-2's kind with this vocabulary.
  explicit Tokenizer(BpeVocabulary vocabulary, std::vector<AddedToken> added = {}, const std::string& bos = {},
                     const std::filesystem::path& file = {})
      : Tokenizer{parts_of(std::move(vocabulary), std::move(added), bos), file} {}

  /// Tokens of `text`.
  /// throws  ValueError   when `text` is not UTF-8
  /// throws  ConfigError  when a BOS is wanted and there is none
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, Bos bos = Bos::none) const {
    std::vector<std::int32_t> ids;
    if (bos == Bos::prepend) ids.push_back(required_bos());
    append_ids(text, state_->parts.normalization, ids);
    return ids;
  }

  /// As encode, with the bytes of `text` that each token stands for. A token may be part of a character; of characters
  /// that normalisation changed or joined, the first token stands for all.
  [[nodiscard]] Encoding encode_with_offsets(std::string_view text, Bos bos = Bos::none) const;

  /// The text of `ids`, special tokens included; bytes that are no valid UTF-8 together become U+FFFD.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids) const {
    std::string bytes;
    for (const auto id : ids) bytes += token_bytes(id);
    if (state_->parts.decode_drops_space && bytes.starts_with(' ')) bytes.erase(0, 1);
    return to_valid_utf8(bytes);
  }

  /// One token as readable text, as in TransformerLens' `to_str_tokens`.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string token_text(std::int32_t id) const { return to_valid_utf8(token_bytes(id)); }

  /// The bytes that a token stands for, perhaps part of a character; valid as long as a copy of this tokenizer.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string_view token_bytes(std::int32_t id) const {
    const auto& texts = state_->texts;
    if (!has_token(id)) {
      throw IndexError{{.problem = "there is no such token id",
                        .expected = "0 to " + std::to_string(texts.size() - 1),
                        .got = std::to_string(id)}};
    }
    return texts[static_cast<std::size_t>(id)];
  }

  /// Whether some token has this id; a model's vocabulary may be padded beyond them.
  [[nodiscard]] bool has_token(std::int32_t id) const noexcept {
    const auto& texts = state_->texts;
    return id >= 0 && static_cast<std::size_t>(id) < texts.size() && !texts[static_cast<std::size_t>(id)].empty();
  }

  /// The id of the token whose text is exactly `token` (" Mary", not the vocabulary file's spelling of it).
  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view token) const {
    for (const auto& added : state_->parts.added) {
      if (added.text == token) return added.id;
    }
    return state_->find(token);
  }

  /// The only token of `text`, for answers that are read off one position's logits. The text goes on from a prompt, so
  /// no space is put before it where a tokenizer would begin a text with one.
  /// throws  ValueError  naming the pieces when `text` is not exactly one token
  [[nodiscard]] std::int32_t single_token(std::string_view text) const {
    auto continuing = state_->parts.normalization;
    continuing.prefix = PrefixSpace::none;
    continuing.rules.trim_left = continuing.rules.trim_right = false;
    std::vector<std::int32_t> ids;
    append_ids(text, continuing, ids);
    if (ids.size() == 1) return ids.front();
    std::string pieces;
    for (const auto id : ids) pieces += (pieces.empty() ? "\"" : " + \"") + token_text(id) + '"';
    throw ValueError{{.tensor = std::string{text},
                      .problem = "is not one token",
                      .expected = "one token",
                      .got = ids.empty() ? "none" : std::to_string(ids.size()) + ": " + pieces,
                      .hint = text.starts_with(' ') ? "choose another word" : "most words need their leading space"}};
  }

  [[nodiscard]] std::optional<std::int32_t> bos_id() const noexcept { return bos_; }
  /// Whether the model was trained on texts that begin with the BOS, as far as its files say: `encode(text,
  /// tokenizer.default_bos())` gives what the model expects.
  [[nodiscard]] Bos default_bos() const noexcept { return default_bos_; }
  [[nodiscard]] std::span<const AddedToken> added_tokens() const noexcept { return state_->parts.added; }
  /// throws  ConfigError  for a unigram model
  [[nodiscard]] const BpeVocabulary& vocabulary() const {
    if (const auto* bpe = std::get_if<Bpe>(&state_->model)) return bpe->vocabulary();
    throw ConfigError{{.tensor = "vocabulary", .problem = "is of a unigram model, which has no merges"}};
  }
  /// The model's own tokens, without those added.
  [[nodiscard]] std::span<const std::string> model_tokens() const noexcept { return tokens_of(state_->model); }
  /// One more than the largest id.
  [[nodiscard]] std::size_t size() const noexcept { return state_->texts.size(); }

 private:
  using Model = std::variant<Bpe, Unigram>;

  [[nodiscard]] static TokenizerParts parts_of(BpeVocabulary&& vocabulary, std::vector<AddedToken>&& added,
                                               const std::string& bos) {
    TokenizerParts parts;
    parts.vocabulary = std::move(vocabulary);
    parts.added = std::move(added);
    parts.bos = bos;
    return parts;
  }
  [[nodiscard]] static Model model_of(TokenizerParts& parts, const std::filesystem::path& file) {
    if (parts.unigram) return Unigram{std::move(*parts.unigram), file};
    return Bpe{std::move(parts.vocabulary), file};
  }
  [[nodiscard]] static const std::vector<std::string>& tokens_of(const Model& model) noexcept {
    const auto* bpe = std::get_if<Bpe>(&model);
    return bpe != nullptr ? bpe->vocabulary().tokens : std::get_if<Unigram>(&model)->vocabulary().tokens;
  }

  struct State {
    State(TokenizerParts from, const std::filesystem::path& file);
    void check_added(const AddedToken& token, const std::string& text, const std::filesystem::path& file) const;

    [[nodiscard]] std::optional<std::int32_t> find(std::string_view token) const {
      return std::visit([&](const auto& kind) { return kind.find(token); }, model);
    }

    TokenizerParts parts;  // its vocabulary is the model's
    Model model;
    std::vector<std::string> texts;          // by id: the vocabulary's tokens and the added ones
    std::vector<detail::Sought> raw;         // added tokens looked for in the text as it is
    std::vector<detail::Sought> normalized;  // and in normalised text
  };

  [[nodiscard]] std::int32_t required_bos() const {
    if (bos_) return *bos_;
    throw ConfigError{{.problem = "this tokenizer has no BOS token",
                       .hint = "encode with Bos::none, or name the token when the tokenizer is made"}};
  }

  void append_ids(std::string_view text, const Normalization& normalization, std::vector<std::int32_t>& ids) const {
    std::vector<TextChange> changes;
    encode_pieces(text, normalization, changes,
                  [&](std::string_view, std::span<const std::int32_t> piece, std::span<const std::size_t>) {
                    ids.insert(ids.end(), piece.begin(), piece.end());
                  });
  }

  /// Called with (normal, ids, ends) of a word or added token: its normalised text, and where each id ends in that, or
  /// nothing where the ids' bytes say so.
  using Visit = std::function<void(std::string_view, std::span<const std::int32_t>, std::span<const std::size_t>)>;

  /// Visits words and added tokens from left to right; all their normalised texts joined are that of `text`. `changes`
  /// gets what normalisation changed.
  void encode_pieces(std::string_view text, const Normalization& normalization, std::vector<TextChange>& changes,
                     const Visit& visit) const;

  /// Where the token that begins at `at` of the word `normal` ends; bytes that no token has are passed over.
  [[nodiscard]] std::size_t end_of_token(std::string_view normal, std::size_t at, std::int32_t id) const {
    const auto* const bpe = std::get_if<Bpe>(&state_->model);
    for (auto left = token_bytes(id).size(); left > 0 && at < normal.size(); ++at) {
      if (bpe == nullptr || bpe->has_byte(normal[at])) --left;
    }
    return at;
  }

  std::optional<std::int32_t> bos_;
  Bos default_bos_;
  std::shared_ptr<const State> state_;
};

inline Tokenizer::State::State(TokenizerParts from, const std::filesystem::path& file)
    : parts{std::move(from)}, model{model_of(parts, file)}, texts{tokens_of(model)} {
  auto how = parts.normalization;
  // A space that a normaliser puts first is put before the added token too, one that splitting puts first is not.
  if (how.prefix != PrefixSpace::always) how.prefix = PrefixSpace::none;
  std::string buffer;
  std::vector<TextChange> changes;
  for (const auto& token : parts.added) {
    auto text = how.mark_is_space ? marks_to_spaces(token.text) : token.text;
    check_added(token, text, file);
    if (token.normalized) {
      text = normalize(how, token.text, false, buffer, changes);
      if (text.empty()) {
        throw ConfigError{{.file = file,
                           .tensor = token.text,
                           .problem = "an added token looked for in normalised text, where nothing is left of it"}};
      }
      normalized.push_back({text, token.id});
    } else {
      raw.push_back({token.text, token.id});
    }
    const auto id = static_cast<std::size_t>(token.id);
    if (id >= texts.size()) texts.resize(id + 1);
    texts[id] = std::move(text);
  }
  const auto prefix = parts.normalization.prefix;
  if (!normalized.empty() && prefix != how.prefix && prefix != PrefixSpace::at_start) {
    throw ConfigError{{.file = file,
                       .tensor = normalized.front().text,
                       .problem = "an added token looked for in normalised text, where a space begins each text"}};
  }
}

inline void Tokenizer::State::check_added(const AddedToken& token, const std::string& text,
                                          const std::filesystem::path& file) const {
  constexpr std::int32_t most = 1 << 24;
  const auto bad = [&](std::string problem) {
    return FormatError{{.file = file, .tensor = token.text, .problem = std::move(problem)}};
  };
  if (token.text.empty() || !is_utf8(token.text)) throw bad("bad added token");
  if (token.id < 0 || token.id >= most) throw bad("an added token's id is out of range");
  const auto id = static_cast<std::size_t>(token.id);
  if (id < texts.size() && !texts[id].empty() && texts[id] != text) throw bad("an added token's id is taken");
  // A vocabulary's " " is spelt otherwise in its file, so both it and an added token " " may be there.
  const auto known = find(text);
  const bool same_spelling = to_byte_level(token.text) == token.text;
  if (known && *known != token.id && same_spelling) throw bad("an added token has another id in the vocabulary");
}

inline void Tokenizer::encode_pieces(std::string_view text, const Normalization& normalization,
                                     std::vector<TextChange>& changes, const Visit& visit) const {
  check_utf8(text);
  Bpe::Scratch scratch;
  Unigram::Scratch unigram_scratch;
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> ends;
  std::string buffer;
  std::vector<TextChange> changed;
  std::size_t done = 0;         // bytes of the text
  std::size_t normal_done = 0;  // bytes of the normalised text, as visited
  const auto visited = [&](std::string_view normal, std::span<const std::int32_t> piece) {
    normal_done += normal.size();
    visit(normal, piece, ends);
    ends.clear();
  };
  const auto on_word = [&](std::string_view word) {
    ids.clear();
    if (const auto* bpe = std::get_if<Bpe>(&state_->model)) bpe->encode_word(word, ids, scratch);
    if (const auto* unigram = std::get_if<Unigram>(&state_->model))
      unigram->encode_word(word, ids, ends, unigram_scratch);
    visited(word, ids);
  };
  const auto on_normal_token = [&](std::int32_t id, std::string_view found) { visited(found, {&id, 1}); };
  const auto on_raw_token = [&](std::int32_t id, std::string_view found) {
    const auto normal = token_bytes(id);
    if (normal.size() != found.size()) changes.push_back({normal_done, normal.size(), found.size()});
    done += found.size();
    visited(normal, {&id, 1});
  };
  const auto on_text = [&](std::string_view part) {
    const auto normal = normalize(normalization, part, done == 0, buffer, changed);
    for (const auto& change : changed) changes.push_back({normal_done + change.at, change.length, change.was});
    done += part.size();
    detail::split_at_added(state_->normalized, normal, on_normal_token,
                           [&](std::string_view words) { state_->parts.words.split(words, on_word); });
  };
  detail::split_at_added(state_->raw, text, on_raw_token, on_text);
}

inline Encoding Tokenizer::encode_with_offsets(std::string_view text, Bos bos) const {
  Encoding encoding;
  std::vector<std::size_t> ends;  // in the normalised text
  if (bos == Bos::prepend) {
    encoding.ids.push_back(required_bos());
    ends.push_back(0);
  }
  std::size_t begin = 0;
  std::vector<TextChange> changes;
  const auto visit = [&](std::string_view normal, std::span<const std::int32_t> ids,
                         std::span<const std::size_t> own_ends) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      end = own_ends.empty() ? end_of_token(normal, end, ids[i]) : own_ends[i];
      encoding.ids.push_back(ids[i]);
      ends.push_back(begin + end);
    }
    begin += normal.size();
    if (!ids.empty()) ends.back() = begin;
  };
  encode_pieces(text, state_->parts.normalization, changes, visit);
  OffsetMap to_text{changes};
  ByteSpan span;
  for (const auto end : ends) {
    span = {span.end, to_text(end)};
    encoding.offsets.push_back(span);
  }
  return encoding;
}

}  // namespace circuit
