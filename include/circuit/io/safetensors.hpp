#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/json.hpp"
#include "circuit/io/tensor_file.hpp"

namespace circuit {

namespace detail::safetensors {

inline constexpr std::size_t length_bytes = 8;
inline constexpr std::size_t largest_header = 100'000'000;  // the reference reader's own limit
inline constexpr std::size_t most_axes = 16;

inline constexpr std::pair<std::string_view, DType> dtypes[] = {
    {"F16", DType::f16}, {"BF16", DType::bf16}, {"F32", DType::f32}, {"F64", DType::f64}, {"I8", DType::i8},
    {"U8", DType::u8},   {"I16", DType::i16},   {"I32", DType::i32}, {"I64", DType::i64}, {"BOOL", DType::boolean}};

[[nodiscard]] inline DType dtype_of(std::string_view text, const std::filesystem::path& file, const std::string& name) {
  for (const auto& [word, dtype] : dtypes) {
    if (word == text) return dtype;
  }
  throw DTypeError{{.file = file,
                    .tensor = name,
                    .problem = "unsupported element type",
                    .expected = "F16, BF16, F32, F64, I8, U8, I16, I32, I64 or BOOL",
                    .got = std::string{text.substr(0, 40)}}};
}

[[nodiscard]] inline std::string_view dtype_word(DType dtype) {
  for (const auto& [word, candidate] : dtypes) {
    if (candidate == dtype) return word;
  }
  return {};
}

/// The header's text.
[[nodiscard]] inline std::string_view header_of(const Mapping& mapping) {
  const auto bytes = mapping.bytes();
  if (bytes.size() < length_bytes) {
    throw FormatError{{.file = mapping.path(),
                       .problem = "too short for a safetensors file",
                       .expected = "at least 8 bytes",
                       .got = std::to_string(bytes.size())}};
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), length_bytes);
  const auto room = std::min(largest_header, bytes.size() - length_bytes);
  if (length > room) {
    throw FormatError{{.file = mapping.path(),
                       .problem = "the header does not fit into the file",
                       .expected = "a length of at most " + std::to_string(room) + " bytes",
                       .got = std::to_string(length),
                       .hint = "truncated, or not a safetensors file"}};
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + length_bytes;
  const std::string_view header{text, static_cast<std::size_t>(length)};
  if (!header.starts_with('{')) {
    throw FormatError{{.file = mapping.path(), .problem = "the header is not a JSON object"}};
  }
  return header;
}

[[nodiscard]] inline TensorView tensor_of(const std::string& name, const nlohmann::json& entry,
                                          std::span<const std::byte> data, const Mapping& mapping) {
  const auto& file = mapping.path();
  const auto bad = [&](std::string problem, std::string expected, std::string got) {
    return FormatError{{.file = file,
                        .tensor = name,
                        .problem = std::move(problem),
                        .expected = std::move(expected),
                        .got = std::move(got)}};
  };
  if (!entry.is_object()) throw bad("bad header entry", "an object", short_dump(entry));
  const auto field = [&]<class T>(const char* key, T) {
    const auto* found = find_field(entry, key);
    if (found == nullptr || !json_holds<T>(*found)) {
      throw bad(std::string{"bad header entry \""} + key + '"', json_type_text<T>(),
                found == nullptr ? "nothing" : short_dump(*found));
    }
    return json_as<T>(*found);
  };

  TensorView tensor{.name = name, .dtype = dtype_of(field("dtype", std::string{}), file, name)};
  tensor.shape = field("shape", std::vector<std::int64_t>{});
  const auto offsets = field("data_offsets", std::vector<std::uint64_t>{});
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] > data.size()) {
    throw bad("data_offsets leave the file", "two offsets within " + std::to_string(data.size()) + " bytes",
              short_dump(*find_field(entry, "data_offsets")));
  }
  const auto count = element_count(tensor.shape);
  if (tensor.shape.size() > most_axes || !count) {
    throw bad("impossible shape", "at most 16 axes that fit into memory", short_dump(*find_field(entry, "shape")));
  }
  const auto length = offsets[1] - offsets[0];
  if (*count * item_size(tensor.dtype) != length) {
    throw bad(
        "shape and length disagree",
        std::to_string(*count * item_size(tensor.dtype)) + " bytes for " + short_dump(*find_field(entry, "shape")),
        std::to_string(length));
  }
  tensor.bytes = data.subspan(static_cast<std::size_t>(offsets[0]), static_cast<std::size_t>(length));
  return tensor;
}

/// Every byte of the data belongs to one tensor: no overlap, and no gap that could hide something else.
inline void check_cover(std::span<TensorView> tensors, std::span<const std::byte> data, const Mapping& mapping) {
  std::size_t next = 0;
  for (const auto& tensor : tensors) {
    const auto begin = static_cast<std::size_t>(tensor.bytes.data() - data.data());
    if (begin != next) {
      throw FormatError{{.file = mapping.path(),
                         .tensor = tensor.name,
                         .problem = begin < next ? "overlaps another tensor" : "unused bytes before this tensor",
                         .expected = "data from byte " + std::to_string(next),
                         .got = std::to_string(begin)}};
    }
    next = begin + tensor.bytes.size();
  }
  if (next != data.size()) {
    throw FormatError{{.file = mapping.path(),
                       .problem = "unused bytes after the last tensor",
                       .expected = std::to_string(next) + " bytes of data",
                       .got = std::to_string(data.size())}};
  }
}

[[nodiscard]] inline std::map<std::string, std::string> metadata_of(const nlohmann::json& entry,
                                                                    const std::filesystem::path& file) {
  std::map<std::string, std::string> metadata;
  const auto bad = [&] {
    return FormatError{{.file = file, .tensor = "__metadata__", .expected = "strings", .got = short_dump(entry)}};
  };
  if (!entry.is_object()) throw bad();
  for (const auto& [key, value] : members(entry)) {
    if (!value.is_string()) throw bad();
    metadata.emplace(key, json_as<std::string>(value));
  }
  return metadata;
}

}  // namespace detail::safetensors

/// Maps a .safetensors file; no tensor is copied. Tensors come in the order of their data.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  truncated file, bad header, shape and length that disagree, overlapping or unused bytes
/// throws  DTypeError   an element type this library does not know
/// source  the format's description at docs.rs/safetensors
[[nodiscard]] inline TensorFile open_safetensors(const std::filesystem::path& path) {
  namespace st = detail::safetensors;
  auto mapping = Mapping::open(path);
  const auto text = st::header_of(*mapping);
  const auto header = parse_json(text, path, {.bytes = st::largest_header, .depth = 4});
  const auto data = mapping->bytes().subspan(st::length_bytes + text.size());

  std::vector<TensorView> tensors;
  std::map<std::string, std::string> metadata;
  for (const auto& [name, entry] : detail::members(header)) {
    if (name == "__metadata__") {
      metadata = st::metadata_of(entry, path);
    } else {
      tensors.push_back(st::tensor_of(name, entry, data, *mapping));
      tensors.back().owner = mapping;
    }
  }
  // Empty tensors come before the one that starts at the same byte.
  tensors = detail::sorted_by(std::move(tensors), [](const TensorView& a, const TensorView& b) {
    return std::pair{a.bytes.data(), a.bytes.size()} < std::pair{b.bytes.data(), b.bytes.size()};
  });
  st::check_cover(tensors, data, *mapping);
  return TensorFile{std::move(mapping), std::move(tensors), std::move(metadata)};
}

/// Writes tensors whole or not at all, widest elements first and otherwise in the given order; the data starts at a
/// multiple of 64 bytes, so that every tensor can be mapped without a copy.
/// throws  FileError   when `path` cannot be written
/// throws  ShapeError  when a view's bytes are not its shape's
/// throws  NameError   when two tensors have one name or one is called "__metadata__", or a text is not UTF-8
inline void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                              const std::map<std::string, std::string>& metadata = {}) {
  namespace st = detail::safetensors;
  constexpr std::size_t alignment = 64;
  const auto order = detail::order_by(tensors.size(), [&](std::size_t a, std::size_t b) {
    return item_size(tensors[a].dtype) > item_size(tensors[b].dtype);
  });

  const auto check_text = [&](const std::string& text) {
    if (is_utf8(text)) return;
    throw NameError{{.file = path, .tensor = to_valid_utf8(text), .problem = "is not UTF-8"}};
  };
  for (const auto& [key, value] : metadata) {
    check_text(key);
    check_text(value);
  }

  auto header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t offset = 0;
  for (const auto i : order) {
    const auto* tensor = &tensors[i];
    const auto count = detail::element_count(tensor->shape);
    if (!count || *count * item_size(tensor->dtype) != tensor->bytes.size()) {
      throw ShapeError{{.file = path,
                        .tensor = tensor->name,
                        .expected = tensor->shape,
                        .got = {static_cast<std::int64_t>(tensor->bytes.size() / item_size(tensor->dtype))},
                        .hint = "the view's bytes are not its shape's"}};
    }
    check_text(tensor->name);
    if (tensor->name == "__metadata__" || header.contains(tensor->name)) {
      throw NameError{{.file = path, .tensor = tensor->name, .problem = "this name is taken"}};
    }
    header[tensor->name] = {{"dtype", st::dtype_word(tensor->dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {offset, offset + tensor->bytes.size()}}};
    offset += tensor->bytes.size();
  }
  auto text = header.dump();
  text.resize((text.size() + st::length_bytes + alignment - 1) / alignment * alignment - st::length_bytes, ' ');

  AtomicFile file{path};
  const auto length = static_cast<std::uint64_t>(text.size());
  file.stream().write(reinterpret_cast<const char*>(&length), sizeof length);
  file.stream().write(text.data(), static_cast<std::streamsize>(text.size()));
  for (const auto i : order) {
    file.stream().write(reinterpret_cast<const char*>(tensors[i].bytes.data()),
                        static_cast<std::streamsize>(tensors[i].bytes.size()));
  }
  file.commit();
}

}  // namespace circuit
