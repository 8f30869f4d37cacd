#include "circuit/core/parallel.hpp"

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "catch.hpp"

using circuit::detail::parallel_for;

TEST_CASE("parallel_for: every number is in one part, and parts are no smaller than asked for") {
  std::vector<int> seen(1000, 0);
  parallel_for(1000, 100, [&](std::int64_t first, std::int64_t last) {
    for (auto i = first; i < last; ++i) ++seen[static_cast<std::size_t>(i)];
    if (last - first < 100 && last != 1000) seen.at(0) = -1;
  });
  CHECK(seen == std::vector<int>(1000, 1));
  bool called = false;
  parallel_for(0, 1, [&](std::int64_t, std::int64_t) { called = true; });
  CHECK_FALSE(called);
}

TEST_CASE("parallel_for: what a part throws reaches the caller") {
  const auto throws = [](std::int64_t, std::int64_t) { throw std::out_of_range{"part"}; };
  CHECK_THROWS_AS(parallel_for(100, 1, throws), std::out_of_range);
}
