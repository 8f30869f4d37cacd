#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/load/loaded.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/config.hpp"

namespace circuit::train {

/// What one site's dictionary learns from: [n, d_in] and [n, d_out], one tensor for an SAE.
struct TokenBatch {
  at::Tensor x;
  at::Tensor y;
};

/// The points that a dictionary can read or describe: values [batch, pos, ...], one vector per token.
template <class P>
concept TokenPoint =
    std::same_as<P, hook::resid_pre> || std::same_as<P, hook::ln1::normalized> || std::same_as<P, hook::attn::z> ||
    std::same_as<P, hook::attn_out> || std::same_as<P, hook::resid_mid> || std::same_as<P, hook::ln2::normalized> ||
    std::same_as<P, hook::mlp::pre> || std::same_as<P, hook::mlp::post> || std::same_as<P, hook::mlp_out> ||
    std::same_as<P, hook::resid_post>;

/// Their names within a block, in the order in which a forward pass meets them.
inline constexpr std::array token_points{
    hook::resid_pre::name, hook::ln1::normalized::name, hook::attn::z::name,  hook::attn_out::name,
    hook::resid_mid::name, hook::ln2::normalized::name, hook::mlp::pre::name, hook::mlp::post::name,
    hook::mlp_out::name,   hook::resid_post::name};

/// Whether a dictionary describes what it reads.
[[nodiscard]] inline bool is_sae(const DictionaryHooks& hooks) { return hooks.in == hooks.out; }

/// The layer of a hook such as "blocks.3.attn.hook_z".
/// throws  NameError  for a name that is no token point;  IndexError  for a layer that a model of n_layers lacks
[[nodiscard]] inline Layer layer_of(const std::string& hook, std::int64_t n_layers) {
  const auto split = circuit::detail::split_hook(hook);
  if (!split || std::find(token_points.begin(), token_points.end(), split->second) == token_points.end()) {
    std::string known;
    for (const auto name : token_points) known += (known.empty() ? "" : ", ") + std::string{name};
    throw NameError{
        {.tensor = hook, .problem = "no dictionary can sit there", .expected = "blocks.{layer}. and one of " + known}};
  }
  check_index(split->first, n_layers);
  return split->first;
}

/// An attachment that keeps the values at hooks named at run time: of each [batch, pos, width], heads side by side.
class NamedRecorder {
 public:
  explicit NamedRecorder(std::vector<std::string> hooks) : hooks_{std::move(hooks)}, values_(hooks_.size()) {}

  template <TokenPoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    const auto name = hook_name(point, layer);
    for (std::size_t i = 0; i < hooks_.size(); ++i) {
      if (hooks_[i] == name) values_[i] = value.flatten(2);
    }
  }

  /// One per hook, in the order in which they were named; undefined where the pass did not come by.
  [[nodiscard]] const std::vector<at::Tensor>& values() const noexcept { return values_; }

 private:
  std::vector<std::string> hooks_;
  std::vector<at::Tensor> values_;
};

}  // namespace circuit::train
