#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/io/utf8.hpp"
#include "circuit/text/bpe.hpp"
#include "circuit/text/byte_level.hpp"

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

/// A token found in the text before any other splitting, such as "<|endoftext|>".
struct AddedToken {
  std::string text{};
  std::int32_t id = 0;
  bool special = true;      ///< marks structure rather than words
  bool normalized = false;  ///< looked for after those that are not
};

/// Text to tokens and back, for byte-level BPE vocabularies such as GPT-2's. A value: copies share the vocabulary, and
/// const calls are safe from several threads. Agrees with the Python package `tokenizers` token by token; Unicode
/// tables differ between releases, so that characters assigned since PCRE2's may split differently.
class Tokenizer {
 public:
  /// bos     text of the beginning-of-sequence token, which must be one token; "" for none
  /// file    names the source in errors
  /// throws  ConfigError, FormatError  as Bpe, and when added tokens contradict the vocabulary
  explicit Tokenizer(BpeVocabulary vocabulary, std::vector<AddedToken> added = {}, const std::string& bos = {},
                     const std::filesystem::path& file = {})
      : parts_{std::make_shared<const Parts>(std::move(vocabulary), std::move(added), file)} {
    if (bos.empty()) return;
    bos_ = id_of(bos);
    if (!bos_) throw ConfigError{{.file = file, .tensor = bos, .problem = "the BOS token is not in the vocabulary"}};
  }

  /// Tokens of `text`.
  /// throws  ValueError   when `text` is not UTF-8
  /// throws  ConfigError  when a BOS is wanted and there is none
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text, Bos bos = Bos::none) const {
    std::vector<std::int32_t> ids;
    if (bos == Bos::prepend) ids.push_back(required_bos());
    encode_pieces(text,
                  [&](std::span<const std::int32_t> piece) { ids.insert(ids.end(), piece.begin(), piece.end()); });
    return ids;
  }

  /// As encode, with the bytes of `text` that each token stands for. A token may be part of a character.
  [[nodiscard]] Encoding encode_with_offsets(std::string_view text, Bos bos = Bos::none) const {
    Encoding encoding;
    if (bos == Bos::prepend) {
      encoding.ids.push_back(required_bos());
      encoding.offsets.push_back({});
    }
    std::size_t begin = 0;
    encode_pieces(text, [&](std::span<const std::int32_t> piece) {
      for (const auto id : piece) {
        const auto end = begin + token_bytes(id).size();
        encoding.ids.push_back(id);
        encoding.offsets.push_back({begin, end});
        begin = end;
      }
    });
    return encoding;
  }

  /// The text of `ids`, special tokens included; bytes that are no valid UTF-8 together become U+FFFD.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids) const {
    std::string bytes;
    for (const auto id : ids) bytes += token_bytes(id);
    return to_valid_utf8(bytes);
  }

  /// One token as readable text, as in TransformerLens' `to_str_tokens`.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string token_text(std::int32_t id) const { return to_valid_utf8(token_bytes(id)); }

  /// The bytes that a token stands for, perhaps part of a character; valid as long as a copy of this tokenizer.
  /// throws  IndexError  for an id that no token has
  [[nodiscard]] std::string_view token_bytes(std::int32_t id) const {
    const auto& texts = parts_->texts;
    if (id < 0 || static_cast<std::size_t>(id) >= texts.size() || texts[static_cast<std::size_t>(id)].empty()) {
      throw IndexError{{.problem = "there is no such token id",
                        .expected = "0 to " + std::to_string(texts.size() - 1),
                        .got = std::to_string(id)}};
    }
    return texts[static_cast<std::size_t>(id)];
  }

  /// The id of the token whose text is exactly `token` (" Mary", not the vocabulary file's spelling of it).
  [[nodiscard]] std::optional<std::int32_t> id_of(std::string_view token) const {
    for (const auto& added : parts_->added) {
      if (added.text == token) return added.id;
    }
    return parts_->bpe.find(token);
  }

  /// The only token of `text`, for answers that are read off one position's logits.
  /// throws  ValueError  naming the pieces when `text` is not exactly one token
  [[nodiscard]] std::int32_t single_token(std::string_view text) const {
    const auto ids = encode(text);
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
  [[nodiscard]] std::span<const AddedToken> added_tokens() const noexcept { return parts_->added; }
  [[nodiscard]] const BpeVocabulary& vocabulary() const noexcept { return parts_->bpe.vocabulary(); }
  /// One more than the largest id.
  [[nodiscard]] std::size_t size() const noexcept { return parts_->texts.size(); }

 private:
  struct Parts {
    Parts(BpeVocabulary vocabulary, std::vector<AddedToken> tokens, const std::filesystem::path& file);
    void check_added(const AddedToken& token, const std::filesystem::path& file) const;

    Bpe bpe;
    Pattern words = gpt2_words();
    std::vector<AddedToken> added;
    std::vector<std::string> texts;  // by id: the vocabulary's tokens and the added ones
  };

  [[nodiscard]] std::int32_t required_bos() const {
    if (bos_) return *bos_;
    throw ConfigError{{.problem = "this tokenizer has no BOS token",
                       .hint = "encode with Bos::none, or name the token when the tokenizer is made"}};
  }

  /// Calls `visit(ids)` per word or added token, from left to right.
  template <class Visit>
  void encode_pieces(std::string_view text, Visit&& visit) const {
    check_utf8(text);
    Bpe::Scratch scratch;
    std::vector<std::int32_t> ids;
    const auto plain = [&](std::string_view part) {
      parts_->words.split(part, [&](std::string_view word) {
        ids.clear();
        parts_->bpe.encode_word(word, ids, scratch);
        visit(std::span<const std::int32_t>{ids});
      });
    };
    const auto token = [&](const AddedToken& found) { visit(std::span{&found.id, 1}); };
    split_at_added(text, /*normalized=*/false, token,
                   [&](std::string_view part) { split_at_added(part, /*normalized=*/true, token, plain); });
  }

  /// Cuts `text` at the added tokens of one kind: leftmost first, the longest of those that begin together.
  template <class OnToken, class OnText>
  void split_at_added(std::string_view text, bool normalized, OnToken&& on_token, OnText&& on_text) const;

  std::shared_ptr<const Parts> parts_;
  std::optional<std::int32_t> bos_;
};

inline Tokenizer::Parts::Parts(BpeVocabulary vocabulary, std::vector<AddedToken> tokens,
                               const std::filesystem::path& file)
    : bpe{std::move(vocabulary), file}, added{std::move(tokens)}, texts{bpe.vocabulary().tokens} {
  for (const auto& token : added) {
    check_added(token, file);
    const auto id = static_cast<std::size_t>(token.id);
    if (id >= texts.size()) texts.resize(id + 1);
    texts[id] = token.text;
  }
}

inline void Tokenizer::Parts::check_added(const AddedToken& token, const std::filesystem::path& file) const {
  constexpr std::int32_t most = 1 << 24;
  const auto bad = [&](std::string problem) {
    return FormatError{{.file = file, .tensor = token.text, .problem = std::move(problem)}};
  };
  if (token.text.empty() || first_invalid_utf8(token.text) != token.text.size()) throw bad("bad added token");
  if (token.id < 0 || token.id >= most) throw bad("an added token's id is out of range");
  const auto id = static_cast<std::size_t>(token.id);
  if (id < texts.size() && !texts[id].empty() && texts[id] != token.text) throw bad("an added token's id is taken");
  const auto known = bpe.find(token.text);
  if (known && *known != token.id) throw bad("an added token has another id in the vocabulary");
}

template <class OnToken, class OnText>
void Tokenizer::split_at_added(std::string_view text, bool normalized, OnToken&& on_token, OnText&& on_text) const {
  struct Next {
    const AddedToken* token;
    std::size_t at;
  };
  std::vector<Next> next;
  for (const auto& token : parts_->added) {
    if (token.normalized == normalized) next.push_back({&token, text.find(token.text)});
  }
  std::size_t done = 0;
  while (done < text.size()) {
    const Next* best = nullptr;
    for (auto& candidate : next) {
      if (candidate.at != text.npos && candidate.at < done) candidate.at = text.find(candidate.token->text, done);
      if (candidate.at == text.npos) continue;
      if (best == nullptr || candidate.at < best->at ||
          (candidate.at == best->at && candidate.token->text.size() > best->token->text.size())) {
        best = &candidate;
      }
    }
    const auto found = best == nullptr ? text.size() : best->at;
    if (found > done) on_text(text.substr(done, found - done));
    if (best == nullptr) return;
    on_token(*best->token);
    done = found + best->token->text.size();
  }
}

}  // namespace circuit
