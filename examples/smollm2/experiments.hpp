#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "charts.hpp"
#include "circuit/core/atomic_file.hpp"
#include "circuit/evaluate/direct_logit_attribution.hpp"
#include "circuit/report/table.hpp"
#include "contrast.hpp"
#include "neuron_search.hpp"

/// What setting the circuit, its parts and single heads to other values does: printed, drawn and as figures.
namespace smollm2 {

using circuit::ContrastBatch;
using circuit::fixed;
using circuit::percent;
using circuit::PromptPair;
using circuit::TextTable;
using Json = nlohmann::json;

/// Prompts of one order of the names, none of them in two of the batches, and what was found out with them.
struct Study {
  std::string name;
  ContrastBatch searched;
  ContrastBatch tested;
  ContrastBatch others;  ///< whose means stand for a unit outside a circuit
  ContrastBatch more;    ///< for a circuit that is faithful to each prompt's corrupt values
  std::filesystem::path out;
  Json figures{};

  /// A file beside the others, named in the figures.
  [[nodiscard]] std::filesystem::path file(const std::string& what, const std::string& ending) {
    auto path = out / ("smollm2_" + name + '_' + what + ending);
    figures["files"].push_back(path.string());
    return path;
  }
};

/// What a circuit's units, and as many others, do to prompts that the search has not seen.
struct Ablation {
  std::size_t units = 0;
  double circuit = 0;
  double magnitude = 0;  ///< control: as many of the same layers and kinds whose values differ most
  double random = 0;     ///< control: as many of the same layers and kinds
  double kept = 0;       ///< every other unit at its mean over other prompts
};

template <class Model, class Cache>
Ablation ablate(const Model& model, const ContrastBatch& tested, const Cache& corrupt, const Cache& mean,
                const std::vector<Node>& circuit, const RankedUnits& ranked) {
  const auto& config = model.config();
  const auto length = static_cast<std::int64_t>(tested.length());
  const auto mask = mask_of(config, length, circuit);
  const auto with_corrupt = [&](const std::vector<Node>& nodes) {
    return logit_difference(model, tested, patch_units(mask_of(config, length, nodes), corrupt));
  };
  return {circuit.size(), with_corrupt(circuit), with_corrupt(matched(circuit, ranked.by_change, mask)),
          with_corrupt(matched(circuit, ranked.shuffled, mask)),
          logit_difference(model, tested, patch_units(mask.others(1), mean))};
}

[[nodiscard]] inline Json figures_of(const Ablation& a, double whole) {
  return {{"ablated_units", a.units},
          {"ablated_logit_difference", a.circuit},
          {"ablated_control_magnitude", a.magnitude},
          {"ablated_control_random", a.random},
          {"kept_fraction", a.kept / whole}};
}

[[nodiscard]] inline std::vector<Node> first_of(const std::vector<Node>& nodes, std::size_t count) {
  return {nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(std::min(count, nodes.size()))};
}

/// Ablates the whole circuit and its strongest parts, and as many units as a gradient alone ranks highest.
template <class Model>
void measure_ablations(const Model& model, const std::vector<Node>& circuit, const RankedUnits& ranked, Study& study) {
  auto& json = study.figures;
  const auto& tested = study.tested;
  const auto corrupt = unit_values(model, PromptPair{tested}.corrupt);
  const auto mean = mean_values(unit_values(model, PromptPair{study.others}.clean));
  const double whole = logit_difference(model, tested);
  json["tested_logit_difference"] = whole;
  TextTable table{
      {"units", "at corrupt values", "as many of largest change", "as many at random", "all but these at their mean"}};
  table.add_row({"0", fixed(whole, 3), "", "", ""});
  Curves curves;
  curves.add("0", whole, whole, whole);
  const auto measured = [&](const std::string& name, const std::vector<Node>& nodes) {
    const auto a = ablate(model, tested, corrupt, mean, nodes, ranked);
    table.add_row({name, fixed(a.circuit, 3), fixed(a.magnitude, 3), fixed(a.random, 3), fixed(a.kept, 3)});
    return a;
  };
  for (const std::size_t part : {16, 4, 1}) {
    const auto strongest = first_of(circuit, circuit.size() / part);
    const auto a = measured(std::to_string(strongest.size()), strongest);
    curves.add(std::to_string(strongest.size()), a.circuit, a.magnitude, a.random);
    json["ablations"].push_back(figures_of(a, whole));
  }
  json.update(json["ablations"].back());
  json["by_gradient"] = figures_of(measured("by gradient", first_of(ranked.by_gradient, circuit.size())), whole);
  std::cout << "logit difference on " << tested.size() << " other prompts, units set\n" << table;
  circuit::write_file(study.file("ablation", ".svg"),
                      curves.chart({.title = study.name + ": units set to their corrupt values",
                                    .x_title = "units",
                                    .y_title = "logit difference",
                                    .guides = {{"even", 0}}}));
}

/// How much of the model circuits of some sizes are, every other unit behind position 0 at its corrupt value.
template <class Model>
void measure_faithfulness(const Model& model, const std::vector<Node>& found, const RankedUnits& controls,
                          Study& study) {
  auto& json = study.figures;
  const auto& tested = study.tested;
  const auto corrupt = unit_values(model, PromptPair{tested}.corrupt);
  const auto length = static_cast<std::int64_t>(tested.length());
  const auto with_first = [&](const std::vector<Node>& nodes, std::size_t count) {
    const auto kept = mask_of(model.config(), length, first_of(nodes, count));
    return logit_difference(model, tested, patch_units(kept.others(1), corrupt));
  };
  const double full = logit_difference(model, tested);
  const double empty = with_first(found, 0);
  TextTable table{{"units kept", "circuit", "as many of largest change", "as many at random"}};
  Curves curves;
  for (const double share : {0.001, 0.002, 0.005, 0.01, 0.02, 0.049, 0.1}) {
    const auto count = static_cast<std::size_t>(share * static_cast<double>(controls.shuffled.size()));
    const auto faithfulness = [&](const std::vector<Node>& nodes) {
      return (with_first(nodes, count) - empty) / (full - empty);
    };
    const auto circuit = faithfulness(found);
    const auto change = faithfulness(controls.by_change);
    const auto random = faithfulness(controls.shuffled);
    table.add_row({percent(share), fixed(circuit, 3), fixed(change, 3), fixed(random, 3)});
    curves.add(percent(share), circuit, change, random);
    json["faithfulness"].push_back(
        {{"share", share}, {"circuit", circuit}, {"largest_change", change}, {"random", random}});
  }
  json["full"] = full;
  json["empty"] = empty;
  std::cout << "faithfulness on the same prompts, every other unit at its corrupt value (" << fixed(full, 3)
            << " for all units, " << fixed(empty, 3) << " for none)\n"
            << table;
  circuit::write_file(study.file("kept", ".svg"),
                      curves.chart({.title = study.name + ": faithfulness of the units kept",
                                    .x_title = "share of the units kept, the others at their corrupt values",
                                    .y_title = "faithfulness",
                                    .guides = {{"all units", 1}, {"none", 0}}}));
}

/// The heads that move the name, and those that find it repeated.
struct NamedHeads {
  std::vector<HeadEffect> name_movers{};       ///< attention from the end to IO, times what it writes for the answer
  std::vector<HeadEffect> duplicate_tokens{};  ///< attention from S2 to S1
};

template <class Model, class Basis>
[[nodiscard]] NamedHeads name_heads(const Model& model, const Basis& basis, const ContrastBatch& searched) {
  constexpr std::size_t most = 3;
  const auto lin = circuit::linearize<circuit::final_norm::Frozen>(model, basis, PromptPair{searched}.clean, {},
                                                                   circuit::LogitDifference{searched});
  std::map<std::pair<circuit::Layer, circuit::Head>, double> direct;
  for (const auto& each : circuit::direct_logit_attribution(model, basis, lin).components) {
    if (each.part.kind == circuit::ComponentKind::head) direct[{each.part.layer, each.part.head}] = each.value;
  }
  return {strongest_heads(model.config(), lin.run, searched.role("end"), searched.role("IO"), most,
                          [&](circuit::Layer l, circuit::Head h) {
                            return direct[{l, h}];
                          }),
          strongest_heads(model.config(), lin.run, searched.role("S2"), searched.role("S1"), most,
                          [](circuit::Layer, circuit::Head) { return 1.0; })};
}

/// Sets each of the heads to its corrupt values on the tested prompts.
template <class Model>
void measure_heads(const Model& model, NamedHeads heads, Study& study) {
  const auto length = static_cast<std::int64_t>(study.tested.length());
  const auto corrupt = unit_values(model, PromptPair{study.tested}.corrupt);
  TextTable table{{"heads", "strength", "logit difference without"}};
  const auto measured = [&](const char* what, const char* key, std::vector<HeadEffect>& found) {
    for (auto& head : found) {
      head.without =
          logit_difference(model, study.tested, patch_units(mask_of_head(model.config(), length, head), corrupt));
      table.add_row({what + (" " + head.name()), fixed(head.strength, 3), fixed(head.without, 3)});
      study.figures[key].push_back(
          {{"head", head.name()}, {"strength", head.strength}, {"ablated_logit_difference", head.without}});
    }
  };
  measured("name mover", "name_movers", heads.name_movers);
  measured("duplicate token", "duplicate_tokens", heads.duplicate_tokens);
  std::cout << "strongest heads, each set to its corrupt values on the same prompts\n" << table;
}

/// Where each name mover looks from the last position, as it is and with the circuit at its corrupt values.
template <class Model>
void draw_attention(const Model& model, const std::vector<HeadEffect>& heads, const std::vector<Node>& circuit,
                    Study& study) {
  using Pattern = circuit::hook::attn::pattern;
  const PromptPair prompts{study.tested};
  const auto corrupt = unit_values(model, prompts.corrupt);
  const auto mask = mask_of(model.config(), static_cast<std::int64_t>(study.tested.length()), circuit);
  const auto clean = values_at<Pattern>(model, prompts.clean);
  const auto ablated = values_at<Pattern>(model, prompts.clean, patch_units(mask, corrupt));
  const auto labels = position_labels(study.tested, model.tokenizer());
  const auto io = static_cast<std::size_t>(study.tested.role("IO").value);
  for (const auto& head : heads) {
    const auto of = [&](const auto& run) {
      return attention_from_end(run.template get<Pattern>(head.layer), head.head);
    };
    const auto before = of(clean);
    const auto after = of(ablated);
    study.figures["attention_to_io"].push_back({{"head", head.name()}, {"clean", before[io]}, {"ablated", after[io]}});
    circuit::write_file(study.file("attention_" + head.name(), ".svg"),
                        circuit::bar_chart(labels, {{"clean", before}, {"circuit at its corrupt values", after}},
                                           {.title = study.name + ": attention of name mover " + head.name() +
                                                     " from the last position",
                                            .x_title = "position",
                                            .y_title = "attention probability"}));
  }
}

}  // namespace smollm2
