#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/utf8.hpp"
#include "circuit/io/mapping.hpp"
#include "circuit/io/tensor_file.hpp"

namespace circuit {

/// Type of a metadata value, as numbered in the file.
enum class GgufKind : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// One checked metadata value, still as bytes of the mapped file. A list is `count` values of `kind`, else count is 1.
struct GgufValue {
  GgufKind kind = GgufKind::u8;  ///< never array: that of its items, for a list
  bool is_list = false;
  std::size_t count = 1;
  std::span<const std::byte> bytes{};  ///< texts as length (8 bytes) and characters
};

/// The metadata of a GGUF file by key: `metadata.require<std::int64_t>("llama.block_count")`.
///
/// T is bool, a number, std::string, std::string_view (valid as long as this object or a copy of it) or a std::vector
/// of one of them. Whole numbers of any stored width are read as any T that holds them, and as floating numbers; no
/// other conversions are made. A list of texts is one pass over the file, without a copy when T is std::string_view.
class GgufMetadata {
 public:
  using Values = std::map<std::string, GgufValue, std::less<>>;

  GgufMetadata() = default;
  GgufMetadata(std::shared_ptr<const Mapping> mapping, Values values)
      : mapping_{std::move(mapping)}, values_{std::move(values)} {}

  [[nodiscard]] const Values& values() const noexcept { return values_; }
  [[nodiscard]] bool contains(std::string_view key) const { return values_.contains(key); }

  /// throws  ConfigError  with file, key, expected type and what is there, when the key is missing or of another type
  template <class T>
  [[nodiscard]] T require(std::string_view key) const;

  /// As require, but `otherwise` when the key is absent.
  template <class T>
  [[nodiscard]] T value_or(std::string_view key, T otherwise) const {
    return contains(key) ? require<T>(key) : otherwise;
  }

 private:
  std::shared_ptr<const Mapping> mapping_;
  Values values_;
};

/// A short text for people: `"llama"`, `32`, `list of 49152 texts`.
[[nodiscard]] std::string describe(const GgufValue& value);

namespace detail::gguf {

struct Kind {
  std::string_view name;
  std::size_t size;  ///< bytes of one value; 0 where it varies
};

inline constexpr std::array<Kind, 13> kinds{{{"uint8", 1},
                                             {"int8", 1},
                                             {"uint16", 2},
                                             {"int16", 2},
                                             {"uint32", 4},
                                             {"int32", 4},
                                             {"float32", 4},
                                             {"bool", 1},
                                             {"text", 0},
                                             {"list", 0},
                                             {"uint64", 8},
                                             {"int64", 8},
                                             {"float64", 8}}};

[[nodiscard]] constexpr const Kind& kind_of(GgufKind kind) noexcept { return kinds[static_cast<std::size_t>(kind)]; }

template <class T>
[[nodiscard]] T load(const std::byte* from) noexcept {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Calls `use` with each value in turn, in its stored type (texts as std::string_view), while it returns true.
/// return  whether it always did
template <class Use>
bool for_each(const GgufValue& value, Use&& use) {
  const auto* at = value.bytes.data();
  const auto numbers = [&]<class T>(T) {
    for (std::size_t i = 0; i < value.count; ++i, at += sizeof(T)) {
      if (!use(load<T>(at))) return false;
    }
    return true;
  };
  switch (value.kind) {
    case GgufKind::u8: return numbers(std::uint8_t{});
    case GgufKind::i8: return numbers(std::int8_t{});
    case GgufKind::u16: return numbers(std::uint16_t{});
    case GgufKind::i16: return numbers(std::int16_t{});
    case GgufKind::u32: return numbers(std::uint32_t{});
    case GgufKind::i32: return numbers(std::int32_t{});
    case GgufKind::f32: return numbers(float{});
    case GgufKind::u64: return numbers(std::uint64_t{});
    case GgufKind::i64: return numbers(std::int64_t{});
    case GgufKind::f64: return numbers(double{});
    case GgufKind::boolean:
      for (std::size_t i = 0; i < value.count; ++i) {
        if (!use(at[i] != std::byte{0})) return false;
      }
      return true;
    case GgufKind::text:
      for (std::size_t i = 0; i < value.count; ++i) {
        const auto length = static_cast<std::size_t>(load<std::uint64_t>(at));
        at += sizeof(std::uint64_t);
        if (!use(std::string_view{reinterpret_cast<const char*>(at), length})) return false;
        at += length;
      }
      return true;
    case GgufKind::array: break;
  }
  return false;
}

/// return  `stored` as a T, or nothing when a T cannot hold it
template <class T, class Stored>
[[nodiscard]] std::optional<T> convert(Stored stored) {
  constexpr bool whole = std::integral<Stored> && !std::same_as<Stored, bool>;
  if constexpr (std::same_as<T, bool> || std::same_as<Stored, bool>) {
    if constexpr (std::same_as<T, Stored>) return stored;
  } else if constexpr (std::integral<T> && whole) {
    if (std::in_range<T>(stored)) return static_cast<T>(stored);
  } else if constexpr (std::floating_point<T> && std::is_arithmetic_v<Stored>) {
    return static_cast<T>(stored);
  } else if constexpr (std::constructible_from<T, Stored> && std::same_as<Stored, std::string_view>) {
    return T{stored};
  }
  return {};
}

template <class T>
inline constexpr bool is_list = false;
template <class T>
inline constexpr bool is_list<std::vector<T>> = true;

template <class T>
[[nodiscard]] std::optional<T> read_as(const GgufValue& value) {
  if (value.is_list != is_list<T>) return {};
  std::optional<T> result;
  if constexpr (is_list<T>) {
    result.emplace();
    result->reserve(value.count);
    const bool all = for_each(value, [&](auto stored) {
      auto item = convert<typename T::value_type>(stored);
      if (item) result->push_back(std::move(*item));
      return item.has_value();
    });
    if (!all) return {};
  } else {
    for_each(value, [&](auto stored) { return (result = convert<T>(stored)).has_value(); });
  }
  return result;
}

template <class T>
[[nodiscard]] std::string type_text() {
  if constexpr (is_list<T>) {
    return "a list, each " + type_text<typename T::value_type>();
  } else if constexpr (std::same_as<T, bool>) {
    return "a boolean";
  } else if constexpr (std::integral<T>) {
    return std::unsigned_integral<T> ? "a whole number, 0 or more" : "a whole number";
  } else if constexpr (std::floating_point<T>) {
    return "a number";
  } else {
    return "a text";
  }
}

}  // namespace detail::gguf

template <class T>
T GgufMetadata::require(std::string_view key) const {
  const auto path = mapping_ ? mapping_->path() : std::filesystem::path{};
  const auto found = values_.find(key);
  if (found == values_.end()) {
    std::vector<std::string_view> names;
    for (const auto& [name, value] : values_) names.push_back(name);
    throw ConfigError{{.file = path,
                       .tensor = std::string{key},
                       .problem = "the metadata has no such key",
                       .hint = detail::near_names(key, names)}};
  }
  auto value = detail::gguf::read_as<T>(found->second);
  if (!value) {
    throw ConfigError{{.file = path,
                       .tensor = std::string{key},
                       .problem = "has the wrong type or range",
                       .expected = detail::gguf::type_text<T>(),
                       .got = describe(found->second)}};
  }
  return std::move(*value);
}

inline std::string describe(const GgufValue& value) {
  constexpr std::size_t longest = 60;
  const auto name = std::string{detail::gguf::kind_of(value.kind).name};
  if (value.is_list) return "list of " + std::to_string(value.count) + ' ' + name + (value.count == 1 ? "" : "s");
  std::string text;
  detail::gguf::for_each(value, [&]<class T>(T stored) {
    if constexpr (std::same_as<T, std::string_view>) {
      text = '"' + to_valid_utf8(stored.substr(0, longest)) + (stored.size() > longest ? "...\"" : "\"");
    } else if constexpr (std::same_as<T, bool>) {
      text = stored ? "true" : "false";
    } else {
      std::array<char, 32> digits{};
      text.assign(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), stored).ptr);
    }
    return true;
  });
  return text;
}

}  // namespace circuit
