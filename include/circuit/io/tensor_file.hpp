#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/order.hpp"
#include "circuit/io/mapping.hpp"

static_assert(std::endian::native == std::endian::little, "circuit reads tensor files on little-endian machines only");

namespace circuit {

/// Element type of a stored tensor.
enum class DType : std::uint8_t { f16, bf16, f32, f64, i8, u8, i16, i32, i64, boolean };

/// Bytes per element.
[[nodiscard]] constexpr std::size_t item_size(DType dtype) noexcept {
  switch (dtype) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16: return 2;
    case DType::i8:
    case DType::u8:
    case DType::boolean: break;
  }
  return 1;
}

/// The name PyTorch gives it.
[[nodiscard]] constexpr std::string_view dtype_name(DType dtype) noexcept {
  constexpr std::array<std::string_view, 10> names{"float16", "bfloat16", "float32", "float64", "int8",
                                                   "uint8",   "int16",    "int32",   "int64",   "bool"};
  return names[static_cast<std::size_t>(dtype)];
}

/// One stored tensor: row-major bytes, kept alive by `owner`. Copies are cheap and outlive the file object.
struct TensorView {
  std::string name{};
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape{};   ///< empty for a scalar
  std::span<const std::byte> bytes{};  ///< product of shape times item_size(dtype) bytes, not necessarily aligned
  std::shared_ptr<const void> owner{};
};

namespace detail {

/// return  product of `shape`, or nothing when a size is negative or the product does not fit
[[nodiscard]] inline std::optional<std::size_t> element_count(std::span<const std::int64_t> shape) {
  std::uint64_t count = 1;
  bool overflow = false;
  bool empty = false;
  for (const auto size : shape) {
    if (size < 0) return {};
    empty = empty || size == 0;
    overflow = overflow || __builtin_mul_overflow(count, static_cast<std::uint64_t>(size), &count);
  }
  if (empty) return 0;
  if (overflow || count > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / 8) return {};
  return static_cast<std::size_t>(count);
}

/// Levenshtein's distance.
[[nodiscard]] inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    auto diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const auto replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

/// The names most like `wanted`, nearest first, for an error's hint; "" when there are none.
[[nodiscard]] inline std::string near_names(std::string_view wanted, std::span<const std::string_view> names) {
  constexpr std::size_t longest = 128;  // keeps a hostile file's names from making the error slow
  constexpr std::size_t most = 5;
  std::vector<std::size_t> distance;
  for (const auto name : names) {
    const bool inside = !wanted.empty() && (name.find(wanted) != name.npos || wanted.find(name) != name.npos);
    distance.push_back(inside ? 0 : edit_distance(wanted.substr(0, longest), name.substr(0, longest)));
  }
  const auto order = order_by(names.size(), [&](std::size_t a, std::size_t b) {
    return distance[a] != distance[b] ? distance[a] < distance[b] : names[a] < names[b];
  });
  std::string text;
  for (std::size_t i = 0; i < std::min(most, order.size()); ++i) {
    text += (i == 0 ? "did you mean \"" : ", \"") + std::string{names[order[i]].substr(0, longest)} + '"';
  }
  return text.empty() ? text : text + "?";
}

}  // namespace detail

/// The named tensors of one model, in the file's order, with its free-form metadata. Nothing is copied: views point
/// into the mapped files (one, or several shards) and keep them alive.
template <class View, class Metadata>
class BasicTensorFile {
 public:
  /// throws  FormatError  when two tensors have one name
  BasicTensorFile(std::shared_ptr<const Mapping> mapping, std::vector<View> tensors, Metadata metadata = {})
      : BasicTensorFile{mapping->path(), {mapping}, std::move(tensors), std::move(metadata)} {}

  /// Tensors of several files, which `path` names in errors.
  BasicTensorFile(std::filesystem::path path, std::vector<std::shared_ptr<const Mapping>> mappings,
                  std::vector<View> tensors, Metadata metadata = {})
      : path_{std::move(path)},
        mappings_{std::move(mappings)},
        tensors_{std::move(tensors)},
        metadata_{std::move(metadata)} {
    const auto name = [&](std::size_t i) -> const std::string& { return tensors_[i].name; };
    by_name_ = detail::order_by(tensors_.size(), [&](auto a, auto b) { return name(a) < name(b); });
    const auto twice = std::ranges::adjacent_find(by_name_, [&](auto a, auto b) { return name(a) == name(b); });
    if (twice != by_name_.end())
      throw FormatError{{.file = path_, .tensor = name(*twice), .problem = "is there twice"}};
  }

  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }
  [[nodiscard]] std::span<const View> tensors() const noexcept { return tensors_; }
  [[nodiscard]] const Metadata& metadata() const noexcept { return metadata_; }
  [[nodiscard]] std::span<const std::shared_ptr<const Mapping>> mappings() const noexcept { return mappings_; }

  /// return  the tensor, or nullptr; valid as long as this file object
  [[nodiscard]] const View* find(const std::string& name) const {
    const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                        [&](std::size_t i, const std::string& x) { return tensors_[i].name < x; });
    return found != by_name_.end() && tensors_[*found].name == name ? &tensors_[*found] : nullptr;
  }

  /// throws  NameError  naming the nearest tensors when there is none called `name`
  [[nodiscard]] const View& get(const std::string& name) const {
    if (const auto* found = find(name)) return *found;
    std::vector<std::string_view> names;
    names.reserve(tensors_.size());
    for (const auto& tensor : tensors_) names.push_back(tensor.name);
    throw NameError{
        {.file = path_, .tensor = name, .problem = "there is no such tensor", .hint = detail::near_names(name, names)}};
  }

  /// The pages of one of this file's tensors; none for bytes that lie elsewhere.
  [[nodiscard]] MappedPages pages(const View& tensor) const {
    for (const auto& mapping : mappings_) {
      if (mapping->holds(tensor.bytes)) return {mapping, tensor.bytes};
    }
    return {};
  }
  /// Gives the pages of a tensor that will not be read soon back to the system; reading it again is slow, not wrong.
  void release(const View& tensor) const noexcept {
    for (const auto& mapping : mappings_) mapping->release(tensor.bytes);  // other files' bytes are left alone
  }

 private:
  std::filesystem::path path_;
  std::vector<std::shared_ptr<const Mapping>> mappings_;
  std::vector<View> tensors_;
  Metadata metadata_;
  std::vector<std::size_t> by_name_;
};

using TensorFile = BasicTensorFile<TensorView, std::map<std::string, std::string>>;

}  // namespace circuit
