#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <functional>
#include <limits>
#include <string>

/// Seconds by the clock and of the processor, all threads together; the least of several rounds each.
struct Cost {
  double wall = std::numeric_limits<double>::max();
  double processor = std::numeric_limits<double>::max();

  void measure(const std::function<void()>& action) {
    const auto start = std::chrono::steady_clock::now();
    const auto ticks = std::clock();
    action();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    wall = std::min(wall, passed.count());
    processor = std::min(processor, static_cast<double>(std::clock() - ticks) / CLOCKS_PER_SEC);
  }
};

/// The process' peak memory since this was made over what it had then, in MB of 10^6 bytes.
class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream{"/proc/self/clear_refs"} << 5;  // the high-water mark is what is resident now
    before_ = read("VmRSS:");
  }
  [[nodiscard]] double mb() const { return read("VmHWM:") - before_; }
  /// What the process has now in memory of its own, and not in pages of files, which can be taken from it at any time.
  [[nodiscard]] static double own_mb() { return read("RssAnon:"); }

 private:
  static double read(const std::string& wanted) {
    std::ifstream status{"/proc/self/status"};
    for (std::string name; status >> name;) {
      double kb = 0;
      if (name == wanted && status >> kb) return kb * 1024 / 1e6;
    }
    return 0;
  }

  double before_ = 0;
};

/// The process's peak memory so far, in MB of 10^6 bytes.
inline double peak_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;
}
