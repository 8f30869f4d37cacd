#include "circuit/text/charsmap.hpp"
#include "input.hpp"

// Whatever the rules, each text is cut into pieces that cover it, and what replaces them is UTF-8. The text is what the
// input begins with, after its length; the rules are the rest.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input{reinterpret_cast<const char*>(data), size};
  const std::size_t length = input.empty() ? 0 : std::min<std::size_t>(data[0], size - 1);
  const auto text = input.substr(input.empty() ? 0 : 1, length);
  if (!circuit::is_utf8(text)) return -1;
  return read_or_refuse([&] {
    const circuit::Charsmap map{input.substr(std::min(length + 1, size))};
    std::size_t covered = 0;
    const auto visit = [&](std::string_view from, std::string_view to) {
      if (from.empty() || from.data() != text.data() + covered) __builtin_trap();
      if (!circuit::is_utf8(to)) __builtin_trap();
      covered += from.size();
    };
    map.for_each_piece(text, visit);
    if (covered != text.size()) __builtin_trap();
    covered = 0;
    map.for_each_grapheme_piece(text, visit);
    if (covered != text.size()) __builtin_trap();
  });
}
