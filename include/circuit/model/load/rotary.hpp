#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "circuit/io/json.hpp"
#include "circuit/model/config.hpp"

namespace circuit {

/// Reads rotary positions from a Hugging Face config into `config`, whose d_head and n_ctx stand already: the base, the
/// share of a head that turns, and the scaling kinds default, linear, dynamic, llama3 and yarn. Both spellings are known:
/// `rope_parameters`, and `rope_theta` beside `rope_scaling`. Dynamic scaling changes nothing up to n_ctx, which is as far
/// as prompts go here.
/// share   of each head that is turned, unless the file says otherwise
/// throws  ConfigError  for another kind, or numbers that no kind can have
inline void read_rotary(ModelConfig& config, const nlohmann::json& json, const std::filesystem::path& file,
                        double base = 10000.0, double share = 1.0);

}  // namespace circuit

namespace circuit::detail {

/// base^(-i / n) for the n pairs.
[[nodiscard]] inline std::vector<double> plain_speeds(const ModelConfig& config) {
  std::vector<double> speeds(static_cast<std::size_t>(config.rotary_dims / 2));
  for (std::size_t i = 0; i < speeds.size(); ++i) {
    speeds[i] = std::pow(config.rotary_base, -static_cast<double>(i) / static_cast<double>(speeds.size()));
  }
  return speeds;
}

/// A number of the scaling that must be over zero.
/// otherwise  where there is none
[[nodiscard]] inline double positive_number(const nlohmann::json& json, const std::string& key,
                                            const std::filesystem::path& file, std::optional<double> otherwise = {}) {
  const auto value = otherwise ? value_or(json, key, file, *otherwise) : require<double>(json, key, file);
  if (value > 0) return value;
  throw ConfigError{{.file = file, .tensor = key, .expected = "> 0", .got = std::to_string(value)}};
}

/// Llama 3.1: pairs that turn fast stay, slow ones are slowed by `factor`, those between are blended.
inline void scale_llama3(ModelConfig& config, const nlohmann::json& json, const std::filesystem::path& file) {
  const auto factor = positive_number(json, "factor", file);
  const auto low = positive_number(json, "low_freq_factor", file);
  const auto high = positive_number(json, "high_freq_factor", file);
  const auto context = positive_number(json, "original_max_position_embeddings", file);
  if (!(high > low)) {
    throw ConfigError{{.file = file, .tensor = "high_freq_factor", .expected = "over low_freq_factor"}};
  }
  for (auto& speed : config.rotary_speeds) {
    const auto turns = context * speed / (2 * std::numbers::pi);  // within the original context
    const auto kept = std::clamp((turns - low) / (high - low), 0.0, 1.0);
    speed = (1 - kept) * speed / factor + kept * speed;
  }
}

/// The factor by which YaRN lengthens queries and keys.
[[nodiscard]] inline double yarn_gain(const nlohmann::json& json, const std::filesystem::path& file, double factor) {
  const auto gain_of = [&](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0; };
  const auto mscale = value_or(json, "mscale", file, 0.0);
  const auto all = value_or(json, "mscale_all_dim", file, 0.0);
  return positive_number(json, "attention_factor", file,
                         mscale != 0 && all != 0 ? gain_of(mscale) / gain_of(all) : gain_of(1));
}

/// YaRN (Peng et al. 2023): pairs are slowed by `factor` the more, the fewer turns they make in the original context.
inline void scale_yarn(ModelConfig& config, const nlohmann::json& json, const std::filesystem::path& file) {
  const auto factor = positive_number(json, "factor", file);
  const auto context =
      positive_number(json, "original_max_position_embeddings", file, static_cast<double>(config.n_ctx));
  const auto pairs = static_cast<double>(config.rotary_speeds.size());
  /// The pair, as a real number, that turns so often.
  const auto pair_with = [&](double turns) {
    return pairs * std::log(context / (turns * 2 * std::numbers::pi)) / std::log(config.rotary_base);
  };
  auto first = pair_with(positive_number(json, "beta_fast", file, 32.0));
  auto last = pair_with(positive_number(json, "beta_slow", file, 1.0));
  if (value_or(json, "truncate", file, true)) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, 2 * pairs - 1);
  if (first == last) last += 0.001;
  for (std::size_t i = 0; i < config.rotary_speeds.size(); ++i) {
    const auto slowed = std::clamp((static_cast<double>(i) - first) / (last - first), 0.0, 1.0);
    auto& speed = config.rotary_speeds[i];
    speed = slowed * speed / factor + (1 - slowed) * speed;
  }
  config.rotary_gain = yarn_gain(json, file, factor);
}

}  // namespace circuit::detail

inline void circuit::read_rotary(ModelConfig& config, const nlohmann::json& json, const std::filesystem::path& file,
                                 double base, double share) {
  const auto none = nlohmann::json::object();
  const auto under = [&](const char* key) -> const nlohmann::json* {
    const auto found = json.find(key);
    return found != json.end() && !found->is_null() ? &*found : nullptr;
  };
  const auto* parameters = under("rope_parameters");
  if (parameters == nullptr) parameters = under("rope_scaling");
  if (parameters == nullptr) parameters = &none;
  const auto number = [&](const std::string& key, double otherwise) {
    return value_or(*parameters, key, file, value_or(json, key, file, otherwise));
  };
  config.rotary_base = number("rope_theta", base);
  if (!(config.rotary_base > 1)) {
    throw ConfigError{
        {.file = file, .tensor = "rope_theta", .expected = "> 1", .got = std::to_string(config.rotary_base)}};
  }
  const auto turned = static_cast<double>(config.d_head) * number("partial_rotary_factor", share);
  config.rotary_dims =
      turned >= 0 && turned <= static_cast<double>(config.d_head) ? static_cast<std::int64_t>(turned) : -1;

  const auto old_kind = value_or<std::string>(*parameters, "type", file, "default");
  const auto kind = value_or(*parameters, "rope_type", file, old_kind);
  if (kind == "default" || kind == "dynamic") return;
  config.check(file.string());
  config.rotary_speeds = detail::plain_speeds(config);
  if (kind == "linear") {
    const auto factor = detail::positive_number(*parameters, "factor", file);
    for (auto& speed : config.rotary_speeds) speed /= factor;
  } else if (kind == "llama3") {
    detail::scale_llama3(config, *parameters, file);
  } else if (kind == "yarn") {
    detail::scale_yarn(config, *parameters, file);
  } else {
    throw ConfigError{
        {.file = file, .tensor = "rope_type", .expected = "default, linear, dynamic, llama3 or yarn", .got = kind}};
  }
}
