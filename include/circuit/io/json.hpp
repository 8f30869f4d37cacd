#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/io/mapping.hpp"

namespace circuit {

/// What a JSON text may hold at most, so that a hostile file is refused before it costs memory or stack.
struct JsonLimits {
  std::size_t bytes = std::size_t{512} << 20U;
  int depth = 64;
};

namespace detail {

[[nodiscard]] inline std::string line_and_column(std::string_view text, std::size_t byte) {
  const auto before = text.substr(0, std::min(byte, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const auto start = before.rfind('\n');
  const auto column = before.size() - (start == before.npos ? 0 : start + 1) + 1;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

/// Builds the value while nlohmann's parser reads, and refuses what that parser would take in silence: keys given twice
/// (the last would win) and deep nesting.
class JsonBuilder {
 public:
  using Json = nlohmann::json;

  JsonBuilder(std::string_view text, const std::filesystem::path& file, int depth)
      : text_{text}, file_{file}, depth_{static_cast<std::size_t>(std::max(depth, 0))} {}

  [[nodiscard]] Json take() { return std::move(root_); }

  bool null() { return add({}); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(Json::number_integer_t value) { return add(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return add(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }  // no JSON text has any
  bool start_object(std::size_t) { return open(Json::value_t::object); }
  bool start_array(std::size_t) { return open(Json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }

  bool key(std::string& name) {
    auto& object = open_.back()->get_ref<Json::object_t&>();
    const auto [place, added] = object.try_emplace(std::move(name));
    if (!added) throw FormatError{{.file = file_, .tensor = place->first, .problem = "this JSON key is there twice"}};
    member_ = &place->second;
    return true;
  }

  /// throws  FormatError
  [[noreturn]] bool parse_error(std::size_t byte, const std::string&, const Json::exception& error) {
    throw FormatError{
        {.file = file_, .problem = "not valid JSON at " + line_and_column(text_, byte), .got = error.what()}};
  }

 private:
  Json& place(Json value) {
    auto& at = open_.empty()              ? root_
               : open_.back()->is_array() ? open_.back()->get_ref<Json::array_t&>().emplace_back()
                                          : *member_;
    at = std::move(value);
    return at;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json::value_t kind) {
    if (open_.size() >= depth_) {
      throw FormatError{{.file = file_, .problem = "JSON is nested deeper than " + std::to_string(depth_)}};
    }
    open_.push_back(&place(kind));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::filesystem::path& file_;
  std::size_t depth_;
  Json root_;
  std::vector<Json*> open_{};  ///< the objects and lists around the place now read; none moves while it is open
  Json* member_ = nullptr;     ///< where the value of the key just read belongs
};

template <class T>
[[nodiscard]] constexpr std::string_view json_type_name() {
  if constexpr (std::same_as<T, bool>) return "a boolean";
  if constexpr (std::integral<T>) return std::unsigned_integral<T> ? "a whole number, 0 or more" : "a whole number";
  if constexpr (std::floating_point<T>) return "a number";
  if constexpr (std::same_as<T, std::string>) return "a string";
  return "another type";
}

/// What lies in a value by its stored type, or nullptr; unlike nlohmann's `get`, which converts, nothing is instantiated
/// for it but a cast.
template <class Stored>
[[nodiscard]] const Stored* stored(const nlohmann::json& value) {
  return value.get_ptr<const Stored*>();
}

/// The items of a list; none of anything else.
[[nodiscard]] inline const nlohmann::json::array_t& items(const nlohmann::json& list) {
  static const nlohmann::json::array_t none;
  const auto* found = stored<nlohmann::json::array_t>(list);
  return found != nullptr ? *found : none;
}

/// The members of an object by name; none of anything else.
[[nodiscard]] inline const nlohmann::json::object_t& members(const nlohmann::json& object) {
  static const nlohmann::json::object_t none;
  const auto* found = stored<nlohmann::json::object_t>(object);
  return found != nullptr ? *found : none;
}

template <class T>
[[nodiscard]] bool json_holds(const nlohmann::json& value) {
  if constexpr (std::same_as<T, nlohmann::json>) {
    return true;
  } else if constexpr (std::same_as<T, bool>) {
    return value.is_boolean();
  } else if constexpr (std::integral<T>) {
    if (const auto* number = stored<std::uint64_t>(value)) return std::in_range<T>(*number);
    const auto* number = stored<std::int64_t>(value);
    return number != nullptr && std::in_range<T>(*number);
  } else if constexpr (std::floating_point<T>) {
    return value.is_number();
  } else if constexpr (std::same_as<T, std::string>) {
    return value.is_string();
  } else {  // a vector of one of the above
    return value.is_array() && std::ranges::all_of(items(value), json_holds<typename T::value_type>);
  }
}

/// The value as T, which it holds.
template <class T>
[[nodiscard]] T json_as(const nlohmann::json& value) {
  if constexpr (std::same_as<T, nlohmann::json>) {
    return value;
  } else if constexpr (std::same_as<T, bool> || std::same_as<T, std::string>) {
    return *stored<T>(value);
  } else if constexpr (std::integral<T> || std::floating_point<T>) {
    if (value.is_number_unsigned()) return static_cast<T>(*stored<std::uint64_t>(value));
    if (value.is_number_integer()) return static_cast<T>(*stored<std::int64_t>(value));
    return static_cast<T>(*stored<double>(value));
  } else {
    T list;
    for (const auto& item : items(value)) list.push_back(json_as<typename T::value_type>(item));
    return list;
  }
}

template <class T>
[[nodiscard]] std::string json_type_text() {
  if constexpr (requires { typename T::value_type; } && !std::same_as<T, std::string> &&
                !std::same_as<T, nlohmann::json>) {
    return "a list, each " + std::string{json_type_name<typename T::value_type>()};
  } else {
    return std::string{json_type_name<T>()};
  }
}

/// A value as errors show it, near to JSON and on one line: of long lists and objects how much they hold, of long texts
/// the beginning. nlohmann's own `dump` would be 2 % of the machine code of a program with a search.
[[nodiscard]] inline std::string short_dump(const nlohmann::json& value) {
  constexpr std::size_t most = 60;
  if (value.is_structured() && value.size() > most) {
    return std::string{value.type_name()} + " of " + std::to_string(value.size()) + " items";
  }
  const auto quoted = [](std::string_view text) { return '"' + one_line(text.substr(0, most)) + '"'; };
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ",") + part; };
  if (value.is_array()) {
    for (const auto& item : items(value)) add(short_dump(item));
    text = '[' + text + ']';
  } else if (value.is_object()) {
    for (const auto& [key, member] : members(value)) add(quoted(key) + ':' + short_dump(member));
    text = '{' + text + '}';
  } else if (const auto* words = stored<std::string>(value)) {
    text = quoted(*words);
  } else if (const auto* flag = stored<bool>(value)) {
    text = *flag ? "true" : "false";
  } else if (const auto* number = stored<double>(value)) {
    text = exact_text(*number);
  } else if (value.is_number()) {
    text = json_holds<std::int64_t>(value) ? std::to_string(json_as<std::int64_t>(value))
                                           : std::to_string(json_as<std::uint64_t>(value));
  } else {
    text = "null";
  }
  return text.size() > most ? one_line(text.substr(0, most)) + "..." : text;  // the cut may part a character
}

}  // namespace detail

/// Parses JSON text; `file` only names it in errors.
/// throws  FormatError  with line and column: not JSON, a key given twice in one object, invalid UTF-8, over `limits`
[[nodiscard]] inline nlohmann::json parse_json(std::string_view text, const std::filesystem::path& file = {},
                                               const JsonLimits& limits = {}) {
  if (text.size() > limits.bytes) {
    throw FormatError{{.file = file,
                       .problem = "JSON is too large",
                       .expected = "at most " + std::to_string(limits.bytes) + " bytes",
                       .got = std::to_string(text.size())}};
  }
  detail::JsonBuilder builder{text, file, limits.depth};
  // What json::sax_parse calls for text; that one also instantiates the readers of five binary formats.
  auto source = nlohmann::detail::input_adapter(text.begin(), text.end());
  // NOLINTNEXTLINE(performance-move-const-arg): it takes nothing but an rvalue
  nlohmann::detail::parser<nlohmann::json, decltype(source)> parser{std::move(source)};
  static_cast<void>(parser.sax_parse(&builder));
  return builder.take();
}

/// throws  FileError    when `path` cannot be read
/// throws  FormatError  as parse_json
[[nodiscard]] inline nlohmann::json read_json(const std::filesystem::path& path, const JsonLimits& limits = {}) {
  const auto mapping = Mapping::open(path);
  const auto bytes = mapping->bytes();
  return parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path, limits);
}

/// What stands under `key`, or nullptr where there is none or `object` is no object; valid as long as `object`.
[[nodiscard]] inline const nlohmann::json* find_field(const nlohmann::json& object, const std::string& key) {
  const auto& members = detail::members(object);
  const auto found = members.find(key);
  return found == members.end() ? nullptr : &found->second;
}

/// What stands under `key`, whatever its type; valid as long as `object`.
/// throws  ConfigError  when `object` is no object or has no such key
[[nodiscard]] inline const nlohmann::json& require_field(const nlohmann::json& object, const std::string& key,
                                                         const std::filesystem::path& file) {
  if (!object.is_object()) {
    throw ConfigError{{.file = file, .tensor = key, .expected = "an object", .got = detail::short_dump(object)}};
  }
  const auto* found = find_field(object, key);
  if (found == nullptr) throw ConfigError{{.file = file, .tensor = key, .problem = "is missing"}};
  return *found;
}

/// The value of `key`, which must be there: `require<int>(config, "n_layer", path)`. T is bool, a number, std::string,
/// nlohmann::json (anything) or a std::vector of one of them; no conversions are made, except whole number to floating.
/// throws  ConfigError  with file, key, expected type and the value found
template <class T>
[[nodiscard]] T require(const nlohmann::json& object, const std::string& key, const std::filesystem::path& file) {
  const auto& value = require_field(object, key, file);
  if (!detail::json_holds<T>(value)) {
    throw ConfigError{{.file = file,
                       .tensor = key,
                       .problem = "has the wrong type or range",
                       .expected = detail::json_type_text<T>(),
                       .got = detail::short_dump(value)}};
  }
  return detail::json_as<T>(value);
}

/// As require, but `otherwise` when the key is absent or null.
template <class T>
[[nodiscard]] T value_or(const nlohmann::json& object, const std::string& key, const std::filesystem::path& file,
                         T otherwise) {
  const auto* found = find_field(object, key);
  if (object.is_object() && (found == nullptr || found->is_null())) return otherwise;
  return require<T>(object, key, file);
}

}  // namespace circuit
