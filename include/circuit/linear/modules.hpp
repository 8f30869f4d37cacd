#pragma once

#include <concepts>

#include "circuit/linear/dictionaries.hpp"

namespace circuit {

/// What a module (attention or MLP of a layer) is to a search.
enum class Role {
  read,         ///< its dictionary's features and error are nodes; without a dictionary it is opaque
  opaque,       ///< its whole output is one node that nothing is upstream of
  transparent,  ///< no node: gradients pass on through it, its pattern and scale held. Attention only
};

/// Which role each module has.
template <class M>
concept ModuleRule = requires(const M& m, Layer layer) {
  { m.attention(layer) } -> std::same_as<Role>;
  { m.mlp(layer) } -> std::same_as<Role>;
};

namespace modules {

/// Everything is read that has a dictionary.
struct ReadElseOpaque {
  [[nodiscard]] Role attention(Layer /*layer*/) const { return Role::read; }
  [[nodiscard]] Role mlp(Layer /*layer*/) const { return Role::read; }
};

/// Only MLPs are read; attention moves gradients between positions (attribution graphs: Ameisen et al. 2025).
struct TransparentAttention {
  [[nodiscard]] Role attention(Layer /*layer*/) const { return Role::transparent; }
  [[nodiscard]] Role mlp(Layer /*layer*/) const { return Role::read; }
};

}  // namespace modules

/// A set of dictionaries as a rule has it: those of modules that are not read are not there.
template <Dictionaries Set, ModuleRule Rule>
class DictionariesByRole {
 public:
  static constexpr bool exact = describes_exactly<Set>;
  static constexpr bool own_units = describes_own_units<Set>;

  /// Both are referred to.
  DictionariesByRole(const Set& set, const Rule& rule) : set_{&set}, rule_{&rule} {}

  [[nodiscard]] const DictionaryWeights* attn(Layer layer) const {
    return rule_->attention(layer) == Role::read ? set_->attn(layer) : nullptr;
  }
  [[nodiscard]] const DictionaryWeights* mlp(Layer layer) const {
    return rule_->mlp(layer) == Role::read ? set_->mlp(layer) : nullptr;
  }
  [[nodiscard]] const DictionaryWeights* stream(Layer layer) const { return stream_dictionary(*set_, layer); }
  [[nodiscard]] const Crosscoder* crosscoder(Layer layer) const { return crosscoder_of(*set_, layer); }
  [[nodiscard]] ActiveFeatures active_stream(Layer layer, const at::Tensor& x) const
    requires DescribesStream<Set>
  {
    return set_->active_stream(layer, x);
  }
  [[nodiscard]] AttentionSite attn_site(Layer layer) const { return set_->attn_site(layer); }
  [[nodiscard]] MlpSite mlp_site(Layer layer) const { return circuit::mlp_site(*set_, layer); }
  [[nodiscard]] ActiveFeatures active_attn(Layer layer, const at::Tensor& x) const {
    return set_->active_attn(layer, x);
  }
  [[nodiscard]] ActiveFeatures active_mlp(Layer layer, const at::Tensor& x) const { return set_->active_mlp(layer, x); }
  [[nodiscard]] InputReaders mlp_readers(Layer layer, const at::Tensor& x, const at::Tensor& features) const
    requires ReadsAtInput<Set>
  {
    return set_->mlp_readers(layer, x, features);
  }
  [[nodiscard]] bool transparent_attention(Layer layer) const { return rule_->attention(layer) == Role::transparent; }

  /// throws  ConfigError  also for an MLP that is to be transparent: it is not linear
  void check(const ModelConfig& config, const weights::Processing& processing, at::ScalarType dtype) const {
    set_->check(config, processing, dtype);
    for (std::int32_t l = 0; l < config.n_layers; ++l) {
      if (rule_->mlp(Layer{l}) != Role::transparent) continue;
      throw ConfigError{{.tensor = "MLP of layer " + std::to_string(l),
                         .problem = "cannot be transparent: it is not linear at a frozen scale",
                         .expected = "Role::read or Role::opaque"}};
    }
  }

 private:
  const Set* set_;
  const Rule* rule_;
};

/// Whether gradients pass through a layer's attention. A set that knows no roles has none that do.
template <Dictionaries Set>
[[nodiscard]] bool has_transparent_attention(const Set& set, Layer layer) {
  if constexpr (requires { set.transparent_attention(layer); }) {
    return set.transparent_attention(layer);
  } else {
    return false;
  }
}

}  // namespace circuit
