#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "circuit/io/json.hpp"

namespace circuit::detail {

/// Sliding windows by layer from a Hugging Face config; empty where there are none. Mistral has one in every layer, Qwen
/// from `max_window_layers` on if it is switched on, Gemma 2 in every other layer from the first; `layer_types` decides
/// where it is given.
/// throws  ConfigError  for a window of no width, or a list that does not name each layer's kind
[[nodiscard]] inline std::vector<std::int64_t> read_windows(const nlohmann::json& json,
                                                            const std::filesystem::path& file,
                                                            const std::string& model_type, std::int64_t n_layers) {
  const bool qwen = model_type == "qwen2" || model_type == "qwen3";
  const bool gemma = model_type == "gemma2";
  if ((!qwen && !gemma && model_type != "mistral") || (qwen && !value_or(json, "use_sliding_window", file, false))) {
    return {};
  }
  if (const auto found = json.find("sliding_window"); found != json.end() && found->is_null()) return {};
  const auto width = value_or<std::int64_t>(json, "sliding_window", file, 4096);
  if (width <= 0) {
    throw ConfigError{{.file = file, .tensor = "sliding_window", .expected = "> 0", .got = std::to_string(width)}};
  }
  std::vector<std::int64_t> windows(static_cast<std::size_t>(n_layers), width);
  const auto kinds = model_type == "mistral" ? std::vector<std::string>{}
                                             : value_or<std::vector<std::string>>(json, "layer_types", file, {});
  const auto first = qwen ? value_or<std::int64_t>(json, "max_window_layers", file, 28) : 0;
  if (!kinds.empty() && static_cast<std::int64_t>(kinds.size()) != n_layers) {
    throw ConfigError{{.file = file,
                       .tensor = "layer_types",
                       .expected = std::to_string(n_layers) + " of them",
                       .got = std::to_string(kinds.size())}};
  }
  for (std::size_t l = 0; l < windows.size(); ++l) {
    const bool slides = !kinds.empty() ? kinds[l] == "sliding_attention"
                                       : static_cast<std::int64_t>(l) >= first && !(gemma && l % 2 == 1);
    if (!kinds.empty() && !slides && kinds[l] != "full_attention") {
      throw ConfigError{
          {.file = file, .tensor = "layer_types", .expected = "sliding_attention or full_attention", .got = kinds[l]}};
    }
    if (!slides) windows[l] = 0;
  }
  return windows;
}

}  // namespace circuit::detail
