#include "circuit/io/pickle.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

Pickle read_bytes(const std::string& bytes, const PickleLimits& limits = {}) {
  return read_pickle(std::as_bytes(std::span{bytes}), "a.pkl", limits);
}

std::string pickle_error(const std::string& bytes, const PickleLimits& limits = {}) {
  return said<FormatError>([&] { (void)read_bytes(bytes, limits); });
}

std::string from_hex(const std::string& text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2)
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  return bytes;
}

// What Python 3.11's pickle.dumps writes with protocols 2, 3, 4 and 5 for
//   {"a": [1, -2, 300, 70000, -2**40, 2**70, -2**70, 3.5, True, False, None, "\u00e9", b"xy", (), (1,), t, (1, 2, 3),
//          (1, 2, 3, 4), frozenset([5])], "again": [t, t]}    with t = (1, 2)
const std::vector<std::string> python{
    "80027d71002858010000006171015d7102284b014afeffffff4d2c014a701101008a060000000000ff8a090000000000000000408a09"
    "0000000000000000c047400c00000000000088894e5802000000c3a97103635f636f646563730a656e636f64650a7104580200000078"
    "79710558060000006c6174696e317106867107527108294b018571094b014b0286710a4b014b024b0387710b284b014b024b034b0474"
    "710c635f5f6275696c74696e5f5f0a66726f7a656e7365740a710d5d710e4b056185710f527110655805000000616761696e71115d71"
    "1228680a680a65752e",
    "80037d71002858010000006171015d7102284b014afeffffff4d2c014a701101008a060000000000ff8a090000000000000000408a09"
    "0000000000000000c047400c00000000000088894e5802000000c3a97103430278797104294b018571054b014b028671064b014b024b"
    "03877107284b014b024b034b04747108636275696c74696e730a66726f7a656e7365740a71095d710a4b056185710b52710c65580500"
    "0000616761696e710d5d710e286806680665752e",
    "80049583000000000000007d94288c0161945d94284b014afeffffff4d2c014a701101008a060000000000ff8a090000000000000000"
    "408a090000000000000000c047400c00000000000088894e8c02c3a9944302787994294b0185944b014b0286944b014b024b03879428"
    "4b014b024b034b047494284b059194658c05616761696e945d94286806680665752e",
    "80059583000000000000007d94288c0161945d94284b014afeffffff4d2c014a701101008a060000000000ff8a090000000000000000"
    "408a090000000000000000c047400c00000000000088894e8c02c3a9944302787994294b0185944b014b0286944b014b024b03879428"
    "4b014b024b034b047494284b059194658c05616761696e945d94286806680665752e"};

}  // namespace

TEST_CASE("pickle: what Python writes in each protocol is read") {
  for (const auto& hex : python) {
    const auto pickle = read_bytes(from_hex(hex));
    const auto& root = pickle.at_root();
    REQUIRE(root.kind == PickleKind::dict);
    REQUIRE(root.items.size() == 4);
    CHECK(pickle[root.items[0]].text == "a");
    CHECK(pickle[root.items[2]].text == "again");
    const auto& list = pickle[root.items[1]];
    REQUIRE(list.kind == PickleKind::list);
    REQUIRE(list.items.size() == 19);
    const auto item = [&](std::size_t i) -> const PickleNode& { return pickle[list.items[i]]; };

    const std::vector<std::int64_t> integers{1, -2, 300, 70000, -(std::int64_t{1} << 40)};
    for (std::size_t i = 0; i < integers.size(); ++i) {
      CHECK(item(i).kind == PickleKind::integer);
      CHECK(item(i).integer == integers[i]);
    }
    CHECK(item(5).number == 1180591620717411303424.0);
    CHECK(item(6).number == -1180591620717411303424.0);
    CHECK(item(7).number == 3.5);
    CHECK(item(8).kind == PickleKind::boolean);
    CHECK(item(8).integer == 1);
    CHECK(item(9).integer == 0);
    CHECK(item(10).kind == PickleKind::none);
    CHECK(item(11).text == "\xC3\xA9");
    CHECK((item(12).text == "xy" || item(12).text == "_codecs.encode"));  // protocol 2 has no bytes
    for (std::size_t size = 0; size <= 4; ++size) {
      REQUIRE(item(13 + size).kind == PickleKind::tuple);
      REQUIRE(item(13 + size).items.size() == size);
      for (std::size_t i = 0; i < size; ++i) {
        CHECK(pickle[item(13 + size).items[i]].integer == static_cast<std::int64_t>(i) + 1);
      }
    }
    CHECK(item(18).kind == PickleKind::set);
    REQUIRE(item(18).items.size() == 1);
    CHECK(pickle[item(18).items[0]].integer == 5);

    const auto& again = pickle[root.items[3]];
    CHECK(again.items == std::vector<std::uint32_t>(2, list.items[15]));  // shared, not copied
  }
}

TEST_CASE("pickle: truncation is refused, wherever it falls") {
  for (const auto& hex : python) {
    const auto whole = from_hex(hex);
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK_FALSE(pickle_error(whole.substr(0, size)).empty());
  }
}

TEST_CASE("pickle: opcodes that lack what they take are refused") {
  for (const std::string program : {".",
                                    "0.",
                                    "a.",
                                    "]a.",
                                    "N(e.",
                                    "(e.",
                                    "t.",
                                    "u.",
                                    "}(Nu.",
                                    "s.",
                                    "R.",
                                    "NNR.",
                                    "b.",
                                    "NNb.",
                                    "Q.",
                                    "h\1.",
                                    "jabcd.",
                                    "q\1.",
                                    "\x85.",
                                    "\x87.",
                                    "N\x87.",
                                    "(0.",
                                    "(.",
                                    "o.",
                                    "(o.",
                                    "NN\x93.",
                                    "c.",
                                    "cx\n.",
                                    "I12x\n.",
                                    "F\n.",
                                    "X\xFF\xFF\xFF\xFFN.",
                                    "\x8b\xFF\xFF\xFF\xFF.",
                                    "\x80\x07N."}) {
    INFO(program);
    CHECK_THAT(pickle_error(program), ContainsSubstring("a.pkl") && ContainsSubstring("the pickle at byte"));
  }
}

TEST_CASE("pickle: opcodes that reach outside the pickle are refused") {
  for (const std::string program : {"Pid\n.", "\x82\1.", "\x83\1\1.", "\x84\1\1\1\1.", "\x97.", "ios\nsystem\n."}) {
    CHECK_THAT(pickle_error(program), ContainsSubstring("unsupported opcode"));
  }
}

TEST_CASE("pickle: size, values and stack are limited") {
  CHECK_THAT(pickle_error("NNNNN.", {.bytes = 5}), ContainsSubstring("too large"));
  CHECK_THAT(pickle_error("NNNNN.", {.values = 4}), ContainsSubstring("too many values"));
  CHECK_THAT(pickle_error("NNNNN.", {.stack = 4}), ContainsSubstring("too deep"));
  CHECK_THAT(pickle_error("(((((N.", {.stack = 4}), ContainsSubstring("too deep"));
  CHECK_THAT(pickle_error("cab\nc\nq\1)Rh\1)R.", {.text = 11}), ContainsSubstring("repeats its texts"));
  CHECK(read_bytes("cab\nc\nq\1)Rh\1)R.", {.text = 12}).nodes.size() == 5);
  // One list of three items made into a set again and again: few bytes, many items.
  const std::string set = "c__builtin__\nset\nq\2](NNNeq\1";
  const auto thrice = set + "\x85Rh\2h\1\x85Rh\2h\1\x85R.";
  CHECK(read_bytes(thrice, {.values = 12}).nodes.size() == 11);
  CHECK_THAT(pickle_error(thrice, {.values = 11}), ContainsSubstring("too many values"));
}
