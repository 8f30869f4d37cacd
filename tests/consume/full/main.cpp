// What a program that only links circuit::circuit gets: every header, and loops that really run on several threads.
#include <ATen/Parallel.h>

#include <circuit/core/id.hpp>
#include <circuit/version.hpp>
#if __has_include(<circuit/leap.hpp>)
#include <circuit/leap.hpp>
#endif

#ifndef AT_PER_OPERATOR_HEADERS
#error "circuit::circuit defines AT_PER_OPERATOR_HEADERS for its users"
#endif

#include <atomic>
#include <iostream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

namespace {

/// Threads that take part in a loop of two items, one each.
std::size_t threads_of_a_loop() {
  std::mutex lock;
  std::set<std::thread::id> seen;
  at::parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) {
    const std::lock_guard guard{lock};
    seen.insert(std::this_thread::get_id());
  });
  return seen.size();
}

/// Whether what the second thread throws reaches the caller.
bool throw_on_second_thread_is_caught() {
  const auto first = std::this_thread::get_id();
  std::atomic<bool> thrown = false;
  try {
    at::parallel_for(0, 2, 1, [&](std::int64_t, std::int64_t) {
      if (std::this_thread::get_id() == first) return;
      thrown = true;
      throw std::runtime_error{"from the second thread"};
    });
  } catch (const std::runtime_error& error) {
    return thrown && std::string_view{error.what()}.find("second thread") != std::string_view::npos;
  }
  return false;
}

}  // namespace

int main() {
  at::set_num_threads(2);
  std::cout << circuit::version << ", " << circuit::Layer{3} << '\n';
  const auto threads = threads_of_a_loop();
  const auto caught = throw_on_second_thread_is_caught();
  std::cout << threads << " threads, throw " << (caught ? "caught" : "lost") << '\n';
  return threads == 2 && caught ? 0 : 1;
}
