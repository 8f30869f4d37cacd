#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/report/graph_page.hpp"
#include "circuit/report/svg_chart.hpp"
#include "experiments.hpp"

namespace ioi {

/// The last token's attention to every position in one layer, mean over prompts and heads, or of one head.
/// pattern  [batch, head, query, key]
[[nodiscard]] inline std::vector<double> last_token_attention(const at::Tensor& pattern,
                                                              const std::optional<std::int32_t>& head) {
  const auto chosen = head ? pattern.select(1, *head) : pattern.mean(1);
  const auto row = chosen.mean(0).select(0, pattern.size(2) - 1).to(at::kCPU, at::kDouble).contiguous();
  return {row.data_ptr<double>(), row.data_ptr<double>() + row.numel()};
}

/// One grouped bar chart per layer: where the last token looks, clean and with a cluster ablated.
[[nodiscard]] inline std::vector<std::filesystem::path> chart_attention(const Experiments& experiments,
                                                                        const Cluster& cluster) {
  const auto& options = experiments.session().options;
  const auto layers = experiments.session().model.config().n_layers;
  const auto labels = unique_labels(experiments.study().tokens());
  std::vector<std::filesystem::path> files;
  for (std::int32_t l = 0; l < layers; ++l) {
    const auto of = [&](const auto& cache) {
      return last_token_attention(cache.template get<hook::attn::pattern>(Layer{l}), options.head);
    };
    const std::vector<Series> series{{"clean", of(experiments.linearization().run)},
                                     {cluster.name + " ablated", of(cluster.together->cache)}};
    const auto whose = options.head ? "head " + std::to_string(*options.head) : std::string{"mean over heads"};
    files.push_back(options.out / ("attention_layer_" + std::to_string(l) + ".svg"));
    write_file(files.back(),
               bar_chart(labels, series,
                         {.title = "Layer " + std::to_string(l) + ": attention of the last token, " + whose,
                          .x_title = "token",
                          .y_title = "attention probability"}));
  }
  return files;
}

/// A feature is deleted from where it can first be read on.
[[nodiscard]] inline std::int32_t first_layer_behind(const std::vector<Node>& features) {
  return std::ranges::max(features, {}, &Node::layer).layer.value + 1;
}

struct Deletion {
  Layer layer;
  Outcome outcome;
};

/// Deletes a cluster from the residual stream before each later layer.
[[nodiscard]] inline std::vector<Deletion> delete_layer_by_layer(const Experiments& experiments,
                                                                 const Cluster& cluster) {
  std::vector<Deletion> deletions;
  if (cluster.features.empty()) return deletions;
  for (auto l = first_layer_behind(cluster.features); l < experiments.session().model.config().n_layers; ++l) {
    deletions.push_back({Layer{l}, experiments.delete_before(Layer{l}, cluster.features)});
  }
  return deletions;
}

[[nodiscard]] inline std::filesystem::path chart_deletions(const Experiments& experiments, const Cluster& cluster,
                                                           const std::vector<Deletion>& deletions) {
  std::vector<std::string> labels;
  Series series{"percent reduction", {}};
  for (const auto& [layer, outcome] : deletions) {
    labels.push_back("layer " + std::to_string(layer.value));
    series.values.push_back(outcome.percent_reduction);
  }
  const auto file = experiments.session().options.out / "deletion.svg";
  write_file(file,
             line_chart(labels, {series},
                        {.title = "Deleting " + cluster.name + " at resid_pre",
                         .x_title = "before",
                         .y_title = "reduction of the logit difference, %",
                         .guides = {{cluster.name + " ablated", cluster.together->percent_reduction}, {"clean", 0}}}));
  return file;
}

/// The place of a dictionary on neuronpedia.org, or "" where it is not known there.
[[nodiscard]] inline std::string neuronpedia_place(const DictionaryWeights* dictionary, const Node& node) {
  if (dictionary == nullptr || !is_feature(node.kind)) return {};
  if (dictionary->name.starts_with("gpt2-small/")) return dictionary->name;
  const auto stem = std::filesystem::path{dictionary->name}.filename().string();
  const bool kissane = stem.starts_with("gpt2-small_L") && stem.find("_Hcat_z") != stem.npos;
  return kissane && is_attention(node.kind) ? "gpt2-small/" + std::to_string(node.layer.value) + "-att-kk"
                                            : std::string{};
}

[[nodiscard]] inline std::string feature_address(const DictionarySet& dictionaries, const Node& node) {
  const auto module = is_attention(node.kind) ? Module::attn : Module::mlp;
  const auto place =
      is_feature(node.kind) ? neuronpedia_place(dictionary_of(dictionaries, module, node.layer), node) : "";
  return place.empty() ? "" : "https://www.neuronpedia.org/" + place + '/' + std::to_string(node.feature.value);
}

[[nodiscard]] inline std::filesystem::path write_page(const Session& session, const Study& study) {
  const auto file = session.options.out / (study.name() + ".html");
  save_graph_page(file, study.circuit, {.title = study.name(), .link = [&](const Node& node) {
                                          return feature_address(session.dictionaries, node);
                                        }});
  return file;
}

}  // namespace ioi
