#pragma once

#include <sys/resource.h>

#include <chrono>
#include <utility>

namespace smollm2 {

/// Seconds since it was made, or since the last lap.
class Stopwatch {
 public:
  double lap() {
    const auto now = Clock::now();
    const std::chrono::duration<double> passed = now - std::exchange(start_, now);
    return passed.count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

/// The most memory this process has had at once, mapped files counted, in megabytes (10^6 bytes).
[[nodiscard]] inline double peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}

}  // namespace smollm2
