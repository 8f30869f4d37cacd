#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/evaluate/clusters.hpp"
#include "circuit/linear/linearization.hpp"
#include "circuit/linear/sources.hpp"

namespace circuit {

/// The attention features that are active at a position on at least one clean prompt, each with the mean over prompts
/// of the length of what it writes into the residual stream.
template <Architecture A, Dictionaries Set>
[[nodiscard]] std::vector<WrittenFeature> written_attention_features(const HookedTransformer<A>& model,
                                                                     const Set& dictionaries,
                                                                     const Linearization& linearization,
                                                                     Position position) {
  const c10::AutoGradMode no_gradient{false};
  check_index(position, linearization.length());
  std::vector<WrittenFeature> out;
  for (std::int32_t l = 0; l < model.config().n_layers; ++l) {
    const Layer layer{l};
    if (dictionaries.attn(layer) == nullptr) continue;
    const auto& module = linearization.clean.attn[static_cast<std::size_t>(l)];
    const auto& active = module.features;
    if (active.size() == 0) continue;
    const auto activation = active.activation.to(at::kDouble).contiguous();
    std::map<std::int64_t, double> sums;
    for (std::int64_t b = 0; b < linearization.batch(); ++b) {
      const auto row = b * linearization.length() + position.value;
      const auto unit =
          module.write_scale.defined() ? 1.0 / module.write_scale[b][position.value][0].template item<double>() : 1.0;
      for (auto i = active.begin(row); i < active.end(row); ++i) {
        sums[active.feature[static_cast<std::size_t>(i)]] += std::abs(data_of<double>(activation)[i]) * unit;
      }
    }
    for (const auto& [feature, sum] : sums) {
      const auto write = attn_writes(model, dictionaries, layer, detail::ids_tensor({feature}).to(model.device()));
      const auto length = write.norm().template item<double>();
      out.push_back({Node::attn_feature(layer, position, Feature{static_cast<std::int32_t>(feature)}),
                     sum / static_cast<double>(linearization.batch()) * length});
    }
  }
  return out;
}

}  // namespace circuit
