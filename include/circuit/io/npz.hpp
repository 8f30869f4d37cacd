#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/io/tensor_file.hpp"
#include "circuit/io/zip.hpp"

namespace circuit::detail::npz {

inline constexpr std::string_view magic = "\x93NUMPY";
inline constexpr std::size_t most_axes = 16;

struct Header {
  std::string descr{};
  bool fortran = false;
  std::vector<std::int64_t> shape{};
};

/// Reads the Python literal of an array's header: a dict of 'descr', 'fortran_order' and 'shape', nothing else.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_{text} {}

  /// return  nothing when the text is anything else
  [[nodiscard]] std::optional<Header> parse() {
    Header header;
    int seen = 0;  // one bit per key
    if (!take('{')) return {};
    while (!take('}')) {
      std::string key;
      if (!string(key) || !take(':')) return {};
      const int bit = key == "descr" ? 1 : key == "fortran_order" ? 2 : key == "shape" ? 4 : 0;
      if (bit == 0 || (seen & bit) != 0) return {};
      seen |= bit;
      const bool read = bit == 1 ? string(header.descr) : bit == 2 ? boolean(header.fortran) : tuple(header.shape);
      if (!read) return {};
      if (!take(',') && peek() != '}') return {};
    }
    skip_space();
    return seen == 7 && text_.empty() ? std::optional{header} : std::nullopt;
  }

 private:
  void skip_space() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n')) text_.remove_prefix(1);
  }
  [[nodiscard]] char peek() {
    skip_space();
    return text_.empty() ? '\0' : text_.front();
  }
  bool take(char c) {
    if (peek() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  bool take(std::string_view word) {
    skip_space();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  bool string(std::string& out) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') return false;
    const auto end = text_.find(quote, 1);
    if (end == text_.npos) return false;
    out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return true;
  }
  bool boolean(bool& out) {
    out = take("True");
    return out || take("False");
  }
  bool tuple(std::vector<std::int64_t>& out) {
    if (!take('(')) return false;
    while (!take(')')) {
      skip_space();
      std::int64_t size = 0;
      const auto [rest, status] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (status != std::errc{} || out.size() == most_axes) return false;
      text_.remove_prefix(static_cast<std::size_t>(rest - text_.data()));
      take('L');  // as Python 2 wrote them
      out.push_back(size);
      if (!take(',') && peek() != ')') return false;
    }
    return true;
  }

  std::string_view text_;
};

[[nodiscard]] inline std::optional<DType> dtype_of(std::string_view descr) {
  constexpr std::pair<std::string_view, DType> dtypes[] = {
      {"<f2", DType::f16}, {"<f4", DType::f32}, {"<f8", DType::f64}, {"|i1", DType::i8},     {"|u1", DType::u8},
      {"<i2", DType::i16}, {"<i4", DType::i32}, {"<i8", DType::i64}, {"|b1", DType::boolean}};
  for (const auto& [name, dtype] : dtypes) {
    if (name == descr) return dtype;
  }
  return {};
}

/// Where an array's header text lies, and its data behind that.
/// throws  FormatError
[[nodiscard]] inline std::pair<std::string_view, std::span<const std::byte>> split(const ZipEntry& entry,
                                                                                   const std::filesystem::path& file) {
  const auto bad = [&](std::string problem) {
    return FormatError{{.file = file, .tensor = entry.name, .problem = std::move(problem)}};
  };
  const std::string_view text{reinterpret_cast<const char*>(entry.bytes.data()), entry.bytes.size()};
  if (text.size() < magic.size() + 4 || !text.starts_with(magic)) throw bad("is no NumPy array");
  const auto version = static_cast<unsigned char>(text[magic.size()]);
  if (version < 1 || version > 3) throw bad("has an unknown version of NumPy's format");
  const std::size_t prefix = magic.size() + 2 + (version == 1 ? 2 : 4);
  if (text.size() < prefix) throw bad("is truncated");
  std::uint32_t length = 0;
  std::memcpy(&length, text.data() + magic.size() + 2, version == 1 ? 2 : 4);
  if (length > text.size() - prefix) throw bad("is truncated");
  return {text.substr(prefix, length), entry.bytes.subspan(prefix + length)};
}

[[nodiscard]] inline TensorView tensor_of(const ZipEntry& entry, const std::shared_ptr<const Mapping>& mapping) {
  const auto& file = mapping->path();
  const auto [text, data] = split(entry, file);
  const auto header = HeaderParser{text}.parse();
  if (!header)
    throw FormatError{{.file = file, .tensor = entry.name, .problem = "has a header that NumPy does not write"}};
  const auto dtype = dtype_of(header->descr);
  if (!dtype) {
    throw FormatError{{.file = file,
                       .tensor = entry.name,
                       .problem = "has an element type that is not read",
                       .expected = "little-endian numbers",
                       .got = header->descr}};
  }
  if (header->fortran && header->shape.size() > 1) {
    throw FormatError{{.file = file,
                       .tensor = entry.name,
                       .problem = "is stored column by column",
                       .hint = "save numpy.ascontiguousarray of it"}};
  }
  const auto count = element_count(header->shape);
  if (!count || *count > data.size() / item_size(*dtype) || *count * item_size(*dtype) != data.size()) {
    throw FormatError{{.file = file, .tensor = entry.name, .problem = "has data of another size than its shape"}};
  }
  auto name = entry.name;
  if (name.ends_with(".npy")) name.resize(name.size() - 4);
  return {.name = std::move(name), .dtype = *dtype, .shape = header->shape, .bytes = data, .owner = mapping};
}

}  // namespace circuit::detail::npz

namespace circuit {

/// Opens an archive of arrays as `numpy.savez` writes it, uncompressed; nothing is copied.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  naming the array: truncated, compressed, column by column, of Python objects, no archive
/// source  NumPy's NEP 1
[[nodiscard]] inline TensorFile open_npz(const std::filesystem::path& path) {
  auto mapping = Mapping::open(path);
  std::vector<TensorView> tensors;
  for (const auto& entry : read_zip(*mapping)) tensors.push_back(detail::npz::tensor_of(entry, mapping));
  return {std::move(mapping), std::move(tensors)};
}

}  // namespace circuit
