#include "circuit/text/load_tokenizer.hpp"
#include "input.hpp"

// A vocabulary without all 256 bytes is refused early, so the input is the part of the file that comes after them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text = R"({"pre_tokenizer":{"type":"ByteLevel"},"model":{"vocab":{)";
  for (int byte = 0; byte < 256; ++byte) {
    text += nlohmann::json(circuit::to_byte_level(std::string(1, static_cast<char>(byte)))).dump() + ':' +
            std::to_string(byte) + ',';
  }
  text.append(reinterpret_cast<const char*>(data), size);
  const InputFile file{reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  return read_or_refuse([&] {
    const auto tokenizer = circuit::load_tokenizer(file.path());
    const auto ids = tokenizer.encode("some words, <s> 19 ab abc");
    if (tokenizer.decode(ids) != "some words, <s> 19 ab abc") __builtin_trap();
  });
}
