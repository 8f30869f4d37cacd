#pragma once

#include <ATen/Parallel.h>

#include <cstdint>
#include <functional>

namespace circuit::detail {

/// Calls use(first, last) for parts of the numbers 0 to n - 1, at least `grain` in each, on ATen's threads. One
/// instantiation for every loop, because each instantiation of at::parallel_for is a parallel region of its own.
inline void parallel_for(std::int64_t n, std::int64_t grain,
                         const std::function<void(std::int64_t, std::int64_t)>& use) {
  at::parallel_for(0, n, grain, use);
}

}  // namespace circuit::detail
