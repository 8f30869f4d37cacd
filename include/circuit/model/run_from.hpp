#pragma once

#include <cstdint>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/model/hooked_transformer.hpp"

namespace circuit {

/// The rest of a run, from the residual stream before block `layer` on (n_layers: the unembedding alone). An
/// intervention in a layer changes nothing below it, so many of them share what lies there; attachments see the rest
/// alone. resid   [batch, pos, d_model], as a run recorded it at `hook::resid_pre` throws  IndexError, ShapeError
template <Architecture A, class... Attached>
[[nodiscard]] auto run_from(const HookedTransformer<A>& model, Layer layer, at::Tensor resid, Attached&&... attached) {
  const auto& config = model.config();
  check_index(layer, config.n_layers + 1);
  check_shape(resid, {-1, -1, config.d_model}, "residual stream");
  const c10::AutoGradMode no_gradient{false};
  resid = model.blocks(std::move(resid), layer, Layer{static_cast<std::int32_t>(config.n_layers)}, attached...);
  auto logits = soft_cap(model.unembed(resid, attached...), config.logit_soft_cap);
  auto cache = detail::take_cache(attached...);
  return RunResult<decltype(cache)>{std::move(logits), std::move(cache)};
}

}  // namespace circuit
