#include "circuit/text/sentencepiece_model.hpp"
#include "input.hpp"

// Whatever is read from the file, every text has tokens that give it back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const std::string text = "some words 19 \xE2\x96\x81 ab abc \xC3\xA9\n";
    const auto tokenizer = circuit::read_sentencepiece_model(file.path());
    const auto encoding = tokenizer.encode_with_offsets(text);
    if (!encoding.offsets.empty() && encoding.offsets.back().end != text.size()) __builtin_trap();
    (void)tokenizer.decode(encoding.ids);
  });
}
