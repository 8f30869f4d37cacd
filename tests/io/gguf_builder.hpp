#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "files.hpp"

/// GGUF files made on the spot, field by field, so that every field can be wrong.
namespace circuit_test::gguf {

[[nodiscard]] inline std::string text(const std::string& s) { return raw(std::uint64_t{s.size()}) + s; }

/// A metadata entry: its key, its type's number, its bytes.
[[nodiscard]] inline std::string value(const std::string& key, std::uint32_t type, const std::string& bytes) {
  return text(key) + raw(type) + bytes;
}
[[nodiscard]] inline std::string list(const std::string& key, std::uint32_t type, std::uint64_t count,
                                      const std::string& bytes) {
  return value(key, 9, raw(type) + raw(count) + bytes);
}
[[nodiscard]] inline std::string value(const std::string& key, std::uint32_t number) {
  return value(key, 4, raw(number));
}

/// A tensor's entry; axes in the file's order, the contiguous one first.
[[nodiscard]] inline std::string tensor(const std::string& name, const std::vector<std::uint64_t>& axes,
                                        std::uint32_t type, std::uint64_t offset) {
  auto bytes = text(name) + raw(static_cast<std::uint32_t>(axes.size()));
  for (const auto size : axes) bytes += raw(size);
  return bytes + raw(type) + raw(offset);
}

struct File {
  std::vector<std::string> values{};
  std::vector<std::string> tensors{};
  std::string data{};
  std::size_t alignment = 32;
  std::uint32_t version = 3;

  [[nodiscard]] std::string bytes() const {
    auto all = "GGUF" + raw(version) + raw(std::uint64_t{tensors.size()}) + raw(std::uint64_t{values.size()});
    for (const auto& entry : values) all += entry;
    for (const auto& entry : tensors) all += entry;
    if (!tensors.empty()) all.resize((all.size() + alignment - 1) / alignment * alignment, '\0');
    return all + data;
  }
};

}  // namespace circuit_test::gguf
