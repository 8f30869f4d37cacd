#pragma once

#include <optional>
#include <string>

namespace circuit {

struct TokenizerOptions {
  /// Text of the beginning-of-sequence token. Absent: what the model's files name (`bos_token` of tokenizer_config.json
  /// or special_tokens_map.json in the same folder, the post-processor's template, a GGUF's BOS id), else GPT-2's
  /// "<|endoftext|>" if the vocabulary has it. Empty: none.
  std::optional<std::string> bos{};
};

}  // namespace circuit
