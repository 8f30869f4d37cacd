#pragma once

#include <unistd.h>

#include <iostream>

#include "circuit/core/shown_text.hpp"
#include "circuit/leap.hpp"
#include "options.hpp"

namespace ioi {

using namespace circuit;
using Model = HookedTransformer<Gpt2>;

/// Either rule of targets by a flag: a choice that costs no second instantiation of a search.
struct ChosenTargets {
  bool all = false;

  void add(TargetSet& set, NodeKind kind, Layer layer, const ActiveFeatures& features, std::int64_t length) const {
    if (all) targets::AllActive{}.add(set, kind, layer, features, length);
  }
  void reached(TargetSet& set, const Node& node) const {
    if (!all) targets::FromKept{}.reached(set, node);
  }
};

/// Tells how far the search is, on a terminal only.
inline void show_progress(const LayerDone& done) {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  if (!terminal) return;
  std::cerr << "\r  layer " << done.layer.value << " done, " << done.edges << " edges kept   ";
  if (done.layer == Layer{0}) std::cerr << "\r\x1B[K";
  std::cerr << std::flush;
}

/// Visits the flags that pick policies once: five bundles, five instantiations of the search.
class Search {
 public:
  explicit Search(const Options& options) : options_{options} {}

  [[nodiscard]] Circuit operator()(const Model& model, const DictionarySet& dictionaries,
                                   const ContrastBatch& batch) const {
    const auto run = [&](const auto& search) {
      return search(model, dictionaries, batch, LogitDifference{batch}, show_progress);
    };
    auto found = bundle(run);
    describe(found, batch);
    return found;
  }

  /// The settings in words, for files and pages.
  [[nodiscard]] std::map<std::string, std::string> settings() const {
    return {{"threshold", options_.all_edges ? "none" : exact_text(options_.threshold)},
            {"targets", options_.all_edges ? "every active feature" : "features that a kept edge leaves"},
            {"contrast", seed()              ? "positive"
                         : options_.contrast ? "signed"
                                             : "none"},
            {"chain", options_.path_chain && !seed() ? "paths of kept edges" : "gradient of the model"},
            {"batch", seed() ? "averaged before the products" : "exact"},
            {"q and k edges", options_.no_qk ? "no" : "yes"},
            {"dtype", options_.float64 ? "float64" : "float32"}};
  }

 private:
  [[nodiscard]] bool seed() const { return options_.seed_policies; }

  template <class Run>
  [[nodiscard]] Circuit bundle(const Run& run) const {
    const auto attention = options_.no_qk ? AttentionPaths::values : AttentionPaths::all;
    // Attributions are larger than a negative threshold whatever they are.
    const keep::Above keep{.threshold = options_.all_edges ? -1.0 : options_.threshold};
    const ChosenTargets targets{options_.all_edges};
    const auto with = [&](const auto& chain, const auto& contrast) {
      return run(Leap{.keep = keep, .chain = chain, .contrast = contrast, .targets = targets, .attention = attention});
    };
    if (seed()) {
      auto search = circuit::seed_policies(options_.threshold);
      search.attention = attention;
      return run(search);
    }
    if (options_.path_chain) {
      return options_.contrast ? with(chain::GraphPath{}, contrast::Signed{})
                               : with(chain::GraphPath{}, contrast::None{});
    }
    return options_.contrast ? with(chain::ModelGradient{}, contrast::Signed{})
                             : with(chain::ModelGradient{}, contrast::None{});
  }

  void describe(Circuit& found, const ContrastBatch& batch) const {
    found.info().settings = settings();
    if (!batch.tokens.empty()) found.info().tokens = batch.tokens.front();
    if (batch.tokens.empty()) {
      for (const auto id : batch.clean.front()) found.info().tokens.push_back(std::to_string(id));
    }
  }

  const Options& options_;
};

}  // namespace ioi
