#pragma once

#include <ATen/ops/linalg_eigh.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "dictionaries.hpp"
#include "splice.hpp"

namespace train {

/// A mean and the directions of most variance.
struct Pca {
  at::Tensor mean;        ///< [width]
  at::Tensor directions;  ///< [width, rank]

  [[nodiscard]] at::Tensor reconstruct(const at::Tensor& x) const {
    return x.sub(mean).matmul(directions).matmul(directions.t()).add(mean);
  }
};

[[nodiscard]] inline Pca fit_pca(const at::Tensor& x, std::int64_t rank) {
  const auto mean = x.mean(0);
  const auto centered = x.sub(mean);
  const auto directions = std::get<1>(at::linalg_eigh(centered.t().matmul(centered)));  // ascending
  return {mean, directions.narrow(1, directions.size(1) - rank, rank).contiguous()};
}

/// 1 - (squared error) / (squared distance from the mean), over a sample.
[[nodiscard]] inline double explained_variance(const at::Tensor& y, const at::Tensor& y_hat) {
  return 1.0 - y.sub(y_hat).pow(2).sum().item<double>() / y.sub(y.mean(0)).pow(2).sum().item<double>();
}

/// How one dictionary does on a sample of tokens.
struct SiteFigures {
  std::int64_t features = 0;
  double active = 0.0;  ///< mean number of active features per token
  double dead = 0.0;    ///< share of features that never fire on the sample
  double explained = 0.0;
  std::int64_t rank = 0;  ///< of the PCA: `active` rounded up
  double pca_explained = 0.0;
  Pca pca{};
};

[[nodiscard]] inline SiteFigures measure_site(const Dictionary& dictionary, const at::Tensor& x, const at::Tensor& y) {
  const auto acts = dictionary.encode(x);
  const auto fires = acts.gt(0).to(at::kFloat);
  SiteFigures figures;
  figures.features = dictionary.d_sae();
  figures.active = fires.sum(-1).mean().item<double>();
  figures.dead = fires.sum(0).eq(0).to(at::kFloat).mean().item<double>();
  figures.explained = explained_variance(y, dictionary.decode(acts));
  figures.rank = std::min(static_cast<std::int64_t>(std::ceil(figures.active)), y.size(1));
  figures.pca = fit_pca(y, figures.rank);
  figures.pca_explained = explained_variance(y, figures.pca.reconstruct(y));
  return figures;
}

struct DictionaryFigures {
  std::vector<SiteFigures> attn;
  std::vector<SiteFigures> mlp;
  double ce_clean = 0.0;
  double ce_zero = 0.0;
  double ce_spliced = 0.0;
  double ce_pca = 0.0;

  /// Share of the loss between all modules at zero and the untouched model that a replacement keeps.
  [[nodiscard]] double recovered(double ce) const { return (ce_zero - ce) / (ce_zero - ce_clean); }
};

/// Cross-entropy per token over batches, with attachments.
template <class... Attached>
[[nodiscard]] double mean_loss(const Model& model, const std::vector<Batch>& batches, Attached&&... attached) {
  const c10::AutoGradMode no_gradient{false};
  double sum = 0.0;
  double count = 0.0;
  for (const auto& batch : batches) {
    const auto real = batch.weights.gt(0).to(at::kFloat).narrow(1, 1, batch.weights.size(1) - 1);
    sum += token_losses(model.forward(batch.tokens, attached...), batch.tokens).mul(real).sum().template item<double>();
    count += real.sum().template item<double>();
  }
  return sum / count;
}

[[nodiscard]] inline DictionaryFigures measure_dictionaries(const Model& model, const Dictionaries& dictionaries,
                                                            const std::vector<Batch>& batches) {
  const c10::AutoGradMode no_gradient{false};
  DictionaryFigures figures;
  const auto seen = record_modules(model, batches);
  for (std::size_t l = 0; l < dictionaries.attn.size(); ++l) {
    figures.attn.push_back(measure_site(dictionaries.attn[l], seen.z[l], seen.z[l]));
    figures.mlp.push_back(measure_site(dictionaries.mlp[l], seen.mlp_in[l], seen.mlp_out[l]));
  }
  figures.ce_clean = mean_loss(model, batches);
  figures.ce_zero = mean_loss(model, batches, splice_zeros());
  figures.ce_spliced = mean_loss(model, batches, splice_dictionaries(dictionaries));
  figures.ce_pca =
      mean_loss(model, batches,
                Splice{[&](std::size_t l, const at::Tensor& z) { return figures.attn[l].pca.reconstruct(z); },
                       [&](std::size_t l, const at::Tensor&, const at::Tensor& out) {
                         return figures.mlp[l].pca.reconstruct(out);
                       }});
  return figures;
}

/// An attachment that keeps the attention patterns of one run, or forces them on another.
struct KeepPatterns {
  std::vector<at::Tensor> patterns{};
  void visit(circuit::hook::attn::pattern /*point*/, circuit::Layer /*layer*/, at::Tensor& value) {
    patterns.push_back(value);
  }
};
struct ForcePatterns {
  const std::vector<at::Tensor>& patterns;
  std::int32_t from_layer;
  void visit(circuit::hook::attn::pattern /*point*/, circuit::Layer layer, at::Tensor& value) const {
    if (layer.value >= from_layer) value = patterns[static_cast<std::size_t>(layer.value)];
  }
};

/// Mean over a batch of answer logit minus wrong answer's logit at the last position.
[[nodiscard]] inline double logit_difference(const at::Tensor& logits, const circuit::ContrastBatch& batch) {
  const auto last = logits.select(1, -1);
  double sum = 0.0;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const auto row = last[static_cast<std::int64_t>(b)];
    sum += row[batch.answers[b][0]].item<double>() - row[batch.wrong_answers[b][0]].item<double>();
  }
  return sum / static_cast<double>(batch.size());
}

struct CircuitFigures {
  double clean = 0.0;
  double corrupt = 0.0;
  double corrupt_patterns = 0.0;  ///< clean prompts, the corrupt run's patterns in the upper half of the layers
  double s2_silenced = 0.0;       ///< attention writes nothing at S2, in any layer
};

[[nodiscard]] inline CircuitFigures measure_circuit(const Model& model, const circuit::ContrastBatch& batch) {
  const c10::AutoGradMode no_gradient{false};
  const auto clean = circuit::to_tokens(batch.clean);
  const auto corrupt = circuit::to_tokens(batch.corrupt);
  CircuitFigures figures;
  KeepPatterns kept;
  figures.clean = logit_difference(model.forward(clean), batch);
  figures.corrupt = logit_difference(model.forward(corrupt, kept), batch);
  ForcePatterns forced{kept.patterns, static_cast<std::int32_t>(model.config().n_layers / 2)};
  figures.corrupt_patterns = logit_difference(model.forward(clean, forced), batch);
  auto silence = Splice{[&](std::size_t, const at::Tensor& z) {
                          auto quiet = z.clone();
                          quiet.select(1, batch.role("S2").value).zero_();
                          return quiet;
                        },
                        [](std::size_t, const at::Tensor&, const at::Tensor& out) { return out; }};
  figures.s2_silenced = logit_difference(model.forward(clean, silence), batch);
  return figures;
}

}  // namespace train
