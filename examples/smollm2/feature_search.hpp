#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "circuit/data/random.hpp"
#include "circuit/dictionary/recognise.hpp"
#include "circuit/evaluate/clusters.hpp"
#include "circuit/evaluate/written_norm.hpp"
#include "circuit/intervene/edit_features.hpp"
#include "circuit/report/graph_page.hpp"
#include "circuit/search/leap.hpp"
#include "experiments.hpp"
#include "measure.hpp"

/// LEAP over dictionaries that somebody trained for some of the model's layers (examples/train_dictionaries): the other
/// modules are one node each.
namespace smollm2 {

/// Every SAELens folder in a folder, and what a cross-layer transcoder in clt/ holds.
[[nodiscard]] inline std::vector<std::filesystem::path> dictionaries_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  const auto add = [&](const std::filesystem::path& where, auto&& wanted) {
    if (!std::filesystem::is_directory(where)) return;
    for (const auto& entry : std::filesystem::directory_iterator{where}) {
      if (wanted(entry.path())) paths.push_back(entry.path());
    }
  };
  add(folder, [](const auto& path) { return std::filesystem::exists(path / "cfg.json"); });
  add(folder / "clt", [](const auto& path) { return path.extension() == ".safetensors"; });
  std::sort(paths.begin(), paths.end());
  if (!paths.empty()) return paths;
  throw circuit::FileError{{.file = folder, .problem = "holds no dictionaries"}};
}

/// Attention features that do one thing, and what is left of the logit difference without them.
struct FeatureCluster {
  std::string name;
  std::vector<Node> features{};
  double without = 0.0;
  std::vector<double> controls{};  ///< the same of draws of as many other features

  [[nodiscard]] double control() const {
    double sum = 0.0;
    for (const auto each : controls) sum += each;
    return controls.empty() ? 0.0 : sum / static_cast<double>(controls.size());
  }
};

[[nodiscard]] inline std::vector<FeatureCluster> feature_clusters(const circuit::Circuit& found, const Study& study) {
  constexpr std::size_t most = 10;
  constexpr std::array by_query_or_key{circuit::EdgeType::q, circuit::EdgeType::k};
  const auto end = study.searched.role("end");
  auto movers = circuit::largest_into_metric(found, end, most);
  auto readers = circuit::attention_features_read_by(found, movers, by_query_or_key, end, most);
  std::erase_if(readers, [&](const Node& node) { return std::ranges::find(movers, node) != movers.end(); });
  return {{"at S2", circuit::attention_features_at(found, study.searched.role("S2"), most)},
          {"at the end, read by q or k", std::move(readers)},
          {"at the end, into the metric", std::move(movers)}};
}

/// Sets features to 0 at their positions on the tested prompts; what the dictionaries miss is computed anew.
template <class Model>
[[nodiscard]] double without_features(const Model& model, const circuit::DictionarySet& set, const Study& study,
                                      const std::vector<Node>& features) {
  if (features.empty()) return logit_difference(model, study.tested);
  std::vector<circuit::FeatureEdit> edits;
  for (const auto& node : features) {
    edits.push_back({.feature = circuit::attn_feature(node.layer, node.feature), .where = circuit::on(node.position)});
  }
  return logit_difference(model, study.tested, circuit::edit_features(set, edits));
}

/// Ablates each cluster, and ten draws of as many other attention features that are active at the same position, of the
/// same layers and of similar written length.
template <class Model>
void ablate_clusters(const Model& model, const circuit::DictionarySet& set, const Study& study,
                     std::vector<FeatureCluster>& clusters) {
  constexpr int draws = 10;
  const auto lin = circuit::linearize<circuit::final_norm::Frozen>(model, set, PromptPair{study.searched}.clean, {},
                                                                   circuit::LogitDifference{study.searched});
  for (auto& cluster : clusters) {
    cluster.without = without_features(model, set, study, cluster.features);
    if (cluster.features.empty()) continue;
    const auto all = circuit::written_attention_features(model, set, lin, cluster.features.front().position);
    std::vector<circuit::WrittenFeature> members;
    for (const auto& node : cluster.features) {
      const auto member = std::ranges::find(all, node, &circuit::WrittenFeature::node);
      if (member != all.end()) members.push_back(*member);
    }
    circuit::data::Random random{1};
    for (int i = 0; i < draws; ++i) {
      cluster.controls.push_back(without_features(model, set, study, circuit::draw_control(members, all, random)));
    }
  }
}

inline void show_clusters(const std::vector<FeatureCluster>& clusters, double whole, Study& study) {
  TextTable table{{"attention features", "number", "logit difference without", "others: mean", "least", "most"}};
  for (const auto& c : clusters) {
    auto& json = study.figures["feature_clusters"][c.name];
    json = {{"without", c.without}, {"control", c.control()}, {"controls", c.controls}};
    for (const auto& node : c.features) json["features"].push_back(circuit::to_string(node));
    std::vector<std::string> row{c.name, std::to_string(c.features.size()), fixed(c.without, 3)};
    if (!c.controls.empty()) {
      const auto [least, most] = std::minmax_element(c.controls.begin(), c.controls.end());
      for (const auto value : {c.control(), *least, *most}) row.push_back(fixed(value, 3));
    }
    row.resize(6);
    table.add_row(row);
  }
  std::cout << "set to 0 on " << study.tested.size() << " other prompts, logit difference " << fixed(whole, 3)
            << " when nothing is; beside " << clusters.front().controls.size() << " draws of as many others\n"
            << table;
}

/// Searches the dictionaries' features, and ablates what was found.
template <class Model>
void search_features(const Model& model, const circuit::DictionarySet& set, double threshold, Study& study) {
  using namespace circuit;
  Stopwatch watch;
  auto found = Leap{.keep = keep::Above{threshold}}(model, set, study.searched, LogitDifference{study.searched},
                                                    [](const LayerDone&) {});
  auto& json = study.figures;
  json["seconds"]["feature_search"] = watch.lap();
  json["feature_edges"] = found.edge_count();
  for (const auto id : study.searched.clean.front()) found.info().tokens.push_back(model.tokenizer().token_text(id));
  std::cout << '\n'
            << study.name << ": features of dictionaries, searched on " << study.searched.size() << " prompts in "
            << fixed(json["seconds"]["feature_search"], 1) << " s\n"
            << found << '\n';
  save_graph_page(study.file("features", ".html"), found, {.title = "SmolLM2, " + study.name + ": features"});
  auto clusters = feature_clusters(found, study);
  ablate_clusters(model, set, study, clusters);
  show_clusters(clusters, logit_difference(model, study.tested), study);
  json["seconds"]["feature_ablations"] = watch.lap();
}

}  // namespace smollm2
