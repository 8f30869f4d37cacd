#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/metric/metric.hpp"
#include "circuit/model/components.hpp"
#include "circuit/model/gradient.hpp"

namespace circuit {

/// A tensor for what each receiver reads: per layer the heads' queries, keys and values [batch, pos, head, d_model] and
/// the MLP [batch, pos, d_model]; then the logits.
struct ReceiverTensors {
  std::vector<at::Tensor> by_reader;

  /// Calls `use(receiver, rows)` for every tensor: the index of its first receiver, and a row [batch * pos * d_model]
  /// for each of its receivers.
  template <class Use>
  void for_each(Use&& use) const {
    std::int64_t receiver = 0;
    for (const auto& tensor : by_reader) {
      const auto rows = tensor.dim() == 4 ? tensor.permute({2, 0, 1, 3}).flatten(1) : tensor.flatten().unsqueeze(0);
      use(receiver, rows);
      receiver += rows.size(0);
    }
  }
};

/// An attachment that keeps what each receiver reads.
class ReceiverRecorder {
 public:
  explicit ReceiverRecorder(std::int64_t n_layers) : last_{static_cast<std::int32_t>(n_layers - 1)} {}

  void visit(hook::q_input /*point*/, Layer /*layer*/, at::Tensor& value) { read_.by_reader.push_back(value); }
  void visit(hook::k_input /*point*/, Layer /*layer*/, at::Tensor& value) { read_.by_reader.push_back(value); }
  void visit(hook::v_input /*point*/, Layer /*layer*/, at::Tensor& value) { read_.by_reader.push_back(value); }
  void visit(hook::mlp_in /*point*/, Layer /*layer*/, at::Tensor& value) { read_.by_reader.push_back(value); }
  void visit(hook::resid_post /*point*/, Layer layer, at::Tensor& value) {
    if (layer == last_) read_.by_reader.push_back(value);
  }

  [[nodiscard]] const ReceiverTensors& read() const { return read_; }

 private:
  Layer last_;
  ReceiverTensors read_;
};

/// An attachment that makes the first residual stream a leaf of the gradient graph; a given stream takes its place.
struct StartFrom {
  at::Tensor stream{};  ///< [batch, pos, d_model], or undefined: the run's own

  void visit(hook::resid_pre /*point*/, Layer layer, at::Tensor& value) const {
    if (layer == Layer{0}) value = (stream.defined() ? stream : value).detach().requires_grad_(true);
  }
};

/// Gradient of the metric's mean over prompts with respect to what each receiver reads, one true backward pass.
template <Architecture A, Metric M, class... Attached>
[[nodiscard]] ReceiverTensors receiver_gradients(const HookedTransformer<A>& model, const at::Tensor& tokens,
                                                 const M& metric, Attached... attached) {
  const c10::AutoGradMode gradient{true};
  const StartFrom leaf{};
  ReceiverRecorder recorder{model.config().n_layers};
  const auto value = mean(metric, model.forward(tokens, attached..., leaf, recorder));
  return {gradient_of(value, recorder.read().by_reader)};
}

/// Product of what every sender writes with what every receiver reads, summed over prompts, positions and dimensions.
/// writes [senders, batch, pos, d_model]   return [senders, receivers] float64 on the CPU, 0 where there is no edge
[[nodiscard]] inline at::Tensor edge_products(const Components& components, const at::Tensor& writes,
                                              const ReceiverTensors& reads) {
  const auto rows = writes.flatten(1);
  auto products = make::zeros({components.senders(), components.receivers()}, at::kDouble);
  reads.for_each([&](std::int64_t receiver, const at::Tensor& readers) {
    const auto before = components.before(receiver);
    products.narrow(0, 0, before)
        .narrow(1, receiver, readers.size(0))
        .copy_(rows.narrow(0, 0, before).matmul(readers.t()));
  });
  return products;
}

}  // namespace circuit
