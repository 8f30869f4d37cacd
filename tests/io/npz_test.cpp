#include "circuit/io/npz.hpp"

#include <cstring>
#include <string>
#include <vector>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

/// An array as NumPy writes it, version 1.
std::string npy(const std::string& header, const std::string& data) {
  return "\x93NUMPY" + std::string("\x01\x00", 2) + raw(static_cast<std::uint16_t>(header.size())) + header + data;
}
std::string described(const std::string& descr, const std::string& shape, const std::string& fortran = "False") {
  return "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }   \n";
}
std::string npz_floats(int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += raw(static_cast<float>(i));
  return out;
}

TensorFile read_archive(const std::string& archive) {
  const Folder folder;
  return open_npz(folder.file("a.npz", archive));
}
std::string npz_error(const std::string& array) {
  return said<FormatError>([&] { (void)read_archive(zip({{"W.npy", array}})); });
}

}  // namespace

TEST_CASE("arrays of an archive have their names, types, shapes and bytes") {
  const auto file = read_archive(zip({{"W_enc.npy", npy(described("<f4", "(2, 3)"), npz_floats(6))},
                                      {"k.npy", npy(described("<i8", "()"), raw(std::int64_t{7}))},
                                      {"threshold.npy", npy(described("<f2", "(2L,)", "True"), std::string(4, '\1'))},
                                      {"empty.npy", npy(described("<f8", "(0, 5)"), "")}}));
  REQUIRE(file.tensors().size() == 4);
  const auto& W = file.get("W_enc");
  REQUIRE(W.dtype == DType::f32);
  REQUIRE(W.shape == std::vector<std::int64_t>{2, 3});
  REQUIRE(std::memcmp(W.bytes.data(), npz_floats(6).data(), 24) == 0);
  REQUIRE(file.get("k").shape.empty());
  REQUIRE(file.get("k").dtype == DType::i64);
  REQUIRE(file.get("threshold").shape == std::vector<std::int64_t>{2});
  REQUIRE(file.get("empty").bytes.empty());
}

TEST_CASE("an array's header may be of the second version, and its keys in any order") {
  const std::string header = "{\"shape\": (1,), 'descr': '<f4', 'fortran_order': False}";
  const auto bytes = "\x93NUMPY" + std::string("\x02\x00", 2) + raw(static_cast<std::uint32_t>(header.size())) +
                     header + npz_floats(1);
  REQUIRE(read_archive(zip({{"x.npy", bytes}})).get("x").shape == std::vector<std::int64_t>{1});
}

TEST_CASE("malformed arrays are refused by name") {
  const auto refused = [](const std::string& array, const std::string& why) {
    const auto text = npz_error(array);
    INFO(text);
    REQUIRE(text.find("W.npy") != text.npos);
    REQUIRE(text.find(why) != text.npos);
  };
  const auto good = npy(described("<f4", "(2, 3)"), npz_floats(6));
  refused("no array", "no NumPy array");
  refused("", "no NumPy array");
  refused(good.substr(0, 9), "no NumPy array");
  refused(good.substr(0, 20), "truncated");
  refused(good.substr(0, good.size() - 1), "another size");
  refused(good + "x", "another size");
  refused("\x93NUMPY" + std::string("\x09\x00", 2) + good.substr(8), "unknown version");
  refused(npy(described("|O", "(2, 3)"), npz_floats(6)), "|O");
  refused(npy(described(">f4", "(2, 3)"), npz_floats(6)), ">f4");
  refused(npy(described("<f4", "(2, 3)", "True"), npz_floats(6)), "column by column");
  refused(npy(described("<f4", "(-2, 3)"), npz_floats(6)), "another size");
  refused(npy(described("<f4", "(4611686018427387904, 4)"), npz_floats(6)), "another size");
  refused(npy(described("<f4", "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)"), npz_floats(1)), "header");
  for (const std::string header : {"{'descr': '<f4', 'shape': (2, 3)}", "{'descr': '<f4'}", "{}", "",
                                   "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
                                   "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} + 1",
                                   "{'descr': '<f4', 'fortran_order': False, 'shape': __import__('os')}",
                                   "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}",
                                   "{'descr': '<f4, 'fortran_order': False, 'shape': (2, 3)}"}) {
    INFO(header);
    refused(npy(header, npz_floats(6)), "header");
  }
}

TEST_CASE("compressed archives and files that are none are refused") {
  REQUIRE(said<FormatError>([] {
            (void)read_archive(zip({{"W.npy", "x"}}, /*method=*/8));
          }).find("compressed") != std::string::npos);
  REQUIRE_THROWS_AS(read_archive("not an archive"), FormatError);
  REQUIRE_THROWS_AS(open_npz("/nowhere/params.npz"), FileError);
}
