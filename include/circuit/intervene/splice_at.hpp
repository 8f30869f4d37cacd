#pragma once

#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/sparse_dictionary.hpp"
#include "circuit/model/edit.hpp"

namespace circuit {

/// Whether what a dictionary misses stays beside its reconstruction.
enum class StreamError {
  kept,     ///< values stay the model's own; gradients pass through the dictionary alone
  dropped,  ///< the stream is the reconstruction
};

/// Puts an SAE of the residual stream in its place: from this point on, features and error are the stream (sparse feature
/// circuits: Marks et al. 2024). `model.run(tokens, splice_at<hook::resid_pre>(Layer{3}, sae))`
/// P       a point whose values are [batch, pos, d_in]
/// throws  ShapeError  when the dictionary does not read or does not write such values
template <HookPoint P, SparseActivation A>
[[nodiscard]] auto splice_at(Layer layer, SparseDictionary<A> sae, StreamError error = StreamError::kept) {
  sae.check();
  check_shape(sae.W_dec, {sae.d_sae(), sae.d_in()}, "W_dec", sae.name, "an SAE describes what it reads");
  return edit<P>(
      [sae = std::move(sae), error](const at::Tensor& value, Layer /*layer*/) {
        auto described = sae.reconstruct(value);
        return error == StreamError::dropped ? described : described.add(value.sub(described).detach());
      },
      {.layers = {layer}});
}

}  // namespace circuit
