#include "circuit/text/load_tokenizer.hpp"
#include "input.hpp"

// The input is a whole tokenizer.json of a unigram model. Whatever it says, every text has tokens that cover it; those of
// a byte-pair encoding have a fuzzer of their own.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const InputFile file{data, size};
  return read_or_refuse([&] {
    const auto tokenizer = circuit::load_tokenizer(file.path());
    for (const std::string text :
         {"", " ", "some  words 19 \xE2\x96\x81 ab abc \xC3\xA9\n",
          "\xEF\xBC\xA1\xEF\xBD\x82\xE3\x8E\x8F e\xCC\x81\xCC\xA3 \xF0\x9F\x91\xA8 <unk></s>"}) {
      const auto encoding = tokenizer.encode_with_offsets(text);
      std::size_t end = 0;
      for (const auto& span : encoding.offsets) {
        if (span.begin != end || span.end < span.begin || span.end > text.size()) __builtin_trap();
        end = span.end;
      }
      if (tokenizer.encode(text) != encoding.ids) __builtin_trap();
      (void)tokenizer.decode(encoding.ids);
    }
  });
}
