// tokenize_lines TOKENIZER.json LINES.json: the ids and offsets of each string of a JSON array, as a JSON array.
// tokenize_lines --unassigned: the code points that this PCRE2's Unicode tables do not know.
// The other half of compare_tokenizers.py.
#include <cstdint>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "circuit/io/json.hpp"
#include "circuit/text/load_tokenizer.hpp"

namespace {

std::string utf8(std::uint32_t c) {
  const auto tail = [&](unsigned shift) { return static_cast<char>(0x80U | ((c >> shift) & 0x3FU)); };
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0U | (c >> 6U)), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xE0U | (c >> 12U)), tail(6), tail(0)};
  return {static_cast<char>(0xF0U | (c >> 18U)), tail(12), tail(6), tail(0)};
}

nlohmann::json unassigned() {
  const circuit::Pattern known{"\\P{Cn}"};
  auto points = nlohmann::json::array();
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const auto text = utf8(c);
    if (!known.matches(text)) points.push_back(c);
  }
  return points;
}

nlohmann::json encoded(const char* tokenizer_file, const char* lines_file) {
  const auto tokenizer = circuit::load_tokenizer(tokenizer_file);
  auto result = nlohmann::json::array();
  for (const auto& line : circuit::read_json(lines_file)) {
    const auto text = line.get<std::string>();
    const auto encoding = tokenizer.encode_with_offsets(text);
    auto offsets = nlohmann::json::array();
    for (const auto& span : encoding.offsets) offsets.push_back({span.begin, span.end});
    result.push_back({{"ids", encoding.ids}, {"offsets", offsets}, {"decoded", tokenizer.decode(encoding.ids)}});
  }
  return result;
}

}  // namespace

int main(int count, char** arguments) try {
  if (count == 2 && std::string_view{arguments[1]} == "--unassigned") {
    std::cout << unassigned() << '\n';
  } else if (count == 3) {
    std::cout << encoded(arguments[1], arguments[2]) << '\n';
  } else {
    std::cerr << "usage: tokenize_lines TOKENIZER.json LINES.json | --unassigned\n";
    return 2;
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
