#include "circuit/io/zip.hpp"

#include <cstdint>
#include <string>

#include "catch.hpp"
#include "files.hpp"

using namespace circuit;
using namespace circuit_test;

namespace {

std::string text_of(const ZipEntry& entry) {
  return {reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()};
}

std::string zip_error(const std::string& bytes) {
  const Folder folder;
  const auto mapping = Mapping::open(folder.file("a.zip", bytes));
  return said<FormatError>([&] { (void)read_zip(*mapping); });
}

/// One entry "big" of "hello" whose sizes and offset, and the directory's, stand in ZIP64 records.
std::string zip64(std::uint64_t size = 5, std::uint64_t directory_offset_error = 0) {
  const std::string none = raw(std::uint32_t{0xFFFFFFFF});
  const std::string common = raw(std::uint16_t{45}) + raw(std::uint16_t{0}) + raw(std::uint16_t{0}) +
                             raw(std::uint32_t{0}) + raw(std::uint32_t{0}) + none + none + raw(std::uint16_t{3});
  const std::string local_extra = raw(std::uint16_t{1}) + raw(std::uint16_t{16}) + raw(size) + raw(size);
  const std::string extra =
      raw(std::uint16_t{1}) + raw(std::uint16_t{24}) + raw(size) + raw(size) + raw(std::uint64_t{0});
  const std::string local =
      "PK\x03\x04" + common + raw(static_cast<std::uint16_t>(local_extra.size())) + "big" + local_extra + "hello";
  const std::string central = "PK\x01\x02" + raw(std::uint16_t{45}) + common +
                              raw(static_cast<std::uint16_t>(extra.size())) + std::string(10, '\0') + none + "big" +
                              extra;
  const auto end64 = "PK\x06\x06" + raw(std::uint64_t{44}) + raw(std::uint16_t{45}) + raw(std::uint16_t{45}) +
                     raw(std::uint32_t{0}) + raw(std::uint32_t{0}) + raw(std::uint64_t{1}) + raw(std::uint64_t{1}) +
                     raw(std::uint64_t{central.size()}) + raw(std::uint64_t{local.size()} + directory_offset_error);
  const auto locator =
      "PK\x06\x07" + raw(std::uint32_t{0}) + raw(std::uint64_t{local.size() + central.size()}) + raw(std::uint32_t{1});
  const std::string end = "PK\x05\x06" + raw(std::uint32_t{0}) + raw(std::uint16_t{0xFFFF}) +
                          raw(std::uint16_t{0xFFFF}) + none + none + raw(std::uint16_t{0});
  return local + central + end64 + locator + end;
}

}  // namespace

TEST_CASE("zip: entries come in the directory's order with their bytes") {
  const Folder folder;
  const auto mapping =
      Mapping::open(folder.file("a.zip", zip({{"b", "two"}, {"a", ""}, {"c/d", std::string(1000, 'x')}})));
  const auto entries = read_zip(*mapping);
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].name == "b");
  CHECK(text_of(entries[0]) == "two");
  CHECK(entries[1].bytes.empty());
  CHECK(entries[2].name == "c/d");
  CHECK(text_of(entries[2]) == std::string(1000, 'x'));
}

TEST_CASE("zip: an archive comment is passed over, even one that looks like a directory") {
  auto bytes = zip({{"a", "one"}});
  const std::string comment = "PK\x05\x06" + std::string(30, 'x');
  bytes.replace(bytes.size() - 2, 2, raw(static_cast<std::uint16_t>(comment.size())));
  const Folder folder;
  const auto mapping = Mapping::open(folder.file("a.zip", bytes + comment));
  const auto entries = read_zip(*mapping);
  REQUIRE(entries.size() == 1);
  CHECK(text_of(entries[0]) == "one");
}

TEST_CASE("zip: sizes beyond 32 bits are read from the ZIP64 records") {
  const Folder folder;
  const auto mapping = Mapping::open(folder.file("a.zip", zip64()));
  const auto entries = read_zip(*mapping);
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].name == "big");
  CHECK(text_of(entries[0]) == "hello");
}

TEST_CASE("zip: ZIP64 records that lie are refused") {
  CHECK_THAT(zip_error(zip64(std::uint64_t{1} << 60)),
             ContainsSubstring("\"big\"") && ContainsSubstring("leaves the file"));
  CHECK_THAT(zip_error(zip64(~std::uint64_t{0})), ContainsSubstring("leaves the file"));
  CHECK_FALSE(zip_error(zip64(5, 1)).empty());
  CHECK_FALSE(zip_error(zip64(5, ~std::uint64_t{0} - 10)).empty());
}

TEST_CASE("zip: more entries than the directory holds, compression and encryption are refused") {
  auto bytes = zip({{"a", "one"}});
  auto more = bytes;
  more.replace(more.size() - 12, 2, raw(std::uint16_t{2}));
  CHECK_THAT(zip_error(more), ContainsSubstring("bad zip directory"));
  CHECK_THAT(zip_error(zip({{"a", "one"}}, 8)), ContainsSubstring("compressed"));
  auto encrypted = bytes;
  encrypted[encrypted.rfind("PK\x01\x02") + 8] = 1;
  CHECK_THAT(zip_error(encrypted), ContainsSubstring("encrypted"));
}

TEST_CASE("zip: any one changed byte gives an exception of ours or other entries, never a crash") {
  const auto whole = zip({{"a", "one"}, {"b", "two"}});
  const Folder folder;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    for (const int change : {1, 0x80, 0xFF}) {
      auto bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ change);
      const auto mapping = Mapping::open(folder.file("a.zip", bytes));
      try {
        for (const auto& entry : read_zip(*mapping)) {
          CHECK(entry.bytes.data() >= mapping->bytes().data());
          CHECK(entry.bytes.data() + entry.bytes.size() <= mapping->bytes().data() + mapping->bytes().size());
        }
      } catch (const FormatError&) {
      }
    }
  }
}
