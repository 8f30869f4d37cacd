#pragma once

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

/// A folder in memory, of this process alone, for readers of several files.
class Folder {
 public:
  Folder() : path_{"/dev/shm/circuit_fuzz_" + std::to_string(::getpid())} { clear(); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { std::filesystem::remove_all(path_); }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

  void clear() const {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directory(path_);
  }
  void write(const std::string& name, std::string_view bytes) const {
    const auto path = path_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream stream{path, std::ios::binary};
    stream.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  std::filesystem::path path_;
};

/// What stands between the files of one input.
inline constexpr std::string_view next_file = "\n----\n";

/// The contents of so many files; those that the input does not reach are empty.
[[nodiscard]] inline std::vector<std::string_view> split_files(std::string_view input, std::size_t count) {
  std::vector<std::string_view> files;
  while (files.size() + 1 < count) {
    const auto end = input.find(next_file);
    files.push_back(input.substr(0, end));
    input = end == input.npos ? std::string_view{} : input.substr(end + next_file.size());
  }
  files.push_back(input);
  return files;
}

/// The words of a text, split at a sign.
[[nodiscard]] inline std::vector<std::string_view> split_at(std::string_view text, char sign) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const auto end = text.find(sign);
    if (end != 0) words.push_back(text.substr(0, end));
    text.remove_prefix(std::min(text.size(), end == text.npos ? text.size() : end + 1));
  }
  return words;
}

/// A safetensors file of what a text lists, a tensor a line (`W_enc F32 6 16`, `k I64 =4` for all elements alike), so
/// that mutations make other tensors and not only broken files. Texts without a `#` in front are the file's own bytes.
/// Tensors over 4096 elements have a header that promises more than the file holds.
[[nodiscard]] inline std::string safetensors_of(std::string_view text) {
  if (!text.starts_with('#')) return std::string{text};
  constexpr std::uint64_t most = 4096;
  std::string header = "{";
  std::string data;
  for (const auto line : split_at(text.substr(1), '\n')) {
    const auto words = split_at(line, ' ');
    if (words.size() < 2) continue;
    const auto type = words[1];
    std::string shape;
    std::uint64_t count = 1;
    double value = 0.25;
    bool alike = false;
    for (std::size_t i = 2; i < words.size(); ++i) {
      if (words[i].starts_with('=')) {
        std::from_chars(words[i].data() + 1, words[i].data() + words[i].size(), value);
        alike = true;
        continue;
      }
      shape += (shape.empty() ? "" : ",") + std::string{words[i]};
      std::uint64_t size = 0;
      std::from_chars(words[i].data(), words[i].data() + words[i].size(), size);
      count = __builtin_mul_overflow(count, size, &count) ? most + 1 : count;
    }
    const auto start = data.size();
    const auto width = type.ends_with("64") ? 8U : type.ends_with("32") ? 4U : type.ends_with("16") ? 2U : 1U;
    for (std::uint64_t i = 0; i < std::min(count, most); ++i) {
      const double number = alike ? value : 0.25 * (static_cast<double>(i * 7 % 9) - 3);
      char bytes[8] = {};
      const auto single = static_cast<float>(number);
      const auto whole = number > -1e18 && number < 1e18 ? static_cast<std::int64_t>(number) : 0;
      if (type == "F64") std::memcpy(bytes, &number, 8);
      if (type == "F32") std::memcpy(bytes, &single, 4);
      if (type == "BF16") std::memcpy(bytes, reinterpret_cast<const char*>(&single) + 2, 2);
      if (type == "F16") bytes[1] = static_cast<char>(number < 0 ? 0xb4 : 0x34);  // a quarter
      if (type.find('F') == type.npos) std::memcpy(bytes, &whole, width);
      data.append(bytes, width);
    }
    const auto end = count > most ? start + (std::uint64_t{1} << 40U) : data.size();
    if (header.size() > 1) header += ',';
    header += '"' + std::string{words[0]} + R"(":{"dtype":")" + std::string{type} + R"(","shape":[)" + shape +
              R"(],"data_offsets":[)" + std::to_string(start) + ',' + std::to_string(end) + "]}";
  }
  header += '}';
  const std::uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + data;
}
