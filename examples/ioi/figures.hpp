#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "circuit/evaluate/direct_logit_attribution.hpp"
#include "circuit/evaluate/logit_lens.hpp"
#include "circuit/graph/compare.hpp"
#include "circuit/graph/path.hpp"
#include "experiments.hpp"

/// Every figure of the program as JSON.
namespace ioi::figures {

using Json = nlohmann::ordered_json;

[[nodiscard]] inline Json of(const EdgeCounts& counts) {
  Json json;
  for (const auto type : all_edge_types) {
    if (type != EdgeType::resid) json[std::string{name(type)}] = counts[type];
  }
  return json;
}

[[nodiscard]] inline Json of(const Circuit& circuit) {
  Json json{{"nodes", circuit.node_count()}, {"edges", circuit.edge_count()}, {"by_type", of(edge_counts(circuit))}};
  for (const auto& [layer, counts] : edge_counts_by_layer(circuit)) {
    json["by_layer"][std::to_string(layer.value)] = of(counts);
  }
  const auto between = with_nodes(circuit, [](const NodeBundle& b) { return is_feature(b.node.kind); });
  json["between_features"] = Json::object();
  for (const auto& [layer, counts] : edge_counts_by_layer(between)) {
    json["between_features"][std::to_string(layer.value)] = of(counts);
  }
  return json;
}

[[nodiscard]] inline Json of(const Path& path) {
  Json steps = Json::array();
  if (path.empty()) return {{"length", 0}, {"nodes", steps}};
  steps.push_back(to_string(path.edges.front().up));
  for (const auto& [up, down, edge] : path.edges)
    steps.push_back({{"by", name(edge.type)}, {"to", to_string(down)}, {"em_attrib", edge.em_attrib}});
  return {{"length", path.length()}, {"nodes", steps}};
}

[[nodiscard]] inline Json of(const Outcome& outcome) {
  return {{"logit_difference", outcome.logit_difference}, {"percent_reduction", outcome.percent_reduction}};
}

[[nodiscard]] inline Json of(const Cluster& cluster) {
  Json json{{"meaning", cluster.meaning}, {"features", Json::array()}, {"together", nullptr}};
  for (std::size_t i = 0; i < cluster.features.size(); ++i) {
    auto alone = of(cluster.alone[i]);
    alone["feature"] = to_string(cluster.features[i]);
    json["features"].push_back(std::move(alone));
  }
  if (cluster.together) json["together"] = of(*cluster.together);
  return json;
}

[[nodiscard]] inline Json of(const Control& control) {
  return {{"percent_reduction", control.mean()},
          {"draws", control.percent_reductions},
          {"fewest_features", control.fewest}};
}

[[nodiscard]] inline Json of(const std::vector<AttentionChange>& changes, const Study& study) {
  Json json = Json::array();
  for (const auto& c : changes) {
    std::string role;
    for (const auto* const known : {"IO", "S1", "S2"}) {
      if (study.batch.role(known) == c.key) role = known;
    }
    json.push_back({{"layer", c.layer.value},
                    {"head", c.head.value},
                    {"towards", role},
                    {"score_clean", c.score_before},
                    {"score_ablated", c.score_after},
                    {"pattern_clean", c.pattern_before},
                    {"pattern_ablated", c.pattern_after}});
  }
  return json;
}

[[nodiscard]] inline std::string text_of(const Component& part) {
  switch (part.kind) {
    case ComponentKind::embedding: return "embed";
    case ComponentKind::position_embedding: return "pos_embed";
    case ComponentKind::head: return "head." + std::to_string(part.layer.value) + '.' + std::to_string(part.head.value);
    case ComponentKind::attn_bias: return "b_O." + std::to_string(part.layer.value);
    case ComponentKind::mlp: return "mlp." + std::to_string(part.layer.value);
    case ComponentKind::unembedding_bias: return "b_U";
  }
  return {};
}

[[nodiscard]] inline Json of(const DirectLogitAttribution& direct) {
  Json json{{"metric", direct.metric},
            {"component_sum", direct.component_sum()},
            {"node_sum", direct.node_sum()},
            {"constants", direct.constants}};
  for (const auto& [part, value] : direct.components) json["components"][text_of(part)] = value;
  for (const auto& [node, value] : direct.nodes) json["nodes"][to_string(node)] = value;
  for (const auto& [layer, value] : direct.skip_paths) json["skip_paths"][std::to_string(layer.value)] = value;
  return json;
}

[[nodiscard]] inline Json of(const std::vector<LogitLensRow>& rows) {
  Json json = Json::array();
  for (const auto& row : rows) {
    json.push_back({{"blocks_done", row.blocks_done},
                    {"logit_difference", row.metric},
                    {"answer_probability", row.answer_probability},
                    {"answer_rank", row.answer_rank}});
  }
  return json;
}

[[nodiscard]] inline Json of(const Study& study, const Options& options) {
  Json roles = Json::object();
  for (const auto& [role, position] : study.batch.roles) roles[role] = position.value;
  return {{"file", study.file.string()},
          {"first", options.first_batch},
          {"count", study.batch.size()},
          {"length", study.batch.length()},
          {"roles", roles},
          {"edges", of(study.circuit)}};
}

[[nodiscard]] inline Json of(const std::vector<CommonFeature>& common) {
  Json json = Json::array();
  const auto numbers = [](const std::vector<Position>& positions) {
    Json list = Json::array();
    for (const auto p : positions) list.push_back(p.value);
    return list;
  };
  for (const auto& [site, first, second] : common) {
    json.push_back({{"kind", name(site.kind)},
                    {"layer", site.layer.value},
                    {"feature", site.feature.value},
                    {"in_first", numbers(first)},
                    {"in_second", numbers(second)}});
  }
  return json;
}

}  // namespace ioi::figures
