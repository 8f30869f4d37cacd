#pragma once

#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/evaluate/attention_change.hpp"
#include "circuit/evaluate/clusters.hpp"
#include "circuit/evaluate/written_norm.hpp"
#include "circuit/intervene/ablate.hpp"
#include "circuit/intervene/delete_at.hpp"
#include "session.hpp"

namespace ioi {

/// A run of the clean prompts with something taken away.
struct Outcome {
  double logit_difference{};
  double percent_reduction{};
  ActivationCache<hook::attn::attn_scores, hook::attn::pattern> cache{};
};

/// One cluster with what its ablation does.
struct Cluster {
  std::string name;
  std::string meaning;
  std::vector<Node> features{};
  std::vector<Outcome> alone{};  ///< one per feature
  std::optional<Outcome> together{};
};

/// The same number of other features, 20 times.
struct Control {
  std::vector<double> percent_reductions{};
  std::size_t fewest = 0;  ///< features in the smallest draw

  [[nodiscard]] double mean() const {
    double sum = 0;
    for (const auto reduction : percent_reductions) sum += reduction;
    return percent_reductions.empty() ? 0 : sum / static_cast<double>(percent_reductions.size());
  }
};

inline constexpr int control_draws = 20;

/// Interventions on the clean prompts of one study, each compared with the clean run.
class Experiments {
 public:
  Experiments(const Session& session, const Study& study)
      : session_{session},
        study_{study},
        tokens_{study.batch},
        linear_{linearize<final_norm::Frozen>(session.model, session.dictionaries, tokens_.clean, {}, study.metric)},
        clean_{linear_.metric.mean().item<double>()},
        corrupt_{
            mean(study.metric, session.model.run(tokens_.corrupt, FrozenRunRecorder{session.model.config()}).logits)
                .item<double>()} {}

  [[nodiscard]] const Session& session() const { return session_; }
  [[nodiscard]] const Study& study() const { return study_; }
  [[nodiscard]] double clean() const { return clean_; }
  [[nodiscard]] double corrupt() const { return corrupt_; }
  [[nodiscard]] const Linearization& linearization() const { return linear_; }

  /// Sets features to 0 at their positions; what the dictionaries miss is recomputed on the ablated run.
  [[nodiscard]] Outcome ablate(std::span<const Node> features) const {
    std::vector<FeatureEdit> edits;
    for (const auto& node : features) edits.push_back({.feature = id_of(node), .where = on(node.position)});
    auto [logits, cache] = session_.model.run(tokens_.clean, edit_features(session_.dictionaries, edits),
                                              record<hook::attn::attn_scores, hook::attn::pattern>());
    return outcome(logits, std::move(cache));
  }

  /// Subtracts what the features wrote from the residual stream before one later layer.
  [[nodiscard]] Outcome delete_before(Layer layer, std::span<const Node> features) const {
    std::vector<FeatureId> ids;
    for (const auto& node : features) ids.push_back(id_of(node));
    auto remove =
        delete_at<hook::resid_pre>(layer, session_.model, session_.dictionaries, ids, on(features.front().position));
    return outcome(session_.model.run(tokens_.clean, std::move(remove)).logits, {});
  }

  void ablate_all(Cluster& cluster) const {
    if (cluster.features.empty()) return;
    for (const auto& node : cluster.features) cluster.alone.push_back(ablate(std::span{&node, 1}));
    cluster.together = ablate(cluster.features);
  }

  /// As many other active attention features at the same position, in the same layers and of similar written norm.
  [[nodiscard]] Control control_of(const Cluster& cluster, std::uint64_t seed) const {
    Control control;
    if (cluster.features.empty()) return control;
    const auto all =
        written_attention_features(session_.model, session_.dictionaries, linear_, cluster.features.front().position);
    std::vector<WrittenFeature> members;
    for (const auto& node : cluster.features) {
      members.push_back(*std::ranges::find(all, node, &WrittenFeature::node));
    }
    data::Random random{seed};
    control.fewest = cluster.features.size();
    for (int i = 0; i < control_draws; ++i) {
      const auto drawn = draw_control(members, all, random);
      control.fewest = std::min(control.fewest, drawn.size());
      control.percent_reductions.push_back(drawn.empty() ? 0.0 : ablate(drawn).percent_reduction);
    }
    return control;
  }

  /// How the last position's attention to the names changes.
  [[nodiscard]] std::vector<AttentionChange> attention_changes_by(const Cluster& cluster) const {
    const auto before = session_.model.run(tokens_.clean, record<hook::attn::attn_scores, hook::attn::pattern>()).cache;
    return attention_changes(before, cluster.together->cache, study_.last(), name_positions());
  }
  [[nodiscard]] std::vector<Position> name_positions() const {
    return {study_.batch.role("IO"), study_.batch.role("S1"), study_.batch.role("S2")};
  }

 private:
  [[nodiscard]] static FeatureId id_of(const Node& node) { return attn_feature(node.layer, node.feature); }
  [[nodiscard]] Outcome outcome(const at::Tensor& logits, decltype(Outcome::cache) cache) const {
    const double ablated = mean(study_.metric, logits).item<double>();
    return {ablated, percent_reduction(clean_, ablated), std::move(cache)};
  }

  const Session& session_;
  const Study& study_;
  PromptPair tokens_;
  Linearization linear_;
  double clean_;
  double corrupt_;
};

/// The notebook's three clusters, read off the kept graph.
struct Clusters {
  Cluster c1{"C1", "attention features at S2"};
  Cluster c2{"C2", "attention features at the last position that the final movers read by q or k"};
  Cluster c3{"C3", "attention features at the last position with the largest direct metric edges"};

  std::optional<Outcome> together{};  ///< all three ablated at once

  [[nodiscard]] std::vector<const Cluster*> all() const { return {&c1, &c2, &c3}; }
};

[[nodiscard]] inline Clusters find_clusters(const Session& session, const Study& study) {
  const auto most = session.options.cluster_size;
  const auto s2 = study.batch.role("S2");
  Clusters found;
  if (session.options.c1.empty()) {
    found.c1.features = attention_features_at(study.circuit, s2, most);
  } else {
    found.c1.meaning += ", as named";
    for (const auto& name : session.options.c1) found.c1.features.push_back(named_feature(session, name, s2));
  }
  const auto movers = largest_into_metric(study.circuit, study.last());
  found.c3.features = {movers.begin(), movers.begin() + static_cast<std::ptrdiff_t>(std::min(most, movers.size()))};
  constexpr std::array by_query_or_key{EdgeType::q, EdgeType::k};
  for (const auto& node : attention_features_read_by(study.circuit, movers, by_query_or_key, study.last())) {
    const bool in_c3 = std::ranges::find(found.c3.features, node) != found.c3.features.end();
    if (!in_c3 && found.c2.features.size() < most) found.c2.features.push_back(node);
  }
  return found;
}

inline void ablate(const Experiments& experiments, Clusters& clusters) {
  std::vector<Node> every;
  for (auto* cluster : {&clusters.c1, &clusters.c2, &clusters.c3}) {
    experiments.ablate_all(*cluster);
    for (const auto& node : cluster->features) {
      if (std::ranges::find(every, node) == every.end()) every.push_back(node);
    }
  }
  if (!every.empty()) clusters.together = experiments.ablate(every);
}

}  // namespace ioi
