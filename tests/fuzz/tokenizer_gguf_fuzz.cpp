#include "circuit/text/tokenizer_gguf.hpp"
#include "input.hpp"

// Whatever the metadata say, every text is refused or has tokens that cover it.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const std::string text = "some words 19 ab abc \xC3\xA9\n";
    const auto tokenizer = circuit::load_tokenizer(circuit::open_gguf(file.path()));
    const auto encoding = tokenizer.encode_with_offsets(text);
    if (!encoding.offsets.empty() && encoding.offsets.back().end > text.size()) __builtin_trap();
    (void)tokenizer.decode(encoding.ids);
  });
}
