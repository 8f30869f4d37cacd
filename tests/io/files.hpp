#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "circuit/core/error.hpp"

/// Files made on the spot, and what reading them must throw.
namespace circuit_test {

/// A folder of one test's own, gone with it.
struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("circuit_io_" + std::to_string(std::random_device{}()));
  Folder() { std::filesystem::create_directory(path); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  /// return  the path of a new file that holds `bytes`
  [[nodiscard]] std::filesystem::path file(const std::string& name, std::string_view bytes) const {
    std::ofstream out{path / name, std::ios::binary};
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return path / name;
  }
};

[[nodiscard]] inline std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in{path, std::ios::binary};
  return {std::istreambuf_iterator<char>{in}, {}};
}

/// `value`'s bytes, as x86 and ARM store them.
template <class T>
[[nodiscard]] std::string raw(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// return  what `action` said when it threw an E; fails the test when it throws anything else, or nothing
template <class E, class Action>
[[nodiscard]] std::string said(Action&& action) {
  try {
    action();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    FAIL("another exception: " << error.what());
  }
  FAIL("no exception");
  return {};
}

/// The text of a safetensors file.
[[nodiscard]] inline std::string safetensors(const std::string& header, const std::string& data) {
  return raw(static_cast<std::uint64_t>(header.size())) + header + data;
}

/// A zip archive of entries stored without compression, laid out as PKWARE's APPNOTE describes.
[[nodiscard]] inline std::string zip(const std::vector<std::pair<std::string, std::string>>& entries,
                                     std::uint16_t method = 0) {
  std::string text;
  std::string directory;
  for (const auto& [name, bytes] : entries) {
    const auto sizes = raw(std::uint32_t{0}) + raw(static_cast<std::uint32_t>(bytes.size())) +
                       raw(static_cast<std::uint32_t>(bytes.size())) + raw(static_cast<std::uint16_t>(name.size()));
    const auto common = raw(std::uint16_t{20}) + raw(std::uint16_t{0}) + raw(method) + raw(std::uint32_t{0}) + sizes;
    directory += "PK\x01\x02" + raw(std::uint16_t{20}) + common + std::string(12, '\0') +
                 raw(static_cast<std::uint32_t>(text.size())) + name;
    text += "PK\x03\x04" + common + raw(std::uint16_t{0}) + name + bytes;
  }
  const auto count = raw(static_cast<std::uint16_t>(entries.size()));
  const auto begin = raw(static_cast<std::uint32_t>(text.size()));
  return text + directory + "PK\x05\x06" + raw(std::uint32_t{0}) + count + count +
         raw(static_cast<std::uint32_t>(directory.size())) + begin + raw(std::uint16_t{0});
}

}  // namespace circuit_test
