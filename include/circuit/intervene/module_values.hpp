#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/hook/points.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/intervene/feature.hpp"
#include "circuit/model/record.hpp"

namespace circuit {

/// A recording of what dictionaries read and describe, from which other runs' errors and activations are made. Any
/// cache that holds these points will do.
template <class Cache>
concept ModuleCache = Cache::template holds<hook::attn::z> && Cache::template holds<hook::attn_out> &&
                      Cache::template holds<hook::ln2::normalized> && Cache::template holds<hook::mlp_out>;

/// An attachment that records exactly that: `model.run(tokens, record_modules()).cache`.
[[nodiscard]] inline auto record_modules(InLayers in = {}) {
  return record<hook::attn::z, hook::attn_out, hook::ln2::normalized, hook::resid_mid, hook::mlp_out, hook::resid_pre,
                hook::resid_post>(std::move(in));
}

namespace detail {

/// What the dictionary of an MLP read in a recorded run.
template <ModuleCache Cache>
[[nodiscard]] at::Tensor mlp_dictionary_input(const Cache& cache, MlpSite site, Layer layer) {
  if (site == MlpSite::normalized) return cache.template get<hook::ln2::normalized>(layer);
  if (site == MlpSite::mlp_out) return cache.template get<hook::mlp_out>(layer);
  if constexpr (Cache::template holds<hook::resid_mid>) {
    return cache.template get<hook::resid_mid>(layer);
  } else {
    throw NameError{{.tensor = hook_name(hook::resid_mid{}, layer), .problem = "was not recorded"}};
  }
}

/// The residual stream before a layer in a recorded run.
template <class Cache>
[[nodiscard]] at::Tensor recorded_stream(const Cache& cache, Layer layer) {
  if constexpr (Cache::template holds<hook::resid_pre> && Cache::template holds<hook::resid_post>) {
    if (layer == Layer{0}) return cache.template get<hook::resid_pre>(layer);
    return cache.template get<hook::resid_post>(Layer{layer.value - 1});
  } else {
    throw NameError{{.tensor = hook_name(hook::resid_pre{}, layer), .problem = "was not recorded"}};
  }
}

}  // namespace detail

/// Calls `use(module, layer, input, output)` for every recorded module that has a dictionary.
/// input  [batch, pos, d_in]   output  [batch, pos, d_out]
template <ModuleCache Cache, class Set, class Use>
void for_each_module(const Set& dictionaries, const Cache& cache, Use&& use) {
  AtModules at_modules{dictionaries};
  cache.for_each([&]<class P>(P point, Layer layer, const at::Tensor& recorded) {
    const auto show = [&](auto shown, at::Tensor value) {
      at_modules.visit(shown, layer, value,
                       [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
                         use(module, l, input, output);
                         return at::Tensor{};
                       });
    };
    if constexpr (std::same_as<P, hook::attn::z> || std::same_as<P, hook::attn_out> ||
                  std::same_as<P, hook::resid_pre> || std::same_as<P, hook::resid_post>) {
      show(point, recorded);
    } else if constexpr (std::same_as<P, hook::mlp_out>) {
      // A cache goes point by point, a forward pass layer by layer.
      if (dictionaries.mlp(layer) == nullptr) return;
      const auto site = mlp_site(dictionaries, layer);
      const auto input = detail::mlp_dictionary_input(cache, site, layer);
      if (site == MlpSite::normalized) show(hook::ln2::normalized{}, input);
      if (site == MlpSite::resid_mid) show(hook::resid_mid{}, input);
      show(hook::mlp_out{}, recorded);
    }
  });
}

/// What a module's dictionary read in a recorded run, [batch, pos, d_in].
/// throws  NameError  when it was not recorded
template <ModuleCache Cache, class Set>
[[nodiscard]] at::Tensor input_of(const Set& dictionaries, const Cache& cache, Module module, Layer layer) {
  if (module == Module::stream) return detail::recorded_stream(cache, layer);
  if (module == Module::mlp) return detail::mlp_dictionary_input(cache, mlp_site(dictionaries, layer), layer);
  if (dictionaries.attn_site(layer) == AttentionSite::attn_out) return cache.template get<hook::attn_out>(layer);
  return cache.template get<hook::attn::z>(layer).flatten(2);
}

/// What dictionaries missed in one run: what a module computed minus what its dictionary made of it.
class ErrorTerms {
 public:
  void put(Module module, Layer layer, at::Tensor error) {
    auto& errors = by_module_[static_cast<std::size_t>(module)];
    const auto slot = static_cast<std::size_t>(layer.value);
    if (slot >= errors.size()) errors.resize(slot + 1);
    errors[slot] = std::move(error);
  }

  /// return  [batch, pos, d_out]
  /// throws  NameError  when there is none of that module and layer
  [[nodiscard]] const at::Tensor& get(Module module, Layer layer) const {
    const auto& errors = by_module_[static_cast<std::size_t>(module)];
    const auto slot = static_cast<std::size_t>(layer.value);
    if (layer.value < 0 || slot >= errors.size() || !errors[slot].defined()) {
      throw NameError{{.tensor = "error of " + std::string{name(module)} + '.' + std::to_string(layer.value),
                       .problem = "was not recorded"}};
    }
    return errors[slot];
  }

 private:
  std::array<std::vector<at::Tensor>, 3> by_module_;
};

template <ModuleCache Cache, EncodesDensely Set>
[[nodiscard]] ErrorTerms error_terms(const Set& dictionaries, const Cache& cache) {
  const c10::AutoGradMode no_gradient{false};
  ErrorTerms errors;
  LaterWrites later;
  for_each_module(dictionaries, cache,
                  [&](Module module, Layer layer, const at::Tensor& input, const at::Tensor& output) {
                    errors.put(module, layer, output.sub(reconstruct(dictionaries, module, layer, input, later)));
                  });
  return errors;
}

}  // namespace circuit
