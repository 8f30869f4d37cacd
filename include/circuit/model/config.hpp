#pragma once

#include <cstdint>
#include <string>

#include "circuit/core/error.hpp"

namespace circuit {

/// Sizes and numbers of one model. What differs in kind (norm, positions, MLP) is the architecture's type instead.
struct ModelConfig {
  std::int64_t n_layers = 0;
  std::int64_t d_model = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_key_value_heads = 0;  ///< equal to n_heads unless queries are grouped
  std::int64_t d_head = 0;
  std::int64_t d_mlp = 0;
  std::int64_t d_vocab = 0;
  std::int64_t n_ctx = 0;
  double norm_eps = 1e-5;
  double score_scale = 1.0;       ///< scores are divided by this: sqrt(d_head) for most models
  double score_soft_cap = 0.0;    ///< scores become cap tanh(score / cap); 0: no cap
  double rotary_base = 10000.0;   ///< rotary positions only
  std::int64_t rotary_dims = 0;   ///< leading dimensions of a head that are rotated; rotary positions only

  /// Query heads that share one key/value head.
  [[nodiscard]] std::int64_t group_size() const { return n_heads / n_key_value_heads; }

  /// throws  ConfigError  for sizes that no model can have
  void check(const std::string& file = {}) const {
    const auto positive = [&](const char* name, std::int64_t size) {
      if (size <= 0) throw ConfigError{{.file = file, .tensor = name, .expected = "> 0", .got = std::to_string(size)}};
    };
    positive("n_layers", n_layers);
    positive("d_model", d_model);
    positive("n_heads", n_heads);
    positive("n_key_value_heads", n_key_value_heads);
    positive("d_head", d_head);
    positive("d_vocab", d_vocab);
    positive("n_ctx", n_ctx);
    if (n_heads % n_key_value_heads != 0) {
      throw ConfigError{{.file = file,
                         .tensor = "n_key_value_heads",
                         .expected = "a divisor of n_heads = " + std::to_string(n_heads),
                         .got = std::to_string(n_key_value_heads)}};
    }
    if (!(norm_eps >= 0) || !(score_scale > 0) || !(score_soft_cap >= 0) || rotary_dims < 0 || rotary_dims > d_head ||
        rotary_dims % 2 != 0) {
      throw ConfigError{{.file = file, .problem = "norm_eps, score_scale, score_soft_cap or rotary_dims out of range"}};
    }
  }
};

}  // namespace circuit
