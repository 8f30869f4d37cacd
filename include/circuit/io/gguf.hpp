#pragma once

#include <algorithm>
#include <bit>
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
#include "circuit/core/order.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/ggml/type.hpp"
#include "circuit/io/gguf_metadata.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/io/tensor_file.hpp"

namespace circuit {

/// One tensor of a GGUF file, quantised or not: rows of whole blocks, kept alive by `owner`.
struct GgufTensor {
  std::string name{};
  GgmlType type = GgmlType::f32;
  std::vector<std::int64_t> shape{};   ///< row-major as everywhere here, so the reverse of the file's order
  std::span<const std::byte> bytes{};  ///< not necessarily aligned
  std::shared_ptr<const Mapping> owner{};

  /// Values per row, the unit in which a quantised tensor can be read: the last axis.
  [[nodiscard]] std::size_t row_size() const noexcept {
    return shape.empty() ? 1 : static_cast<std::size_t>(shape.back());
  }
  [[nodiscard]] std::size_t row_bytes() const noexcept {
    return row_size() / ggml_layout(type).values * ggml_layout(type).bytes;
  }
  [[nodiscard]] std::size_t rows() const noexcept { return row_bytes() == 0 ? 0 : bytes.size() / row_bytes(); }
  /// The bytes of rows first, ..., first + count - 1, which must exist.
  [[nodiscard]] std::span<const std::byte> row_range(std::size_t first, std::size_t count) const {
    return bytes.subspan(first * row_bytes(), count * row_bytes());
  }
};

using GgufFile = BasicTensorFile<GgufTensor, GgufMetadata>;

/// Maps a GGUF file, version 2 or 3; no tensor is copied. Tensors come in the file's order.
/// throws  FileError    when `path` cannot be read
/// throws  FormatError  truncated or big-endian file, another version, impossible counts or shapes, names given twice,
///                      tensors that overlap or leave the file, one part of a split file
/// throws  DTypeError   an element type this library does not know
/// source  GGUF's specification (docs/gguf.md of ggml)
[[nodiscard]] GgufFile open_gguf(const std::filesystem::path& path);

/// A tensor of plain numbers as any other file's: a view of the same bytes.
/// return  nothing when the tensor is quantised
[[nodiscard]] inline std::optional<TensorView> plain_view(const GgufTensor& tensor) {
  constexpr std::pair<GgmlType, DType> types[] = {{GgmlType::f32, DType::f32}, {GgmlType::f16, DType::f16},
                                                  {GgmlType::i8, DType::i8},   {GgmlType::i16, DType::i16},
                                                  {GgmlType::i32, DType::i32}, {GgmlType::i64, DType::i64},
                                                  {GgmlType::f64, DType::f64}, {GgmlType::bf16, DType::bf16}};
  for (const auto& [type, dtype] : types) {
    if (type == tensor.type) return TensorView{tensor.name, dtype, tensor.shape, tensor.bytes, tensor.owner};
  }
  return {};
}

namespace detail::gguf {

inline constexpr std::string_view magic = "GGUF";
inline constexpr std::size_t longest_name = 65535;  // the specification's limit for keys
inline constexpr std::size_t smallest_value = 13;   // an empty key and one byte
inline constexpr std::size_t smallest_tensor = 24;  // an empty name and no axes
inline constexpr std::size_t most_axes = 4;
inline constexpr std::uint64_t largest_alignment = std::uint64_t{1} << 20U;

/// Reads the part before the data from front to back, never past its end.
class Reader : MappedReader {
 public:
  explicit Reader(std::shared_ptr<const Mapping> mapping)
      : MappedReader{std::move(mapping)}, bytes_{mapping_->bytes()} {}

  [[nodiscard]] GgufFile read() {
    read_header();
    for (std::uint64_t i = 0; i < value_count_; ++i) read_value();
    GgufMetadata metadata{mapping_, std::move(values_)};
    check_whole(metadata);
    const auto alignment = alignment_of(metadata);
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < tensor_count_; ++i) offsets.push_back(read_tensor(alignment));
    place_tensors(offsets, alignment);
    return {mapping_, std::move(tensors_), std::move(metadata)};
  }

 private:
  [[nodiscard]] std::size_t left() const noexcept { return bytes_.size() - at_; }

  [[nodiscard]] std::span<const std::byte> take(std::uint64_t size, const std::string& name) {
    if (size > left()) {
      throw bad(name, "the file ends too early", std::to_string(size) + " more bytes", std::to_string(left()),
                "truncated, or not a GGUF file");
    }
    const auto part = bytes_.subspan(at_, static_cast<std::size_t>(size));
    at_ += part.size();
    return part;
  }

  template <class T>
  [[nodiscard]] T number(const std::string& name) {
    return load<T>(take(sizeof(T), name).data());
  }

  [[nodiscard]] std::string name(const char* what, const std::string& after) {
    const auto length = number<std::uint64_t>(after);
    if (length > longest_name) {
      throw bad(after, std::string{"impossible length of the next "} + what,
                "at most " + std::to_string(longest_name) + " bytes", std::to_string(length));
    }
    const auto part = take(length, after);
    std::string text{reinterpret_cast<const char*>(part.data()), part.size()};
    if (!is_utf8(text)) throw bad(to_valid_utf8(text), "this name is not UTF-8");
    return text;
  }

  void read_header() {
    const auto start = bytes_.first(std::min(magic.size(), bytes_.size()));
    if (start.size() < magic.size() || std::memcmp(start.data(), magic.data(), magic.size()) != 0) {
      throw bad({}, "not a GGUF file", "the letters GGUF at its beginning");
    }
    at_ = magic.size();
    const auto version = number<std::uint32_t>({});
    if (version != 0 && (version & 0xFFFFU) == 0) {
      throw bad({}, "big-endian GGUF files are not supported", {}, {}, "convert it to little-endian");
    }
    if (version != 2 && version != 3) {
      throw bad({}, "unsupported GGUF version", "2 or 3", std::to_string(version), "convert the model again");
    }
    tensor_count_ = number<std::uint64_t>({});
    value_count_ = number<std::uint64_t>({});
    if (value_count_ > left() / smallest_value || tensor_count_ > left() / smallest_tensor) {
      throw bad({}, "impossible counts", "what fits into " + std::to_string(left()) + " bytes",
                std::to_string(tensor_count_) + " tensors and " + std::to_string(value_count_) + " metadata values");
    }
  }

  [[nodiscard]] GgufKind kind(const std::string& key) {
    const auto number_of = number<std::uint32_t>(key);
    if (number_of >= kinds.size()) throw bad(key, "unknown metadata type", "0 to 12", std::to_string(number_of));
    return static_cast<GgufKind>(number_of);
  }

  void read_value() {
    const auto key = name("key", last_);
    GgufValue value{.kind = kind(key)};
    if (value.kind == GgufKind::array) {
      value.is_list = true;
      value.kind = kind(key);
      if (value.kind == GgufKind::array) throw bad(key, "lists of lists are not supported");
      const auto smallest =
          std::max(kind_of(value.kind).size, value.kind == GgufKind::text ? sizeof(std::uint64_t) : 1);
      const auto count = number<std::uint64_t>(key);
      if (count > left() / smallest) {
        throw bad(key, "impossible length of a list", "at most " + std::to_string(left() / smallest),
                  std::to_string(count));
      }
      value.count = static_cast<std::size_t>(count);
    }
    const auto begin = at_;
    if (value.kind == GgufKind::text) {
      for (std::size_t i = 0; i < value.count; ++i) (void)take(number<std::uint64_t>(key), key);
    } else {
      (void)take(value.count * kind_of(value.kind).size, key);
    }
    value.bytes = bytes_.subspan(begin, at_ - begin);
    const auto is_boolean = [](std::byte b) { return b <= std::byte{1}; };
    if (value.kind == GgufKind::boolean && !std::all_of(value.bytes.begin(), value.bytes.end(), is_boolean)) {
      throw bad(key, "a boolean that is neither 0 nor 1");
    }
    if (!values_.emplace(key, value).second) throw bad(key, "this metadata key is there twice");
    last_ = key;
  }

  void check_whole(const GgufMetadata& metadata) const {
    const auto parts = metadata.value_or<std::int64_t>("split.count", 1);
    if (parts > 1) {
      throw bad("split.count", "this file is one part of a model", "1", std::to_string(parts),
                "join the parts with llama-gguf-split --merge");
    }
  }

  [[nodiscard]] std::uint64_t alignment_of(const GgufMetadata& metadata) const {
    const auto alignment = metadata.value_or<std::uint64_t>("general.alignment", 32);
    if (!std::has_single_bit(alignment) || alignment > largest_alignment) {
      throw bad("general.alignment", "impossible alignment", "a power of two, at most 1048576",
                std::to_string(alignment));
    }
    return alignment;
  }

  /// return  its offset from the beginning of the data
  [[nodiscard]] std::uint64_t read_tensor(std::uint64_t alignment) {
    GgufTensor tensor{.name = name("tensor name", last_), .owner = mapping_};
    last_ = tensor.name;
    const auto axes = number<std::uint32_t>(last_);
    if (axes > most_axes) throw bad(last_, "too many axes", "at most 4", std::to_string(axes));
    tensor.shape.resize(axes);
    for (auto axis = axes; axis-- > 0;) tensor.shape[axis] = static_cast<std::int64_t>(number<std::uint64_t>(last_));

    const auto type = number<std::uint32_t>(last_);
    const auto known = find_ggml_layout(type);
    if (!known) {
      throw DTypeError{{.file = mapping_->path(),
                        .tensor = last_,
                        .problem = "unknown element type",
                        .expected = "a type of ggml's table",
                        .got = std::to_string(type)}};
    }
    tensor.type = known->type;
    const auto count = element_count(tensor.shape);
    if (!count) throw bad(last_, "impossible shape", "axes that fit into memory", shape_text(tensor.shape));
    if (tensor.row_size() % known->values != 0) {
      throw bad(last_, "a row of " + std::string{known->name} + " must be whole blocks",
                "a last axis divisible by " + std::to_string(known->values), shape_text(tensor.shape));
    }
    const auto offset = number<std::uint64_t>(last_);
    if (offset % alignment != 0) {
      throw bad(last_, "misaligned data", "a multiple of " + std::to_string(alignment), std::to_string(offset));
    }
    sizes_.push_back(*count / known->values * known->bytes);
    tensors_.push_back(std::move(tensor));
    return offset;
  }

  /// Gives every tensor its bytes; refuses data that leaves the file or belongs to two tensors.
  void place_tensors(std::span<const std::uint64_t> offsets, std::uint64_t alignment) {
    const auto begin = (at_ + alignment - 1) / alignment * alignment;
    const auto data = bytes_.subspan(static_cast<std::size_t>(std::min<std::uint64_t>(begin, bytes_.size())));
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto& tensor = tensors_[i];
      if (offsets[i] > data.size() || sizes_[i] > data.size() - offsets[i]) {
        throw bad(tensor.name, "its data leaves the file",
                  std::to_string(sizes_[i]) + " bytes from offset " + std::to_string(offsets[i]),
                  "a file with " + std::to_string(data.size()) + " bytes of data", "truncated?");
      }
      tensor.bytes = data.subspan(static_cast<std::size_t>(offsets[i]), sizes_[i]);
    }
    const GgufTensor* before = nullptr;
    for (const auto i : order_by(tensors_.size(), [&](std::size_t a, std::size_t b) {
           return tensors_[a].bytes.data() < tensors_[b].bytes.data();
         })) {
      const auto& tensor = tensors_[i];
      if (tensor.bytes.empty()) continue;
      if (before != nullptr && before->bytes.data() + before->bytes.size() > tensor.bytes.data()) {
        throw bad(tensor.name, "overlaps the tensor \"" + before->name + '"');
      }
      before = &tensor;
    }
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t value_count_ = 0;
  std::string last_;  ///< key or tensor read last, for errors
  GgufMetadata::Values values_;
  std::vector<GgufTensor> tensors_;
  std::vector<std::size_t> sizes_;  ///< bytes of each tensor
};

}  // namespace detail::gguf

inline GgufFile open_gguf(const std::filesystem::path& path) {
  return detail::gguf::Reader{Mapping::open(path)}.read();
}

}  // namespace circuit
