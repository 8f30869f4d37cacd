#include <algorithm>
#include <cstdio>
#include <string>

#include "circuit/text/load_tokenizer.hpp"
#include "input.hpp"

namespace {

/// Spaces may come and go: some tokenizers put one first, some write them as U+2581.
std::string without_spaces(std::string text) {
  text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
  return text;
}

}  // namespace

// A vocabulary without all 256 bytes, spelt one way or the other, is refused early, so the input is the part of the
// file that comes after them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text = R"({"model":{"vocab":{)";
  for (int byte = 0; byte < 256; ++byte) {
    char other[16];
    std::snprintf(other, sizeof other, "\"<0x%02X>\":", static_cast<unsigned>(byte));
    text += nlohmann::json(circuit::to_byte_level(std::string(1, static_cast<char>(byte)))).dump() + ':' +
            std::to_string(byte) + ',' + other + std::to_string(byte + 256) + ',';
  }
  text.append(reinterpret_cast<const char*>(data), size);
  const InputFile file{reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  return read_or_refuse([&] {
    const std::string words = "some words, <s> 19 ab abc";
    const auto tokenizer = circuit::load_tokenizer(file.path());
    const auto encoding = tokenizer.encode_with_offsets(words);
    if (without_spaces(tokenizer.decode(encoding.ids)) != without_spaces(words)) __builtin_trap();
    std::size_t end = 0;
    for (const auto& span : encoding.offsets) {
      if (span.begin != end || span.end < span.begin || span.end > words.size()) __builtin_trap();
      end = span.end;
    }
  });
}
