#pragma once

#include <utility>
#include <vector>

#include "circuit/search/leap.hpp"

/// Types that satisfy each concept and nothing more: a search that runs on them asks for no more.
namespace archetype {

struct Keep {
  circuit::EdgeMask keep(const circuit::EdgeScores& scores) const { return {scores.mean.abs().gt(0.02)}; }
  bool passes(double score) const { return score != 0; }
};

struct Chain {
  static constexpr bool from_edges = true;
};

struct Contrast {
  static constexpr bool needs_corrupt = false;
  double activation(double clean, double /*corrupt*/) const { return clean; }
};

struct Batching {
  circuit::Linearization prepare(circuit::Linearization linearization) const { return linearization; }
};

struct Score {
  double score(double nn_attrib, const circuit::TargetState& target) const { return nn_attrib * target.slope; }
};

struct Targets {
  void add(circuit::TargetSet&, circuit::NodeKind, circuit::Layer, const circuit::ActiveFeatures&, std::int64_t) const {
  }
  void reached(circuit::TargetSet& set, const circuit::Node& node) const { set.insert(node); }
};

struct Softmax {
  at::Tensor pull_back(const at::Tensor& pattern, const at::Tensor& grad) const { return pattern.mul(grad); }
};

struct FinalNorm {
  struct Attachment {};
};

struct Observer {
  void operator()(const circuit::LayerDone& event) { seen.push_back(event.layer); }
  std::vector<circuit::Layer> seen;
};

struct Metric {
  at::Tensor per_prompt(const at::Tensor& logits) const { return logits.select(1, -1).select(1, 3); }
};

/// A set with only the look-ups that a search makes, here of a real one.
class Dictionaries {
 public:
  explicit Dictionaries(circuit::DictionarySet set) : set_{std::move(set)} {}
  const circuit::DictionaryWeights* attn(circuit::Layer layer) const { return set_.attn(layer); }
  const circuit::DictionaryWeights* mlp(circuit::Layer layer) const { return set_.mlp(layer); }
  circuit::AttentionSite attn_site(circuit::Layer layer) const { return set_.attn_site(layer); }
  circuit::ActiveFeatures active_attn(circuit::Layer layer, const at::Tensor& x) const {
    return set_.active_attn(layer, x);
  }
  circuit::ActiveFeatures active_mlp(circuit::Layer layer, const at::Tensor& x) const {
    return set_.active_mlp(layer, x);
  }
  void check(const circuit::ModelConfig&, const circuit::weights::Processing&, at::ScalarType) const {}

 private:
  circuit::DictionarySet set_;
};

}  // namespace archetype
