#pragma once

// The one place that knows which generation of Catch2 is installed.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
namespace circuit_test {
using Catch::Matchers::ContainsSubstring;
}  // namespace circuit_test
#else
#include <catch2/catch.hpp>
namespace circuit_test {
[[nodiscard]] inline auto ContainsSubstring(const std::string& part) { return Catch::Matchers::Contains(part); }
}  // namespace circuit_test
#endif
