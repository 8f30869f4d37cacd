#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/linear/linearization.hpp"

namespace circuit {

/// What becomes of a batch before its products are formed.
template <class B>
concept BatchRule = requires(const B& b, Linearization linearization) {
  { b.prepare(std::move(linearization)) } -> std::same_as<Linearization>;
};

namespace batching {

/// Every prompt keeps its own gradients, scales, patterns and activations; attributions are averaged afterwards.
struct Exact {
  [[nodiscard]] Linearization prepare(Linearization linearization) const { return linearization; }
};

/// Averages activations, scales, patterns and gradients first, and searches the mean prompt (the seed's choice): cheaper,
/// and wrong by their covariance.
struct MeanFirst {
  [[nodiscard]] Linearization prepare(Linearization linearization) const;
};

}  // namespace batching
}  // namespace circuit

namespace circuit::detail {

[[nodiscard]] inline at::Tensor mean_prompt(const at::Tensor& x) {
  return x.defined() ? x.mean(0, /*keepdim=*/true) : x;
}

/// The union over prompts of the features active at each position, with activation and slope averaged over all prompts.
/// The slope of a feature that is active anywhere is the mean over the prompts where it is active.
[[nodiscard]] inline ActiveFeatures mean_features(const ActiveFeatures& active, std::int64_t batch,
                                                  std::int64_t length) {
  if (active.size() == 0) {
    ActiveFeatures none;
    none.row_begin.assign(static_cast<std::size_t>(length) + 1, 0);
    none.activation = active.activation;
    none.slope = active.slope;
    return none;
  }
  const auto acts = active.activation.to(at::kDouble).contiguous();
  const auto slopes = active.slope.to(at::kDouble).contiguous();
  ActiveFeatures out;
  std::vector<double> mean_acts;
  std::vector<double> mean_slopes;
  std::vector<std::pair<std::int64_t, std::int64_t>> here;  // feature, and its entry
  for (std::int64_t p = 0; p < length; ++p) {
    here.clear();
    for (std::int64_t b = 0; b < batch; ++b) {
      for (auto i = active.begin(b * length + p); i < active.end(b * length + p); ++i) {
        here.emplace_back(active.feature[static_cast<std::size_t>(i)], i);
      }
    }
    std::sort(here.begin(), here.end());
    for (std::size_t first = 0, last = 0; first < here.size(); first = last) {
      double act = 0;
      double slope = 0;
      for (; last < here.size() && here[last].first == here[first].first; ++last) {
        act += data_of<double>(acts)[here[last].second];
        slope += data_of<double>(slopes)[here[last].second];
      }
      out.feature.push_back(here[first].first);
      mean_acts.push_back(act / static_cast<double>(batch));
      mean_slopes.push_back(slope / static_cast<double>(last - first));
    }
    out.row_begin.push_back(static_cast<std::int64_t>(out.feature.size()));
  }
  const auto tensor = [&](std::vector<double>& values) {
    return at::from_blob(values.data(), {static_cast<std::int64_t>(values.size())}, at::kDouble)
        .to(active.activation.scalar_type(), /*non_blocking=*/false, /*copy=*/true);
  };
  out.activation = tensor(mean_acts);
  out.slope = tensor(mean_slopes);
  return out;
}

[[nodiscard]] inline DescribedRun mean_described(const DescribedRun& run, std::int64_t batch, std::int64_t length) {
  DescribedRun out{
      .embed = mean_prompt(run.embed), .pos_embed = mean_prompt(run.pos_embed), .attn = {}, .mlp = {}, .stream = {}};
  const auto mean_module = [&](const ModuleState& m) -> ModuleState {
    const bool by_prompt = m.constant.defined() && m.constant.dim() > 1;
    const auto& [divisor, factor, shift] = m.input_norm;
    // The scale holds 1 / factor, and a gradient is multiplied by both: their product is what is averaged.
    const auto scale = factor.defined() && m.write_scale.defined()
                           ? mean_prompt(m.write_scale.mul(factor)).div(mean_prompt(factor))
                           : mean_prompt(m.write_scale);
    return {mean_features(m.features, batch, length),
            mean_prompt(m.rest),
            by_prompt ? mean_prompt(m.constant) : m.constant,
            scale,
            {mean_prompt(divisor), mean_prompt(factor), mean_prompt(shift)}};
  };
  for (const auto& m : run.attn) out.attn.push_back(mean_module(m));
  for (const auto& m : run.mlp) out.mlp.push_back(mean_module(m));
  for (const auto& m : run.stream) {
    out.stream.push_back(m.features.rows() > 0 ? mean_module(m) : ModuleState{});  // where no dictionary is
  }
  return out;
}

}  // namespace circuit::detail

namespace circuit {

// NOLINTNEXTLINE(performance-unnecessary-value-param): other policies return it
inline Linearization batching::MeanFirst::prepare(Linearization lin) const {
  const c10::AutoGradMode no_gradient{false};
  const auto batch = lin.batch();
  const auto length = lin.length();
  Linearization out;
  lin.run.for_each([&]<class P>(P, Layer layer, const at::Tensor& value) {
    out.run.template put<P>(layer, detail::mean_prompt(value));
  });
  out.clean = detail::mean_described(lin.clean, batch, length);
  if (lin.has_contrast()) out.corrupt = detail::mean_described(lin.corrupt, batch, length);
  for (const auto& change : lin.map_change) out.map_change.push_back(detail::mean_prompt(change));
  out.metric = detail::mean_prompt(lin.metric);
  out.metric_constant = detail::mean_prompt(lin.metric_constant);
  out.gradients.embed = detail::mean_prompt(lin.gradients.embed);
  out.gradients.last = detail::mean_prompt(lin.gradients.last);
  for (const auto& g : lin.gradients.attn_out) out.gradients.attn_out.push_back(detail::mean_prompt(g));
  for (const auto& g : lin.gradients.mlp_out) out.gradients.mlp_out.push_back(detail::mean_prompt(g));
  for (const auto& g : lin.gradients.stream) out.gradients.stream.push_back(detail::mean_prompt(g));
  return out;
}

}  // namespace circuit
