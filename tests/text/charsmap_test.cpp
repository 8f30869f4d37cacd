#include "circuit/text/charsmap.hpp"

#include <vector>

#include "circuit/text/tokenizer_layout.hpp"
#include "io/files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

std::string blob(const std::vector<std::uint32_t>& units, std::string_view replacements) {
  std::string bytes = raw(static_cast<std::uint32_t>(units.size() * 4));
  for (const auto unit : units) bytes += raw(unit);
  return bytes.append(replacements);
}

std::string refused(const std::string& bytes) {
  return said<FormatError>([&] { Charsmap{bytes, "x.model"}; });
}

/// A trie of two blocks of 256 units in which `byte` leads to unit 256 + byte's offset: one key, of one byte.
std::vector<std::uint32_t> one_key(std::uint8_t byte, std::uint32_t value, std::uint32_t leaf) {
  std::vector<std::uint32_t> units(512, 0);
  units[0] = 256U << 10U;  // the root's children are at 256 ^ byte
  units[256U ^ byte] = (((256U ^ byte) ^ leaf) << 10U) | (1U << 8U) | byte;
  if (leaf < units.size()) units[leaf] = value | (1U << 31U);
  return units;
}

}  // namespace

TEST_CASE("charsmap: a rule replaces, the rest stays") {
  const Charsmap map{blob(one_key('x', 2, 7), std::string_view{"q\0ab\0", 5})};
  CHECK(map.find("xy", Charsmap::Choice::longest).length == 1);
  CHECK(map.find("xy", Charsmap::Choice::longest).by == "ab");
  CHECK(map.find("yx", Charsmap::Choice::longest).length == 0);
  std::string joined;
  map.for_each_piece("yxz", [&](std::string_view, std::string_view to) { joined += to; });
  CHECK(joined == "yabz");
}

TEST_CASE("charsmap: what does not fit together is refused") {
  const std::string_view words{"q\0ab\0", 5};
  const auto whole = blob(one_key('x', 2, 7), words);
  for (const std::size_t size : {std::size_t{0}, std::size_t{3}, std::size_t{4}, std::size_t{100}}) {
    CHECK_THAT(refused(whole.substr(0, size)), ContainsSubstring("precompiled_charsmap"));
  }
  CHECK_THAT(refused(whole.substr(0, whole.size() - 1)), ContainsSubstring("do not end in a zero"));
  CHECK_THAT(refused(raw(std::uint32_t{0xFFFFFFFC}) + whole.substr(4)), ContainsSubstring("does not fit"));
  CHECK_THAT(refused(blob(one_key('x', 5, 7), words)), ContainsSubstring("leads to no replacement"));
  CHECK_THAT(refused(blob(one_key('x', 2, 5000), words)), ContainsSubstring("leads to no replacement"));
  CHECK_THAT(refused(blob(one_key('x', 2, 7), std::string_view{"q\0\xFF\0", 4})), ContainsSubstring("not UTF-8"));
}

TEST_CASE("charsmap: a trie that leads back into itself ends") {
  auto units = one_key('x', 2, 7);
  units[256U ^ 'x'] = (('x' ^ 0U) << 10U) | 'x';  // its child by x is itself again
  const Charsmap map{blob(units, std::string_view{"q\0ab\0", 5})};
  CHECK(map.find(std::string(100'000, 'x'), Charsmap::Choice::longest).length == 0);
}
