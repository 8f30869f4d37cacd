#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/search/mask_run.hpp"
#include "circuit/search/module_nodes.hpp"
#include "circuit/search/node_attributions.hpp"

namespace circuit::detail {

/// Gates of all nodes: a tensor [pos, features + 1] for each module, errors last, and one of embeddings [pos, 1].
struct NodeGates {
  std::map<std::pair<Module, Layer>, at::Tensor> modules{};
  at::Tensor embedding{};

  /// One of the tensors, and the number of a node's gate in it.
  /// throws  NameError   for a node that is no feature, error or embedding of these modules
  /// throws  IndexError  for a position or feature that is not there
  [[nodiscard]] std::pair<at::Tensor*, std::int64_t> find(const Node& node) {
    const bool gated = is_feature(node.kind) || is_error(node.kind) || is_embedding(node.kind);
    if (gated) check_index(node.position, embedding.size(0));
    if (is_embedding(node.kind)) return {&embedding, node.position.value};
    const auto found = gated ? modules.find({module_of(node), node.layer}) : modules.end();
    if (found == modules.end()) {
      throw NameError{{.tensor = to_string(node),
                       .problem = "has no gate",
                       .expected = "a feature or error of a module with a dictionary, or an embedding"}};
    }
    auto& gates = found->second;
    const auto features = gates.size(1) - 1;
    if (is_feature(node.kind)) check_index(node.feature, features);
    return {&gates,
            node.position.value * gates.size(1) + (is_error(node.kind) ? features : std::int64_t{node.feature.value})};
  }
  /// Gates of these nodes, value by value.
  void put(std::span<const NodeAttribution> values) {
    std::map<at::Tensor*, std::pair<std::vector<std::int64_t>, std::vector<double>>> by_tensor;
    for (const auto& [node, value] : values) {
      const auto [tensor, number] = find(node);
      by_tensor[tensor].first.push_back(number);
      by_tensor[tensor].second.push_back(value);
    }
    for (auto& [tensor, entries] : by_tensor) {
      const auto& [numbers, of] = entries;
      auto host = make::empty({static_cast<std::int64_t>(of.size())}, at::kDouble);
      std::copy(of.begin(), of.end(), host.template data_ptr<double>());
      tensor->view(-1).index_copy_(0, ids_tensor(numbers).to(tensor->device()), host.to(tensor->options()));
    }
  }
  /// As many with `make` of each, of an order that is always the same.
  template <class Make>
  [[nodiscard]] NodeGates with(Make&& make) const {
    NodeGates out;
    for (const auto& [key, gates] : modules) out.modules[key] = make(gates);
    out.embedding = make(embedding);
    return out;
  }
  [[nodiscard]] std::vector<at::Tensor> all() const {
    std::vector<at::Tensor> out;
    for (const auto& [key, gates] : modules) out.push_back(gates);
    out.push_back(embedding);
    return out;
  }
};

/// An attachment that holds every node between its reference's value and its own, as its gate says.
template <class Set>
class GatedNodes {
 public:
  static constexpr bool acts_at_modules = true;

  using Places = typename AtStrength<Set>::Places;

  GatedNodes(const Set& set, const Places& places, const NodeGates& gates, at::Tensor unkept_embedding)
      : modules_{set}, places_{&places}, gates_{&gates}, unkept_embedding_{std::move(unkept_embedding)} {}

  void visit(hook::embed /*point*/, Layer /*layer*/, at::Tensor& value) const {
    value = unkept_embedding_.add(value.sub(unkept_embedding_).mul(gates_->embedding));
  }

  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    modules_.visit(point, layer, value,
                   [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& /*output*/) {
                     return gated(module, l, input);
                   });
  }

 private:
  [[nodiscard]] at::Tensor gated(Module module, Layer layer, const at::Tensor& input) const {
    const auto& here = places_->at({module, layer});
    const auto& gates = gates_->modules.at({module, layer});
    const auto features = gates.size(1) - 1;
    const auto& dictionary = *dictionary_of(modules_.dictionaries(), module, layer);
    const auto more = dense_writes(modules_.dictionaries(), module, layer, input).sub(here.activations);
    auto out = here.described.add(more.mul(gates.narrow(1, 0, features)).matmul(widened(dictionary.W_dec)));
    if (!here.rest.defined()) return out;
    out = with_own(std::move(out), dictionary, input);
    return out.add(here.rest).add(here.rest_change.mul(gates.narrow(1, features, 1)));
  }

  AtModules<Set> modules_;
  const Places* places_;
  const NodeGates* gates_;
  at::Tensor unkept_embedding_;
};

/// Zeros for every node there could be.
template <class Set>
[[nodiscard]] NodeGates no_gates(const Set& set, const typename AtStrength<Set>::Places& places,
                                 const at::Tensor& embedding) {
  NodeGates out;
  for (const auto& [key, place] : places) {
    const auto features = dictionary_of(set, key.first, key.second)->d_sae();
    out.modules[key] = make::zeros({embedding.size(1), features + 1}, embedding.options());
  }
  out.embedding = make::zeros({embedding.size(1), 1}, embedding.options());
  return out;
}

}  // namespace circuit::detail
