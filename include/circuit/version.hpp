#pragma once

#include <compare>
#include <ostream>

// The one place the version is written: CMake and the packages read these three lines.
// NOLINTBEGIN(cppcoreguidelines-macro-usage,modernize-macro-to-enum)
#define CIRCUIT_VERSION_MAJOR 0
#define CIRCUIT_VERSION_MINOR 1
#define CIRCUIT_VERSION_PATCH 0
// NOLINTEND(cppcoreguidelines-macro-usage,modernize-macro-to-enum)

namespace circuit {

/// A release of this library. Before 1.0 a new minor number may change interfaces; see CHANGELOG.md.
struct Version {
  int major_number{};  // not `major`: old C libraries define a macro of that name
  int minor_number{};
  int patch_number{};

  friend constexpr auto operator<=>(const Version&, const Version&) = default;

  friend std::ostream& operator<<(std::ostream& out, const Version& v) {
    return out << v.major_number << '.' << v.minor_number << '.' << v.patch_number;
  }
};

/// The release these headers belong to; the macros serve `#if`.
inline constexpr Version version{CIRCUIT_VERSION_MAJOR, CIRCUIT_VERSION_MINOR, CIRCUIT_VERSION_PATCH};

}  // namespace circuit
