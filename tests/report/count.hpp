#pragma once

#include <cstddef>
#include <string>

/// How often a part stands in a text, also overlapping itself.
inline std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}
