#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "circuit/core/tensor.hpp"
#include "circuit/dictionary/train/activation.hpp"
#include "circuit/dictionary/train/adam.hpp"
#include "circuit/model/gradient.hpp"
#include "dictionaries.hpp"
#include "splice.hpp"

namespace train {

struct TogetherOptions {
  int steps = 250;
  double rate = 0.007;        ///< of each tensor's typical entry
  double local = 0.3;         ///< what a site's own error and price count beside what the model's output loses
  double active = 11.2;       ///< wished mean number of active features per token
  std::int64_t free = 10;     ///< as in DictionaryOptions
  double first_price = 0.03;  ///< before it follows the number of active features
  double least_fired = 5.0;   ///< features that fire less often over the last 30 % of the steps are left out
};

/// Trains finished dictionaries on, all together: what counts is how far the model's predictions move with every module
/// replaced at once, and beside that what each dictionary was trained for (its own error on the clean run, its price).
/// source  Braun et al. 2024 (end-to-end training); the mixture of both losses is our own
class TogetherTrainer {
 public:
  /// sample  sets the scale of each site's error
  TogetherTrainer(const Model& model, Dictionaries& dictionaries, const ModuleActivations& sample,
                  const TogetherOptions& options)
      : model_{model}, dictionaries_{dictionaries}, options_{options} {
    for (std::size_t l = 0; l < dictionaries.attn.size(); ++l) {
      add(dictionaries.attn[l], sample.z[l]);
      add(dictionaries.mlp[l], sample.mlp_out[l]);
    }
  }

  struct Report {
    double divergence;  ///< nats per token
    double error;       ///< share of variance left, mean over sites
    double active;      ///< mean over sites
  };

  /// Learns from a batch given in parts.
  Report step(const std::vector<Batch>& parts) {
    std::vector<at::Tensor> params;
    for (const auto& site : sites_) params.insert(params.end(), site.params.begin(), site.params.end());
    for (const auto& param : params) param.requires_grad_(true);
    std::vector<at::Tensor> grads;
    Report report{};
    const auto share = 1.0 / static_cast<double>(parts.size());
    for (const auto& part : parts) {
      const auto more = circuit::gradient_of(loss(part, report, share), params);
      if (grads.empty()) {
        grads = more;
      } else {
        for (std::size_t i = 0; i < grads.size(); ++i) grads[i] = grads[i].add(more[i]);
      }
    }
    for (const auto& param : params) param.requires_grad_(false);
    update(grads);
    return report;
  }

  /// To be called once, at the end: leaves out of the dictionaries what hardly ever fires.
  void finish() {
    const c10::AutoGradMode no_gradient{false};
    for (auto& site : sites_) {
      auto& d = *site.dictionary;
      const auto kept = site.late_fires.ge(options_.least_fired).nonzero().squeeze(-1);
      d.W_enc = d.W_enc.index_select(1, kept);
      d.b_enc = d.b_enc.index_select(0, kept);
      d.W_dec = d.W_dec.index_select(0, kept);
    }
  }

 private:
  struct Site {
    Dictionary* dictionary;
    double variance;
    circuit::train::Price price;
    std::vector<at::Tensor> params{};  // W_enc, b_enc, W_dec, b_out
    std::vector<circuit::train::Adam> adam{};
    std::vector<double> rates{};
    at::Tensor late_fires{};  // [d_sae] of the last 30 % of the steps
  };

  /// Memory of its own, which a dictionary that was read from a file lacks. An SAE's two biases are one.
  static void own(Dictionary& d) {
    for (auto* part : {&d.W_enc, &d.W_dec, &d.b_enc, &d.b_out}) *part = part->to(at::kFloat).clone();
    if (d.b_in.defined()) d.b_in = d.b_out;
    d.W_enc_pages = {};
    d.W_dec_pages = {};
  }

  void add(Dictionary& d, const at::Tensor& y) {
    const c10::AutoGradMode no_gradient{false};
    own(d);
    Site site{.dictionary = &d,
              .variance = y.sub(y.mean(0)).pow(2).sum(-1).mean().item<double>(),
              .price = {.price = options_.first_price, .wished = options_.active, .lowest = 1e-3}};
    site.params = {d.W_enc, d.b_enc, d.W_dec, d.b_out};
    for (const auto& param : site.params) {
      site.adam.emplace_back(std::vector{param}, circuit::train::Adam::Options{});
      site.rates.push_back(options_.rate * std::sqrt(param.pow(2).mean().item<double>()));
    }
    site.late_fires = circuit::make::zeros({d.d_sae()}, d.options());
    sites_.push_back(std::move(site));
  }

  [[nodiscard]] at::Tensor loss(const Batch& part, Report& report, double share) {
    const auto rows = real_tokens(part);
    at::Tensor clean;
    ModuleActivations seen;
    {
      const c10::AutoGradMode no_gradient{false};
      clean = model_.forward(part.tokens).flatten(0, 1).index_select(0, rows).log_softmax(-1);
      seen = record_modules(model_, part);
    }
    const c10::AutoGradMode with_gradient{true};
    auto splice = splice_dictionaries(dictionaries_);
    const auto said = model_.forward(part.tokens, splice).flatten(0, 1).index_select(0, rows).log_softmax(-1);
    const auto divergence = clean.exp().mul(clean.sub(said)).sum(-1).mean();
    report.divergence += share * divergence.item<double>();
    auto total = divergence;
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const auto l = i / 2;
      const auto& x = i % 2 == 0 ? seen.z[l] : seen.mlp_in[l];
      const auto& y = i % 2 == 0 ? seen.z[l] : seen.mlp_out[l];
      total =
          total.add(local_loss(sites_[i], x, y, report, share / static_cast<double>(sites_.size())), options_.local);
    }
    return total.mul(share);
  }

  /// The site's own error and what it pays for being active, as it was trained alone.
  [[nodiscard]] at::Tensor local_loss(Site& site, const at::Tensor& x, const at::Tensor& y, Report& report,
                                      double share) const {
    const auto& d = *site.dictionary;
    const auto acts = d.encode(x);
    const auto error = d.decode(acts).sub(y).pow(2).sum(-1).mean().div(site.variance);
    const auto active = acts.gt(0).sum(-1).to(at::kDouble).mean().item<double>();
    report.error += share * error.item<double>();
    report.active += share * active;
    const auto written = acts.mul(d.W_dec.norm(2, {-1})).div(std::sqrt(site.variance));
    const auto strongest = std::get<0>(written.topk(options_.free, -1));
    const auto paid = written.sum().sub(strongest.sum()).div(static_cast<double>(x.size(0)));
    const auto loss = error.add(paid, site.price.price);
    for (int i = 0; i < 5; ++i) site.price.follow(active);  // there are few steps
    if (steps_ * 10 >= options_.steps * 7) site.late_fires.add_(acts.detach().sign().sum(0));
    return loss;
  }

  void update(const std::vector<at::Tensor>& grads) {
    const c10::AutoGradMode no_gradient{false};
    const double rate =
        circuit::train::Schedule{.steps = options_.steps, .rate = 1.0, .warm_up = 20, .decay = 0.6}.at_step(steps_++);
    std::size_t next = 0;
    for (auto& site : sites_) {
      for (std::size_t i = 0; i < site.params.size(); ++i) site.adam[i].step({grads[next++]}, rate * site.rates[i]);
    }
  }

  const Model& model_;
  Dictionaries& dictionaries_;
  TogetherOptions options_;
  std::vector<Site> sites_;
  std::int64_t steps_ = 0;
};

}  // namespace train
