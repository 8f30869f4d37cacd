#include "circuit/core/atomic_file.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "catch.hpp"

using namespace circuit;
namespace fs = std::filesystem;

namespace {

/// A folder of this test's own, gone with it.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("circuit_atomic_file_" + std::to_string(std::random_device{}()));
  Folder() { fs::create_directory(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }

  [[nodiscard]] std::ptrdiff_t entries() const {
    return std::distance(fs::directory_iterator{path}, fs::directory_iterator{});
  }
};

std::string bytes_of(const fs::path& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

}  // namespace

TEST_CASE("a committed file holds what was written and nothing lies beside it") {
  const Folder folder;
  const auto path = folder.path / "a.txt";
  AtomicFile file{path};
  file.stream() << "first\n" << 2;
  CHECK(!fs::exists(path));
  file.commit();
  CHECK(bytes_of(path) == "first\n2");
  CHECK(folder.entries() == 1);
}

TEST_CASE("without a commit the older file stays and the temporary goes") {
  const Folder folder;
  const auto path = folder.path / "a.txt";
  write_file(path, "old");
  {
    AtomicFile file{path};
    file.stream() << "half of the n";
  }
  CHECK(bytes_of(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("an exception on the way leaves nothing") {
  const Folder folder;
  const auto write = [&] {
    AtomicFile file{folder.path / "a.txt"};
    file.stream() << "half";
    throw Cancelled{"writing"};
  };
  CHECK_THROWS_AS(write(), Cancelled);
  CHECK(folder.entries() == 0);
}

TEST_CASE("a folder that does not exist is named") {
  const Folder folder;
  const auto path = folder.path / "missing" / "a.txt";
  try {
    write_file(path, "x");
    FAIL("wrote into a folder that does not exist");
  } catch (const FileError& error) {
    CHECK(error.details().file == path);
    CHECK(!error.details().got.empty());
  }
}

TEST_CASE("a path that is a folder is refused and nothing is left beside it") {
  const Folder folder;
  const auto path = folder.path / "taken";
  fs::create_directories(path / "inside");
  CHECK_THROWS_AS(write_file(path, "x"), FileError);
  CHECK(fs::is_directory(path / "inside"));
  CHECK(folder.entries() == 1);
}

TEST_CASE("bytes are written as they are") {
  const Folder folder;
  const std::string bytes{"a\0b\r\n\xff", 6};
  write_file(folder.path / "raw", bytes);
  CHECK(bytes_of(folder.path / "raw") == bytes);
}
