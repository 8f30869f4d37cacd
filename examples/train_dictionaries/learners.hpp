#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/dictionary/train/cross_layer_trainer.hpp"
#include "circuit/dictionary/train/trainer.hpp"
#include "options.hpp"

/// Several dictionaries in training at once: each by itself, or as one cross-layer transcoder.
namespace train_dictionaries {

using Sites = std::vector<circuit::DictionaryHooks>;
using Batch = std::vector<circuit::train::TokenBatch>;

[[nodiscard]] inline circuit::train::Target target_of(const Options& o, const circuit::DictionaryHooks& site) {
  using circuit::train::Target;
  if (circuit::train::is_sae(site)) return Target::same;
  return o.skip_path ? Target::other_with_skip : Target::other;
}

/// Either kind of products by a flag: a choice that costs no second instantiation of a trainer.
struct ChosenProducts {
  bool bfloat16 = false;

  [[nodiscard]] at::Tensor product(const at::Tensor& a, const at::Tensor& b) const {
    return bfloat16 ? circuit::train::products::Bfloat16{}.product(a, b)
                    : circuit::train::products::Full{}.product(a, b);
  }
  void write(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const {
    bfloat16 ? circuit::train::products::Bfloat16{}.write(out, a, b)
             : circuit::train::products::Full{}.write(out, a, b);
  }
  void add(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) const {
    bfloat16 ? circuit::train::products::Bfloat16{}.add(out, a, b) : circuit::train::products::Full{}.add(out, a, b);
  }
};

template <circuit::train::TrainableActivation A, circuit::train::DeadRule Dead>
struct EachAlone {
  using Trainer = circuit::train::Trainer<A, Dead, ChosenProducts>;
  std::vector<Trainer> trainers{};
  std::vector<std::string> names{};  ///< of the reports

  EachAlone(const Options& o, const Sites& sites, const Batch& sample, const A& activation, const Dead& dead) {
    for (std::size_t i = 0; i < sites.size(); ++i) {
      trainers.emplace_back(sample[i].x, sample[i].y, target_of(o, sites[i]), o.training, activation, dead,
                            ChosenProducts{o.bfloat16});
      names.push_back(sites[i].out);
    }
  }

  [[nodiscard]] std::vector<circuit::train::StepReport> step(const Batch& batch) {
    std::vector<circuit::train::StepReport> reports;
    for (std::size_t i = 0; i < trainers.size(); ++i) reports.push_back(trainers[i].step(batch[i].x, batch[i].y));
    return reports;
  }
  [[nodiscard]] std::vector<circuit::SparseDictionary<>> finish() const {
    std::vector<circuit::SparseDictionary<>> out;
    for (std::size_t i = 0; i < trainers.size(); ++i) out.push_back(trainers[i].finish(names[i]));
    return out;
  }
};

template <circuit::train::TrainableActivation A, circuit::train::DeadRule Dead>
struct AcrossLayers {
  using Trainer = circuit::train::CrossLayerTrainer<A, Dead, ChosenProducts>;
  std::vector<Trainer> trainers{};  ///< one
  std::vector<std::string> names{"all layers"};

  AcrossLayers(const Options& o, const Sites& sites, const Batch& sample, const A& activation, const Dead& dead) {
    trainers.emplace_back(sample, target_of(o, sites.front()), o.training, activation, dead,
                          ChosenProducts{o.bfloat16});
  }

  [[nodiscard]] std::vector<circuit::train::StepReport> step(const Batch& batch) {
    return {trainers.front().step(batch)};
  }
  [[nodiscard]] std::vector<circuit::SparseDictionary<>> finish() const { return trainers.front().finish(); }
};

}  // namespace train_dictionaries
