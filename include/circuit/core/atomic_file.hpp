#pragma once

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "circuit/core/error.hpp"

namespace circuit {

/// A file that appears whole or not at all: bytes go to a temporary name beside `path`, and `commit` renames it.
/// Without `commit` (an exception, an early return) the temporary is removed and an older `path` stays as it was.
class AtomicFile {
 public:
  /// throws  FileError  when the temporary cannot be opened
  explicit AtomicFile(std::filesystem::path path) : path_{std::move(path)}, temporary_{path_} {
    temporary_ += "." + std::to_string(std::random_device{}()) + ".tmp";
    stream_.open(temporary_, std::ios::binary | std::ios::trunc);
    if (!stream_) {
      throw FileError{{.file = path_, .problem = "cannot be written", .got = std::strerror(errno)}};
    }
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  AtomicFile(AtomicFile&&) = delete;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile() {
    if (committed_) return;
    stream_.close();
    std::error_code ignored;
    std::filesystem::remove(temporary_, ignored);
  }

  [[nodiscard]] std::ostream& stream() noexcept { return stream_; }

  /// throws  FileError  when the bytes did not reach the disk or the rename failed
  void commit() {
    stream_.close();
    std::error_code failed;
    if (stream_) std::filesystem::rename(temporary_, path_, failed);
    if (!stream_ || failed) {
      throw FileError{{.file = path_, .problem = "cannot be written", .got = failed ? failed.message() : "disk full?"}};
    }
    committed_ = true;
  }

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  std::ofstream stream_;
  bool committed_ = false;
};

/// A folder and those above it, unless they are there.
/// throws  FileError
inline void make_folder(const std::filesystem::path& folder) {
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) throw FileError{{.file = folder, .problem = "cannot be made", .got = failed.message()}};
}

/// Writes `text` to `path`, whole or not at all.
inline void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file{path};
  file.stream().write(text.data(), static_cast<std::streamsize>(text.size()));
  file.commit();
}

}  // namespace circuit
