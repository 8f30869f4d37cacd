#pragma once

#include <filesystem>
#include <string_view>
#include <system_error>

#include "circuit/core/error.hpp"
#include "circuit/io/gguf.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/text/sentencepiece_model.hpp"
#include "circuit/text/tokenizer_gguf.hpp"
#include "circuit/text/tokenizer_json.hpp"

namespace circuit {

namespace detail {

[[nodiscard]] inline Tokenizer load_tokenizer_file(const std::filesystem::path& path, const TokenizerOptions& options) {
  if (path.extension() == ".model") return read_sentencepiece_model(path, options);
  const auto mapping = Mapping::open(path);
  const std::string_view text{reinterpret_cast<const char*>(mapping->bytes().data()), mapping->bytes().size()};
  return text.starts_with("GGUF") ? load_tokenizer(open_gguf(path), options) : read_tokenizer_json(path, options);
}

}  // namespace detail

/// Reads the tokenizer of a Hugging Face model folder: tokenizer.json, else vocab.json with merges.txt, else
/// tokenizer.model. `path` may also be a tokenizer.json, a *.model or a GGUF file itself.
/// throws  FileError  when there is none; otherwise as the reader of the file's kind
[[nodiscard]] inline Tokenizer load_tokenizer(const std::filesystem::path& path, const TokenizerOptions& options = {}) {
  using detail::tokenizer_json::is_there;
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return detail::load_tokenizer_file(path, options);
  if (is_there(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json", options);
  if (is_there(path / "vocab.json")) return read_vocab_and_merges(path / "vocab.json", path / "merges.txt", options);
  if (is_there(path / "tokenizer.model")) return read_sentencepiece_model(path / "tokenizer.model", options);
  throw FileError{{.file = path,
                   .problem = "there is no tokenizer",
                   .expected = "tokenizer.json, vocab.json with merges.txt, or tokenizer.model"}};
}

}  // namespace circuit
