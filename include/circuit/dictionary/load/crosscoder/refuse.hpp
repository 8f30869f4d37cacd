#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "circuit/core/error.hpp"

namespace circuit::detail::crosscoder {

/// What is wrong with a crosscoder's file.
[[noreturn]] inline void refuse(const std::filesystem::path& file, std::string tensor, std::string problem,
                                std::string hint = {}) {
  throw ConfigError{
      {.file = file, .tensor = std::move(tensor), .problem = std::move(problem), .hint = std::move(hint)}};
}

[[noreturn]] inline void refuse_unnamed(const std::filesystem::path& path, std::string problem) {
  refuse(path, "layers", std::move(problem), "name them, or list their hooks (dictionary::load_listed)");
}

}  // namespace circuit::detail::crosscoder
