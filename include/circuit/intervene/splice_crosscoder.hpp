#pragma once

#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/crosscoder.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/intervene/module_values.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// One run as a crosscoder describes it: stream = decode(activations) + errors.
struct CrosscoderRun {
  at::Tensor activations{};  ///< [batch, pos, d_sae]
  at::Tensor errors{};       ///< [batch, pos, layers, d_model]
};

/// Encodes a recorded run: `describe_run(crosscoder, model.run(tokens, record_modules()).cache)`.
/// throws  NameError  for a layer that was not recorded
template <class Cache>
  requires(Cache::template holds<hook::resid_pre> && Cache::template holds<hook::resid_post>)
[[nodiscard]] CrosscoderRun describe_run(const Crosscoder& crosscoder, const Cache& cache) {
  std::vector<at::Tensor> streams;
  for (const auto layer : crosscoder.layers) streams.push_back(detail::recorded_stream(cache, layer));
  const auto x = make::stack(streams, -2);
  CrosscoderRun out{.activations = crosscoder.encode(x)};
  out.errors = x.sub(crosscoder.decode(out.activations));
  return out;
}

/// An attachment that puts streams of one's own in the place of those before some layers.
class PutStreams {
 public:
  /// streams  [batch, pos, layers, d_model]
  PutStreams(std::vector<Layer> layers, at::Tensor streams)
      : layers_{std::move(layers)}, streams_{std::move(streams)} {}

  template <class P>
    requires(std::same_as<P, hook::resid_pre> || std::same_as<P, hook::resid_post>)
  void visit(P point, Layer layer, at::Tensor& value) const {
    if (std::same_as<P, hook::resid_pre> && layer.value > 0) return;  // was put at the hook_resid_post before it
    const Layer behind{std::same_as<P, hook::resid_pre> ? 0 : layer.value + 1};
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (layers_[i] != behind) continue;
      const auto stream = streams_.select(-2, static_cast<std::int64_t>(i));
      check_shape(stream, shape_of(value), hook_name(point, layer), {}, "the activations are of another run");
      value = stream;
    }
  }

 private:
  std::vector<Layer> layers_;
  at::Tensor streams_;
};

/// Runs the model with a crosscoder's features and errors in the place of the streams that it describes. Its features
/// read layers that come after some that they write into, so their activations are given: a recorded run's
/// (`describe_run`), edited as one likes. Differentiable in them.
/// activations  [batch, pos, d_sae]   errors  [batch, pos, layers, d_model], or undefined: none
[[nodiscard]] inline PutStreams splice_crosscoder(const Crosscoder& crosscoder, const at::Tensor& activations,
                                                  const at::Tensor& errors = {}) {
  check_shape(activations, {-1, -1, crosscoder.d_sae()}, "activations", crosscoder.name);
  const auto streams = crosscoder.decode(activations);
  if (errors.defined()) check_shape(errors, shape_of(streams), "errors", crosscoder.name);
  return {crosscoder.layers, errors.defined() ? streams.add(errors) : streams};
}

}  // namespace circuit
