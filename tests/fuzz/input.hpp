#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "circuit/core/error.hpp"

/// A file in memory that holds what the fuzzer made up.
class InputFile {
 public:
  InputFile(const std::uint8_t* data, std::size_t size) : file_{::memfd_create("input", 0)} {
    if (file_ < 0 || ::write(file_, data, size) != static_cast<ssize_t>(size)) __builtin_trap();
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() { ::close(file_); }

  [[nodiscard]] std::filesystem::path path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

/// The promise under test: a reader returns, or throws an error of ours; anything else stops the fuzzer.
template <class Read>
int read_or_refuse(Read&& read) {
  try {
    read();
  } catch (const circuit::Error&) {
  }
  return 0;
}

/// The same of what can be used once it is read: using it throws nothing at all.
template <class Read, class Use>
int read_and_use(Read&& read, Use&& use) {
  std::optional<decltype(read())> done;
  read_or_refuse([&] { done.emplace(read()); });
  if (done) use(*done);
  return 0;
}

/// Touches every byte, so that a tensor outside its file shows.
template <class File>
void touch(const File& file) {
  unsigned sum = 0;
  for (const auto& tensor : file.tensors()) {
    for (const auto byte : tensor.bytes) sum += static_cast<unsigned>(byte);
  }
  static volatile unsigned sink;
  sink = sum;
}
