#pragma once

#include <filesystem>
#include <system_error>

#include "circuit/core/error.hpp"
#include "circuit/text/tokenizer_json.hpp"

namespace circuit {

/// Reads the tokenizer of a Hugging Face model folder: tokenizer.json, else vocab.json with merges.txt. `path` may also
/// be a tokenizer.json itself.
/// throws  FileError  when there is none; otherwise as read_tokenizer_json
[[nodiscard]] inline Tokenizer load_tokenizer(const std::filesystem::path& path, const TokenizerOptions& options = {}) {
  using detail::tokenizer_json::is_there;
  std::error_code ignored;
  if (!std::filesystem::is_directory(path, ignored)) return read_tokenizer_json(path, options);
  if (is_there(path / "tokenizer.json")) return read_tokenizer_json(path / "tokenizer.json", options);
  if (is_there(path / "vocab.json")) return read_vocab_and_merges(path / "vocab.json", path / "merges.txt", options);
  throw FileError{
      {.file = path, .problem = "there is no tokenizer", .expected = "tokenizer.json, or vocab.json and merges.txt"}};
}

}  // namespace circuit
