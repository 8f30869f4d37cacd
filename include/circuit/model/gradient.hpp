#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/model/record.hpp"

namespace torch::autograd {

// As <torch/csrc/autograd/autograd.h> declares it in both generations of LibTorch, whose optionals differ. That header
// would cost every user two seconds and 240 MB for this one line.
TORCH_API std::vector<at::Tensor> grad(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                                       const std::vector<at::Tensor>& grad_outputs,
                                       decltype(at::TensorOptions{}.requires_grad_opt()) retain_graph,
                                       bool create_graph, bool allow_unused);

}  // namespace torch::autograd

namespace circuit {

/// d output / d inputs for a scalar `output`; inputs it does not depend on get zeros. Writes no `.grad`.
/// throws  ValueError  when `output` has no gradient at all, as an accuracy
[[nodiscard]] inline std::vector<at::Tensor> gradient_of(const at::Tensor& output,
                                                         const std::vector<at::Tensor>& inputs,
                                                         bool keep_graph = false) {
  if (!output.requires_grad()) {
    throw ValueError{
        {.tensor = "metric", .problem = "has no gradient", .hint = "this search needs a metric that has one"}};
  }
  auto grads = torch::autograd::grad({output}, inputs, /*grad_outputs=*/{}, keep_graph, /*create_graph=*/false,
                                     /*allow_unused=*/true);
  for (std::size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) grads[i] = inputs[i].detach().mul(0.0);
  }
  return grads;
}

/// An attachment that makes the token embedding a leaf of the gradient graph, so that every later activation has a
/// gradient although no weight asks for one. Without gradient mode it leaves no trace.
struct LeafAtEmbedding {
  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) const {
    value = value.detach().requires_grad_(c10::GradMode::is_enabled());
  }
};

/// An attachment that holds the final norm's scale fixed in the gradient.
struct FrozenFinalScale {
  void visit(hook::ln_final::scale /*point*/, Layer /*layer*/, at::Tensor& value) const { value = value.detach(); }
};

/// Replaces every tensor of a cache by the gradient of a scalar with respect to it.
template <HookPoint... Points>
[[nodiscard]] ActivationCache<Points...> gradients_at(const at::Tensor& output,
                                                      const ActivationCache<Points...>& cache) {
  std::vector<at::Tensor> inputs;
  cache.for_each([&](auto, Layer, const at::Tensor& value) { inputs.push_back(value); });
  const auto grads = gradient_of(output, inputs);
  ActivationCache<Points...> result;
  std::size_t next = 0;
  cache.for_each([&]<class P>(P, Layer layer, const at::Tensor&) { result.template put<P>(layer, grads[next++]); });
  return result;
}

}  // namespace circuit
