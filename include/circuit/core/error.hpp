#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace circuit {

/// Where an error happened and what would have been right. Every part may be empty; what is set is printed as
/// `file: tensor "name": problem: expected ..., got ...; hint`.
struct ErrorDetails {
  std::filesystem::path file{};  ///< file the bad input came from
  std::string tensor{};          ///< tensor, configuration key or argument
  std::string problem{};         ///< one clause in plain words
  std::string expected{};
  std::string got{};
  std::string hint{};  ///< what to do about it
};

/// Base of every exception this library throws. The parts stay readable so that a program can react.
class Error : public std::runtime_error {
 public:
  explicit Error(ErrorDetails details);

  [[nodiscard]] const ErrorDetails& details() const noexcept { return details_; }

 private:
  ErrorDetails details_;
};

/// A file that is missing, unreadable or unwritable.
class FileError : public Error {
 public:
  using Error::Error;
};

/// Bytes that are not what the format says: truncated, corrupt, malicious or of an unsupported kind.
class FormatError : public Error {
 public:
  using Error::Error;
};

/// A configuration value that is missing, of the wrong type, contradictory or unsupported.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A name (tensor, hook, role, token) that does not exist.
class NameError : public Error {
 public:
  using Error::Error;
};

/// An element type that cannot be used here.
class DTypeError : public Error {
 public:
  using Error::Error;
};

/// A layer, head, position, feature or token id out of range.
class IndexError : public Error {
 public:
  using Error::Error;
};

/// Values that cannot be used: NaN or infinity, an empty batch, prompts that do not line up.
class ValueError : public Error {
 public:
  using Error::Error;
};

/// A tensor whose axes disagree with what reads it.
class ShapeError : public Error {
 public:
  struct Details {
    std::filesystem::path file{};
    std::string tensor{};
    std::vector<std::int64_t> expected{};  ///< -1 stands for "any"
    std::vector<std::int64_t> got{};
    std::string hint{};
  };

  explicit ShapeError(Details details);

  [[nodiscard]] const std::vector<std::int64_t>& expected() const noexcept { return expected_; }
  [[nodiscard]] const std::vector<std::int64_t>& got() const noexcept { return got_; }

 private:
  std::vector<std::int64_t> expected_;
  std::vector<std::int64_t> got_;
};

/// Long work that was asked to stop; nothing half-written is left behind.
class Cancelled : public Error {
 public:
  explicit Cancelled(std::string_view what) : Error{{.problem = std::string{what} + " was cancelled"}} {}
};

namespace detail {

[[nodiscard]] inline std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const auto size : shape) {
    if (text.size() > 1) text += ", ";
    text += size < 0 ? "any" : std::to_string(size);
  }
  return text + "]";
}

[[nodiscard]] inline std::string error_text(const ErrorDetails& d) {
  std::string text;
  const auto part = [&text](std::string_view separator, std::string_view words) {
    if (words.empty()) return;
    if (!text.empty()) text += separator;
    text += words;
  };
  part("", d.file.string());
  if (!d.tensor.empty()) part(": ", '"' + d.tensor + '"');
  part(": ", d.problem);
  if (!d.expected.empty()) part(": ", "expected " + d.expected);
  if (!d.got.empty()) part(d.expected.empty() ? ": " : ", ", "got " + d.got);
  part("; ", d.hint);
  return text;
}

}  // namespace detail

inline Error::Error(ErrorDetails details)
    : std::runtime_error{detail::error_text(details)}, details_{std::move(details)} {}

inline ShapeError::ShapeError(Details d)
    : Error{{.file = std::move(d.file),
             .tensor = std::move(d.tensor),
             .expected = detail::shape_text(d.expected),
             .got = detail::shape_text(d.got),
             .hint = std::move(d.hint)}},
      expected_{std::move(d.expected)},
      got_{std::move(d.got)} {}

}  // namespace circuit
