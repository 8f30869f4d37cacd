#pragma once

#include <map>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/keep_circuit.hpp"
#include "circuit/intervene/module_values.hpp"
#include "circuit/linear/dictionaries.hpp"

namespace circuit::detail {

/// Every activation of a module, zeros too, [batch, pos, features].
template <Dictionaries Set>
[[nodiscard]] at::Tensor dense_activations(const Set& set, Module module, Layer layer, const at::Tensor& x) {
  if constexpr (requires { encode(set, module, layer, x); }) {
    return encode(set, module, layer, x);
  } else {
    static_assert(describes_exactly<Set>, "a set that cannot encode densely must have every unit active");
    const auto active = module == Module::attn ? set.active_attn(layer, x) : set.active_mlp(layer, x);
    return active.activation.to(x.device()).view({x.size(0), x.size(1), -1});
  }
}

/// The same as multiples of decoder rows.
template <Dictionaries Set>
[[nodiscard]] at::Tensor dense_writes(const Set& set, Module module, Layer layer, const at::Tensor& x) {
  return dictionary_of(set, module, layer)->in_writes(dense_activations(set, module, layer, x), x);
}

/// What a dictionary makes of its features alone, with the output bias unless that is the run's own.
/// writes  [..., features]  activations as multiples of decoder rows
[[nodiscard]] inline at::Tensor described_by(const DictionaryWeights& dictionary, const at::Tensor& writes) {
  return dictionary.input_norm.scales_output() ? writes.matmul(widened(dictionary.W_dec)) : dictionary.decode(writes);
}

/// `out` with what a dictionary writes that is no node's doing and the run's own: its skip path, and scale and mean of
/// its normalisation. Times `sign`.
[[nodiscard]] inline at::Tensor with_own(at::Tensor out, const DictionaryWeights& dictionary, const at::Tensor& input,
                                         double sign = 1.0) {
  if (dictionary.has_skip()) out = out.add(dictionary.skip(input), sign);
  const auto scaled = scaled_constant(dictionary, input);
  return scaled.defined() ? out.add(scaled, sign) : out;
}

/// One module's values where no node is kept, and what its error adds.
struct MaskPlace {
  at::Tensor activations{};  ///< [batch or 1, pos, features]  as multiples of decoder rows
  at::Tensor described{};    ///< [batch or 1, pos, d_out]  what the dictionary makes of them; of an exact one, all
  at::Tensor rest{};         ///< [batch or 1, pos, d_out]  output less that; undefined where there is none
  at::Tensor rest_change{};  ///< [batch, pos, d_out]  the clean run's less the reference's
};

using MaskPlaces = std::map<std::pair<Module, Layer>, MaskPlace>;

/// What the modules hold where no node is kept.
template <class Set, ModuleCache Cache>
[[nodiscard]] MaskPlaces mask_places(const Set& set, const Cache& clean, const Cache& reference, Outside outside) {
  const auto baseline = [&](const at::Tensor& x) {
    return outside == Outside::reference ? x : x.mean(0, /*keepdim=*/true);
  };
  MaskPlaces places;
  const auto described = [&](Module module, Layer l, const at::Tensor& acts, const at::Tensor& output) {
    if constexpr (describes_exactly<Set>) return output;
    return described_by(*dictionary_of(set, module, l), acts);
  };
  const auto missed = [&](Module module, Layer l, const at::Tensor& own, const at::Tensor& input,
                          const at::Tensor& output) {
    return with_own(output.sub(own), *dictionary_of(set, module, l), input, -1.0);
  };
  for_each_module(set, reference, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
    const auto acts = dense_writes(set, module, l, input);
    const auto own = described(module, l, acts, output);
    MaskPlace here{.activations = baseline(acts), .described = baseline(own)};
    if constexpr (!describes_exactly<Set>) here.rest = baseline(missed(module, l, own, input, output));
    places.emplace(std::pair{module, l}, std::move(here));
  });
  if constexpr (!describes_exactly<Set>) {
    for_each_module(set, clean, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      auto& here = places.at({module, l});
      const auto own = described(module, l, dense_writes(set, module, l, input), output);
      here.rest_change = missed(module, l, own, input, output).sub(here.rest);
    });
  }
  return places;
}

}  // namespace circuit::detail
