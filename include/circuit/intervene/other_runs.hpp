#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/random.hpp"
#include "circuit/model/edit.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// Over what a data set's activations are averaged.
enum class MeanOver : std::uint8_t {
  prompts,    ///< for each position, so all prompts have one length: [1, pos, ...]
  positions,  ///< prompts and positions together, of any lengths: [1, 1, ...]
};

/// Mean activations at Points over a data set, to be put in the place of others by `with::Run`.
/// batches  tokens [batch, pos] each, without filling
/// throws   ValueError  for no batches;  ShapeError for lengths that differ, where the mean is for each position
template <HookPoint... Points, Architecture A>
[[nodiscard]] ActivationCache<Points...> mean_activations(const HookedTransformer<A>& model,
                                                          std::span<const at::Tensor> batches,
                                                          MeanOver over = MeanOver::prompts) {
  static_assert(((detail::axis_index<axis::Pos>(typename Points::axes{}) == 1) && ...),
                "a point whose positions are its second axis");
  if (batches.empty()) throw ValueError{{.tensor = "batches", .expected = "at least one", .got = "none"}};
  ActivationCache<Points...> sums;
  std::int64_t count = 0;
  for (const auto& tokens : batches) {
    const auto cache = model.run(tokens, record<Points...>()).cache;
    count += over == MeanOver::prompts ? tokens.size(0) : tokens.numel();
    cache.for_each([&]<class P>(P point, Layer layer, const at::Tensor& value) {
      auto sum = value.to(at::kDouble).sum(0, /*keepdim=*/true);
      if (over == MeanOver::positions) sum = sum.sum(1, /*keepdim=*/true);
      if (&tokens != batches.data()) {
        const auto& earlier = sums.template get<P>(layer);
        check_shape(sum, shape_of(earlier), hook_name(point, layer), {}, "a mean for each position needs one length");
        sum = sum.add(earlier);
      }
      sums.template put<P>(layer, sum);
    });
  }
  ActivationCache<Points...> means;
  sums.for_each([&]<class P>(P, Layer layer, const at::Tensor& sum) {
    means.template put<P>(layer, sum.div(count).to(model.dtype()));
  });
  return means;
}

/// Some prompts' activations of a recorded run, in the order given; a prompt may be there more than once.
/// throws  ValueError for none, IndexError for one that is not there
template <HookPoint... Points>
[[nodiscard]] ActivationCache<Points...> pick_prompts(const ActivationCache<Points...>& cache,
                                                      const std::vector<Prompt>& prompts) {
  if (prompts.empty()) throw ValueError{{.tensor = "prompts", .expected = "at least one", .got = "none"}};
  ActivationCache<Points...> picked;
  cache.for_each([&]<class P>(P, Layer layer, const at::Tensor& value) {
    picked.template put<P>(layer, value.index_select(0, detail::index_tensor(prompts, value.size(0), value)));
  });
  return picked;
}

/// Prompts drawn with replacement from `available` ones, for resample ablation.
/// throws  ValueError  when there are none to draw from
[[nodiscard]] inline std::vector<Prompt> draw_prompts(std::size_t count, std::size_t available, data::Random& random) {
  std::vector<Prompt> drawn;
  for (std::size_t i = 0; i < count; ++i) drawn.emplace_back(static_cast<std::int32_t>(random.below(available)));
  return drawn;
}

}  // namespace circuit
