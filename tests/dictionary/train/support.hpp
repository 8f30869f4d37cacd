#pragma once

#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/activation/batch_top_k.hpp"
#include "circuit/dictionary/train/activation/jump_relu.hpp"
#include "circuit/dictionary/train/activation/relu.hpp"
#include "circuit/dictionary/train/activation/top_k.hpp"
#include "circuit/dictionary/train/trainer.hpp"
#include "random_model.hpp"

/// Sizes of the trainers whose gradients autograd checks.
namespace training::small {

inline constexpr std::int64_t tokens = 40;
inline constexpr std::int64_t d_in = 6;
inline constexpr std::int64_t d_out = 5;
inline constexpr std::int64_t d_sae = 12;

}  // namespace training::small

namespace training {

/// A trainer's tensors by name, as they are (not copied).
template <class Trainer>
std::map<std::string, at::Tensor> tensors_of(Trainer& trainer) {
  std::map<std::string, at::Tensor> out;
  trainer.visit_state([&]<class T>(const std::string& name, T& value) {
    if constexpr (std::is_same_v<std::remove_const_t<T>, at::Tensor>) out.emplace(name, value);
  });
  return out;
}

template <class Trainer>
double number_of(Trainer& trainer, const std::string& wanted) {
  double out = 0;
  trainer.visit_state([&]<class T>(const std::string& name, T& value) {
    if constexpr (std::is_same_v<std::remove_const_t<T>, double>) {
      if (name.compare(wanted) == 0) out = value;  // == warns wrongly in g++ 12
    }
  });
  return out;
}

/// Known features: each token is a sum of a few of `features` [count, width], unit rows, with activations from 0.5
/// to 1.5.
struct KnownFeatures {
  at::Tensor features;
  double active;

  KnownFeatures(random_model::Source& random, std::int64_t count, std::int64_t width, double mean_active)
      : features{circuit::train::detail::unit_rows(random({count, width}))}, active{mean_active} {}

  [[nodiscard]] at::Tensor activations(std::int64_t tokens, std::uint64_t seed) const {
    std::mt19937_64 engine{seed};
    const auto uniform = [&] { return static_cast<double>(engine() >> 11U) * 0x1p-53; };
    auto acts = circuit::make::zeros({tokens, features.size(0)}, features.options());
    for (std::int64_t i = 0; i < acts.numel(); ++i) {
      if (uniform() < active / static_cast<double>(features.size(0))) acts.view({-1})[i] = 0.5 + uniform();
    }
    return acts;
  }
  [[nodiscard]] at::Tensor tokens(std::int64_t count, std::uint64_t seed) const {
    return activations(count, seed).matmul(features);
  }
  /// Of every known feature the largest cosine with a row of W_dec, on average.
  [[nodiscard]] double found(const at::Tensor& W_dec) const {
    const auto cosines = features.matmul(circuit::train::detail::unit_rows(W_dec).t());
    return std::get<0>(cosines.max(-1)).mean().item<double>();
  }
};

}  // namespace training
