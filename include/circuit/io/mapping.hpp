#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "circuit/core/error.hpp"

namespace circuit {

/// A whole file in memory, paged in on first touch. The pages are private and writable: a stray in-place operation on a
/// tensor that views them copies a page and changes no file.
///
/// The file stays open too, so that much of it can be read without its pages becoming this process's memory.
///
/// The size is read once, when the file is opened. A file that somebody else truncates afterwards raises SIGBUS when
/// the missing pages are touched; replace model files by renaming, as AtomicFile does.
class Mapping {
 public:
  /// throws  FileError  when `path` is missing, unreadable or not a regular file
  [[nodiscard]] static std::shared_ptr<const Mapping> open(const std::filesystem::path& path) {
    return std::shared_ptr<const Mapping>{new Mapping{path}};
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  Mapping(Mapping&&) = delete;
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (data_ != nullptr) ::munmap(data_, size_);
    if (file_ >= 0) ::close(file_);
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {static_cast<std::byte*>(data_), size_}; }

  [[nodiscard]] bool holds(std::span<const std::byte> part) const noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(data_);
    const auto first = reinterpret_cast<std::uintptr_t>(part.data());
    return data_ != nullptr && first >= begin && first + part.size() <= begin + size_;
  }

  /// Copies bytes from the file, not from its pages: what was written to those is not seen.
  /// part    within this mapping
  /// throws  FileError  when the file can no longer be read, or has become shorter
  void read(std::span<const std::byte> part, void* to) const {
    const auto start = part.data() - static_cast<std::byte*>(data_);
    auto* out = static_cast<std::byte*>(to);
    for (std::size_t done = 0; done < part.size();) {
      const auto got = ::pread(file_, out + done, part.size() - done, start + static_cast<::off_t>(done));
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) {
        throw FileError{
            {.file = path_, .problem = "can no longer be read", .got = got < 0 ? std::strerror(errno) : "its end"}};
      }
      done += static_cast<std::size_t>(got);
    }
  }

  /// Gives the pages that lie wholly inside `part` back to the system; they are read from the file again when touched,
  /// so writes made to them are lost. Does nothing for bytes that are not this mapping's.
  void release(std::span<const std::byte> part) const noexcept {
    if (!holds(part)) return;
    const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto begin = reinterpret_cast<std::uintptr_t>(data_);
    const auto first = reinterpret_cast<std::uintptr_t>(part.data());
    const auto last = first + part.size();
    const auto from = (first + page - 1) / page * page;
    // The last page of the file has no neighbour to spare.
    const auto to = last == begin + size_ ? last : last / page * page;
    if (from < to) ::madvise(static_cast<std::byte*>(data_) + (from - begin), to - from, MADV_DONTNEED);
  }

 private:
  explicit Mapping(const std::filesystem::path& path)
      : path_{path},
        // A named pipe would wait for its other end. NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg)
        file_{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)} {
    if (file_ < 0) throw FileError{{.file = path, .problem = "cannot be read", .got = std::strerror(errno)}};
    if (const auto* const failed = map(file_); failed != nullptr) {
      ::close(file_);
      throw FileError{{.file = path, .problem = "cannot be read", .got = failed}};
    }
  }

  /// return  nullptr, or what went wrong
  [[nodiscard]] const char* map(int file) noexcept {
    struct stat status {};
    if (::fstat(file, &status) != 0) return std::strerror(errno);
    if (!S_ISREG(status.st_mode)) return "not a regular file";
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) return nullptr;
    void* const data = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) return std::strerror(errno);
    data_ = data;
    return nullptr;
  }

  std::filesystem::path path_;
  int file_ = -1;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The pages that hold one tensor of a mapped file, kept mapped; empty where a tensor lies in memory of its own. Somebody
/// who reads a few rows now and then gives the pages back each time, since the system maps neighbours of what is touched.
class MappedPages {
 public:
  MappedPages() = default;
  MappedPages(std::shared_ptr<const Mapping> mapping, std::span<const std::byte> bytes)
      : mapping_{std::move(mapping)}, bytes_{bytes} {}

  /// Whether a tensor that starts at `data` lies here.
  [[nodiscard]] bool hold(const void* data) const noexcept {
    const auto first = reinterpret_cast<std::uintptr_t>(data);
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes_.data());
    return mapping_ && first >= begin && first < begin + bytes_.size();
  }
  /// As Mapping::release: reading them again is slow, not wrong; what was written to them is lost.
  void release() const noexcept {
    if (mapping_) mapping_->release(bytes_);
  }
  /// As Mapping::read, of `size` bytes from one that is held here.
  void read(const void* from, std::size_t size, void* to) const {
    mapping_->read({static_cast<const std::byte*>(from), size}, to);
  }

 private:
  std::shared_ptr<const Mapping> mapping_;
  std::span<const std::byte> bytes_;
};

namespace detail {

/// What reads a mapped file of many parts, and says which of them is wrong.
class MappedReader {
 protected:
  explicit MappedReader(std::shared_ptr<const Mapping> mapping) : mapping_{std::move(mapping)} {}

  [[nodiscard]] FormatError bad(std::string name, std::string problem, std::string expected = {}, std::string got = {},
                                std::string hint = {}) const {
    return FormatError{{.file = mapping_->path(),
                        .tensor = std::move(name),
                        .problem = std::move(problem),
                        .expected = std::move(expected),
                        .got = std::move(got),
                        .hint = std::move(hint)}};
  }

  std::shared_ptr<const Mapping> mapping_;
};

}  // namespace detail
}  // namespace circuit
