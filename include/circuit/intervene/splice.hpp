#pragma once

#include <concepts>
#include <string>
#include <utility>

#include "circuit/core/tensor.hpp"
#include "circuit/intervene/at_modules.hpp"
#include "circuit/intervene/feature.hpp"
#include "circuit/intervene/module_values.hpp"

namespace circuit {

/// What stands beside a dictionary's reconstruction in the replacement model.
template <class E>
concept ErrorPolicy =
    requires(const E& e, Module module, Layer layer, const at::Tensor& reconstruction, const at::Tensor& output) {
      { e.complete(module, layer, reconstruction, output) } -> std::same_as<at::Tensor>;
    };

namespace error {

/// The error of the run at hand: values stay the model's own, gradients pass through the dictionaries alone.
struct Recomputed {
  [[nodiscard]] at::Tensor complete(Module /*module*/, Layer /*layer*/, const at::Tensor& reconstruction,
                                    const at::Tensor& output) const {
    return reconstruction.add(output.sub(reconstruction).detach());
  }
};

/// The error of another run, usually the clean one: the meaning that a search's edges attribute.
struct Frozen {
  ErrorTerms errors;

  /// throws  NameError for a module that was not recorded, ShapeError for a run of another batch or length
  [[nodiscard]] at::Tensor complete(Module module, Layer layer, const at::Tensor& reconstruction,
                                    const at::Tensor& /*output*/) const {
    const auto& stored = errors.get(module, layer);
    check_shape(stored, shape_of(reconstruction),
                "error of " + std::string{name(module)} + '.' + std::to_string(layer.value), {},
                "errors are frozen at a run of the same batch and length");
    return reconstruction.add(stored);
  }
};

/// None: the model as the dictionaries alone see it.
struct Dropped {
  [[nodiscard]] at::Tensor complete(Module /*module*/, Layer /*layer*/, const at::Tensor& reconstruction,
                                    const at::Tensor& /*output*/) const {
    return reconstruction;
  }
};

}  // namespace error

/// An attachment that runs the replacement model: every module with a dictionary gives its reconstruction, completed by
/// the error policy.
template <class Set, ErrorPolicy Errors>
class Splice {
 public:
  static constexpr bool acts_at_modules = true;

  Splice(Set dictionaries, Errors errors) : modules_{std::move(dictionaries)}, errors_{std::move(errors)} {}

  template <ModulePoint P>
  void visit(P point, Layer layer, at::Tensor& value) {
    modules_.visit(point, layer, value, [&](Module module, Layer l, const at::Tensor& input, const at::Tensor& output) {
      return errors_.complete(module, l, reconstruct(modules_.dictionaries(), module, l, input, later_), output);
    });
  }

 private:
  AtModules<Set> modules_;
  LaterWrites later_;
  [[no_unique_address]] Errors errors_;
};

/// `model.run(tokens, splice(dictionaries, error::Dropped{}))`: logits of the replacement model.
template <class... Kinds, ErrorPolicy Errors = error::Recomputed>
[[nodiscard]] Splice<BasicDictionarySet<Kinds...>, Errors> splice(const BasicDictionarySet<Kinds...>& dictionaries,
                                                                  Errors errors = {}) {
  return {dictionaries, std::move(errors)};
}

}  // namespace circuit
