#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/core/id.hpp"

namespace circuit {

/// Sizes and numbers of one model. What differs in kind (norm, positions, MLP) is the architecture's type instead.
struct ModelConfig {
  std::int64_t n_layers = 0;
  std::int64_t d_model = 0;
  std::int64_t n_heads = 0;
  std::int64_t n_key_value_heads = 0;  ///< equal to n_heads unless queries are grouped
  std::int64_t d_head = 0;
  std::int64_t d_mlp = 0;  ///< 0 where blocks have no MLP
  std::int64_t d_vocab = 0;
  std::int64_t n_ctx = 0;
  double norm_eps = 1e-5;
  double score_scale = 1.0;     ///< scores are divided by this: sqrt(d_head) for most models
  double score_soft_cap = 0.0;  ///< scores become cap tanh(score / cap); 0: no cap
  double logit_soft_cap = 0.0;  ///< the same for logits
  double embed_scale = 1.0;     ///< token embeddings are multiplied by this
  std::vector<std::int64_t>
      windows{};  ///< by layer: how far back a query sees, itself counted; 0, or none at all: no limit

  // Rotary positions only.
  std::int64_t rotary_dims = 0;         ///< leading dimensions of a head that are rotated
  double rotary_base = 10000.0;         ///< pair i of n turns by base^(-i / n) radians per position, unless ...
  std::vector<double> rotary_speeds{};  ///< ... [rotary_dims / 2] says otherwise
  double rotary_gain = 1.0;             ///< what a turned dimension is multiplied by (YaRN)

  // Which weights a file must hold.
  bool tied_unembedding = false;  ///< W_U is the transpose of W_E
  bool attn_bias = false;         ///< b_Q, b_K, b_V
  bool attn_out_bias = false;     ///< b_O
  bool head_norms = false;        ///< q_gain, k_gain
  bool mlp_bias = false;

  /// More than any model has, so that a file's absurd number is refused before it costs memory.
  static constexpr std::int32_t most_layers = 1 << 16;

  /// How far back queries of a layer see; 0: no limit.
  [[nodiscard]] std::int64_t window(Layer layer) const {
    const auto slot = static_cast<std::size_t>(layer.value);
    return slot < windows.size() ? windows[slot] : 0;
  }
  /// Query heads that share one key/value head.
  [[nodiscard]] std::int64_t group_size() const { return n_heads / n_key_value_heads; }

  /// throws  ConfigError  for sizes that no model can have
  void check(const std::string& file = {}) const {
    const auto size = [&](const char* name, std::int64_t got, std::int64_t most, std::int64_t least = 1) {
      if (got >= least && got <= most) return;
      throw ConfigError{{.file = file,
                         .tensor = name,
                         .expected = std::to_string(least) + " to " + std::to_string(most),
                         .got = std::to_string(got)}};
    };
    // Far beyond any model, and small enough that no product of two overflows.
    constexpr std::int64_t few = 1 << 16;
    constexpr std::int64_t many = std::int64_t{1} << 31U;
    size("n_layers", n_layers, most_layers);
    size("d_model", d_model, many);
    size("n_heads", n_heads, few);
    size("n_key_value_heads", n_key_value_heads, few);
    size("d_head", d_head, few);
    size("d_mlp", d_mlp, many, 0);
    size("d_vocab", d_vocab, many);
    size("n_ctx", n_ctx, many);
    if (n_heads % n_key_value_heads != 0) {
      throw ConfigError{{.file = file,
                         .tensor = "n_key_value_heads",
                         .expected = "a divisor of n_heads = " + std::to_string(n_heads),
                         .got = std::to_string(n_key_value_heads)}};
    }
    const auto in_range = [&](const char* name, bool holds) {
      if (!holds) throw ConfigError{{.file = file, .tensor = name, .problem = "is out of range"}};
    };
    in_range("norm_eps", norm_eps >= 0);
    in_range("score_scale", score_scale > 0);
    in_range("score_soft_cap", score_soft_cap >= 0);
    in_range("logit_soft_cap", logit_soft_cap >= 0);
    in_range("windows", windows.empty() || (static_cast<std::int64_t>(windows.size()) == n_layers &&
                                            std::ranges::all_of(windows, [](auto w) { return w >= 0; })));
    in_range("rotary_base", rotary_base > 0);
    in_range("rotary_dims", rotary_dims >= 0 && rotary_dims <= d_head && rotary_dims % 2 == 0);
    in_range("rotary_speeds",
             rotary_speeds.empty() ||
                 (static_cast<std::int64_t>(rotary_speeds.size()) == rotary_dims / 2 &&
                  std::ranges::all_of(rotary_speeds, [](double speed) { return speed >= 0 && std::isfinite(speed); })));
    in_range("rotary_gain", rotary_gain > 0 && std::isfinite(rotary_gain));
  }
};

}  // namespace circuit
