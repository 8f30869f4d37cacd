#include <algorithm>
#include <string>
#include <vector>

#include "circuit/text/train_bpe.hpp"
#include "input.hpp"

// Any text is refused as not UTF-8, or comes back whole from its tokens, with offsets that cover it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto tokenizer =
      circuit::train_bpe(circuit::count_words(std::vector<std::string>{"aa ab abc abcabc  it's 19 1987\n\n"}),
                         {.vocab_size = 400, .min_count = 1})
          .tokenizer();
  const std::string text{reinterpret_cast<const char*>(data), size};
  return read_or_refuse([&] {
    const auto encoding = tokenizer.encode_with_offsets(text);
    if (tokenizer.decode(encoding.ids) != text) __builtin_trap();
    if (!text.empty() && encoding.offsets.back().end != text.size()) __builtin_trap();
  });
}
