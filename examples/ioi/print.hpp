#pragma once

#include <algorithm>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "charts.hpp"
#include "circuit/graph/compare.hpp"
#include "circuit/graph/path.hpp"
#include "circuit/report/table.hpp"
#include "experiments.hpp"
#include "figures.hpp"

/// What the program says on standard output.
namespace ioi::print {

inline void title(const std::string& words) {
  std::cout << '\n' << words << '\n' << std::string(text_width(words), '=') << '\n';
}

inline void loaded(const Session& session) {
  const auto& c = session.model.config();
  std::cout << "model " << session.options.model.string() << ": " << c.n_layers << " layers, " << c.n_heads
            << " heads, width " << c.d_model << ", " << at::toString(session.model.dtype()) << '\n';
  const auto describe = [&](Module module, const char* what) {
    std::int64_t features = 0;
    int layers = 0;
    for (std::int32_t l = 0; l < c.n_layers; ++l) {
      if (const auto* d = dictionary_of(session.dictionaries, module, Layer{l})) features += d->d_sae(), ++layers;
    }
    std::cout << what << " in " << layers << " layers, " << features << " features\n";
  };
  describe(Module::attn, "attention SAEs");
  describe(Module::mlp, "MLP transcoders");
}

inline void prompts(const Study& study) {
  std::cout << study.file.string() << ": " << study.batch.size() << " pairs of " << study.batch.length() << " tokens\n";
  if (study.batch.tokens.empty()) return;
  std::string text;
  for (const auto& token : study.batch.tokens.front()) text += token;
  std::cout << "  first prompt: " << one_line(text) << '\n';
}

inline void edges(const Study& study) {
  std::cout << study.name() << ": " << study.circuit.node_count() << " nodes, num edges: " << study.circuit.edge_count()
            << '\n'
            << edge_summary(study.circuit) << '\n';
  TextTable table{{"layer", "ov", "q", "k", "mlp", "metric"}};
  for (const auto& [layer, counts] : edge_counts_by_layer(study.circuit)) {
    std::vector<std::string> row{std::to_string(layer.value)};
    for (const auto type : all_edge_types) {
      if (type != EdgeType::resid) row.push_back(std::to_string(counts[type]));
    }
    table.add_row(row);
  }
  std::cout << table;
}

/// The first of them; the JSON has all.
inline void common(const Study& first, const Study& second, const std::vector<CommonFeature>& features) {
  std::cout << features.size() << " features are in both " << first.name() << " and " << second.name() << '\n';
  if (features.empty()) return;
  const auto numbers = [](const std::vector<Position>& positions) {
    std::string text;
    for (const auto p : positions) {
      if (!text.empty()) text += ' ';
      text += std::to_string(p.value);
    }
    return text;
  };
  TextTable table{{"feature", "positions in " + first.name(), "positions in " + second.name()}};
  constexpr std::size_t most = 20;
  for (std::size_t i = 0; i < std::min(most, features.size()); ++i) {
    const auto& [site, in_first, in_second] = features[i];
    table.add_row({std::string{name(site.kind)} + '.' + std::to_string(site.layer.value) + ".*." +
                       std::to_string(site.feature.value),
                   numbers(in_first), numbers(in_second)});
  }
  std::cout << table;
  if (features.size() > most) std::cout << "... and " << features.size() - most << " more\n";
}

inline void runs(const Experiments& e) {
  std::cout << "clean logit diff = " << fixed(e.clean(), 2) << "\ncorrupt logit diff = " << fixed(e.corrupt(), 2)
            << '\n';
}

inline void cluster(const Cluster& c) {
  std::cout << '\n' << c.name << ", " << c.meaning << ":\n";
  if (c.features.empty()) {
    std::cout << "  none in the graph; a smaller --threshold finds more\n";
    return;
  }
  TextTable table{{"ablated", "logit diff", "reduction"}};
  const auto row = [&](const std::string& what, const Outcome& o) {
    table.add_row({what, fixed(o.logit_difference, 2), fixed(o.percent_reduction, 1) + "%"});
  };
  for (std::size_t i = 0; i < c.features.size(); ++i) row(to_string(c.features[i]), c.alone[i]);
  if (c.features.size() > 1) row("all " + std::to_string(c.features.size()), *c.together);
  std::cout << table;
}

inline void together(const Clusters& clusters) {
  if (!clusters.together) return;
  std::cout << "\nC1, C2 and C3 together: logit diff " << fixed(clusters.together->logit_difference, 2)
            << ", reduction " << fixed(clusters.together->percent_reduction, 1) << "%\n";
}

inline void control(const Cluster& c, const Control& control) {
  if (c.features.empty()) return;
  std::cout << "percent logit diff reduction: " << c.name << ' ' << fixed(c.together->percent_reduction, 1)
            << "%, control " << fixed(control.mean(), 1) << "% (mean of " << control_draws
            << " draws of other active attention features at S2, same layers, nearest written norm"
            << (control.fewest < c.features.size() ? "; some draws had only " + std::to_string(control.fewest)
                                                   : std::string{})
            << ")\n";
}

/// One row per head, those whose attention to the names changes most first.
inline void attention(const Cluster& c, const std::vector<AttentionChange>& changes) {
  if (c.features.empty()) return;
  constexpr std::size_t keys = 3;  // IO, S1, S2
  constexpr std::size_t most = 8;
  constexpr double least = 5e-4;
  std::vector<std::pair<double, std::size_t>> heads;
  for (std::size_t i = 0; i + keys <= changes.size(); i += keys) {
    double moved = 0;
    for (std::size_t k = 0; k < keys; ++k) moved += std::abs(changes[i + k].pattern_change());
    if (moved > least) heads.emplace_back(-moved, i);
  }
  std::ranges::sort(heads);
  std::cout << '\n' << c.name << " ablated: the last position's attention to the names, clean, and the change\n";
  if (heads.empty()) {
    std::cout << "  no head changes: none of a later layer reads it here\n";
    return;
  }
  if (heads.size() > most) heads.resize(most);
  TextTable table{{"head", "IO pattern", "change", "S1+S2 pattern", "change", "IO score", "S1 score", "S2 score"}};
  const auto signed_text = [](double v, int decimals) { return (v >= 0 ? "+" : "") + fixed(v, decimals); };
  double io = 0;
  double s = 0;
  for (const auto& [moved, i] : heads) {
    const auto& to_io = changes[i];
    const auto& to_s1 = changes[i + 1];
    const auto& to_s2 = changes[i + 2];
    table.add_row(
        {std::to_string(to_io.layer.value) + '.' + std::to_string(to_io.head.value), fixed(to_io.pattern_before),
         signed_text(to_io.pattern_change(), 3), fixed(to_s1.pattern_before + to_s2.pattern_before),
         signed_text(to_s1.pattern_change() + to_s2.pattern_change(), 3), signed_text(to_io.score_change(), 2),
         signed_text(to_s1.score_change(), 2), signed_text(to_s2.score_change(), 2)});
    io += to_io.pattern_change();
    s += to_s1.pattern_change() + to_s2.pattern_change();
  }
  constexpr double clear = 0.01;
  std::cout << table << "sum over these heads: IO " << signed_text(io, 3) << ", S " << signed_text(s, 3) << ": "
            << c.name << (io < -clear ? " boosts IO" : " does not boost IO")
            << (s > clear ? " and suppresses S" : " and does not suppress S") << '\n';
}

inline void deletions(const Cluster& c, const std::vector<Deletion>& deletions) {
  if (deletions.empty()) return;
  std::cout << "\ndeleting " << c.name << " at resid_pre:";
  for (const auto& [layer, outcome] : deletions) {
    std::cout << "  layer " << layer.value << ": " << fixed(outcome.percent_reduction, 1) << '%';
  }
  std::cout << '\n';
}

template <class Part, class Text>
void largest_parts(const std::vector<DirectAttribution<Part>>& parts, const Text& text, std::size_t most) {
  auto ranked = parts;
  std::ranges::stable_sort(ranked, std::ranges::greater{}, [](const auto& p) { return std::abs(p.value); });
  TextTable table{{"part", "logits"}};
  double rest = 0;
  for (std::size_t i = 0; i < ranked.size(); ++i) {
    if (i < most) table.add_row({text(ranked[i].part), fixed(ranked[i].value)});
    if (i >= most) rest += ranked[i].value;
  }
  if (ranked.size() > most) table.add_row({std::to_string(ranked.size() - most) + " others", fixed(rest)});
  std::cout << table;
}

inline void lens(const DirectLogitAttribution& direct, const std::vector<LogitLensRow>& rows, const Session& session) {
  std::cout << "by embedding, head and MLP:\n";
  largest_parts(direct.components, figures::text_of, 12);
  std::cout << "sum " << fixed(direct.component_sum(), 4) << ", metric " << fixed(direct.metric, 4)
            << "\n\nby feature, error and embedding:\n";
  largest_parts(
      direct.nodes, [](const Node& node) { return to_string(node); }, 16);
  for (const auto& [layer, value] : direct.skip_paths) {
    std::cout << "skip path of layer " << layer.value << ' ' << fixed(value) << ", ";
  }
  std::cout << "constants " << fixed(direct.constants) << ", sum " << fixed(direct.node_sum(), 4) << ", metric "
            << fixed(direct.metric, 4) << "\n\nlogit lens at the last position:\n";
  TextTable table{{"after", "logit diff", "p(answer)", "rank", "top token of the first prompt"}};
  for (const auto& row : rows) {
    const auto place =
        row.blocks_done == 0 ? std::string{"embeddings"} : "layer " + std::to_string(row.blocks_done - 1);
    const auto top = session.options.token_ids ? std::to_string(row.top_token)
                                               : '"' + session.model.tokenizer().token_text(row.top_token) + '"';
    table.add_row({place, fixed(row.metric, 2), fixed(row.answer_probability), fixed(row.answer_rank, 1), top});
  }
  std::cout << table;
}

inline void paths(const Path& longest, const std::optional<Path>& reading) {
  std::cout << "longest kept path, " << longest.length() << " edges:\n  " << longest << '\n'
            << "embedding -> attention feature -> (q or k) attention feature -> metric:\n  ";
  if (reading) std::cout << *reading << '\n';
  if (!reading) std::cout << "none is kept\n";
}

}  // namespace ioi::print
