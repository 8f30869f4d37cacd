// Finds the circuit for indirect object identification ("When Mary and John went to the store, John gave a drink to"
// Mary) and takes it apart: which features it reads at the second mention of the subject, how they steer the last
// position's attention, and what writes the answer. Works on the small model in examples/data or on any GPT-2 folder
// with attention SAEs and transcoders. docs/ioi.md explains every step.

#include <iostream>

#include "ioi/charts.hpp"
#include "ioi/experiments.hpp"
#include "ioi/figures.hpp"
#include "ioi/options.hpp"
#include "ioi/print.hpp"
#include "ioi/search.hpp"
#include "ioi/session.hpp"

namespace ioi {

using figures::Json;

struct Output {
  Json json;
  std::vector<std::filesystem::path> files{};
};

/// A head that the model does not have, or a folder that cannot be made, is found before the work.
void check(const Session& session) {
  for (const auto& name : session.options.c1) static_cast<void>(named_feature(session, name, Position{0}));
  if (const auto head = session.options.head) check_index(Head{*head}, session.model.config().n_heads, "--head");
  std::error_code error;
  std::filesystem::create_directories(session.options.out, error);
  if (error) throw FileError{{.file = session.options.out, .problem = "cannot be made a folder: " + error.message()}};
}

void search(const Session& session, std::vector<Study>& studies, Output& out) {
  print::title("Circuits");
  const Search search{session.options};
  out.json["settings"] = search.settings();
  for (auto& study : studies) {
    study.circuit = search(session.model, session.dictionaries, study.batch);
    print::edges(study);
    out.json["prompts"].push_back(figures::of(study, session.options));
  }
  out.json["edges"] = figures::of(studies.front().circuit);
}

/// The edges file: the mean over the batch, or with --per-prompt one search for each prompt.
void write_edges(const Session& session, const Study& study, Output& out) {
  const auto& o = session.options;
  if (!o.edges && !o.per_prompt) return;
  EdgeTable table{o.edges ? table_separator(*o.edges) : ','};
  if (!o.per_prompt) table.append(study.circuit);
  const Search search{o};
  for (std::size_t b = 0; o.per_prompt && b < study.batch.size(); ++b) {
    const auto found = search(session.model, session.dictionaries, study.batch.slice(b, 1));
    const Prompt number{static_cast<std::int32_t>(o.first_batch + b)};
    table.append(found, number);
    std::cout << number << ": " << edge_counts(found) << '\n';
    out.json["per_prompt"].push_back({{"prompt", number.value}, {"edges", figures::of(found)}});
  }
  if (!o.edges) return;
  write_file(*o.edges, table.text());
  out.files.push_back(*o.edges);
}

void compare(const std::vector<Study>& studies, Output& out) {
  if (studies.size() < 2) return;
  print::title("Features common to both");
  const auto common = common_features(studies[0].circuit, studies[1].circuit);
  print::common(studies[0], studies[1], common);
  out.json["common_features"] = figures::of(common);
}

void show_paths(const Study& study, Output& out) {
  print::title("Paths");
  const auto longest = longest_path(study.circuit);
  const auto reading = strongest_path(
      study.circuit,
      {NodeKind::embedding,
       {{{}, NodeKind::attn_feature}, {{EdgeType::q, EdgeType::k}, NodeKind::attn_feature}, {{}, NodeKind::metric}}});
  print::paths(longest, reading);
  out.json["longest_path"] = figures::of(longest);
  out.json["reading_path"] = reading ? figures::of(*reading) : Json(nullptr);
}

Clusters ablate_clusters(const Experiments& experiments, Output& out) {
  print::title("Clusters");
  auto clusters = find_clusters(experiments.session(), experiments.study());
  ablate(experiments, clusters);
  const auto control = experiments.control_of(clusters.c1, experiments.session().options.seed);
  print::runs(experiments);
  for (const auto* cluster : clusters.all()) {
    print::cluster(*cluster);
    out.json["clusters"][cluster->name] = figures::of(*cluster);
  }
  print::together(clusters);
  if (clusters.together) out.json["clusters"]["together"] = figures::of(*clusters.together);
  print::control(clusters.c1, control);
  out.json["control"] = figures::of(control);
  const auto& c1 = clusters.c1.together;
  out.json["logit_difference"] = {{"clean", experiments.clean()},
                                  {"corrupt", experiments.corrupt()},
                                  {"ablated", c1 ? Json(c1->logit_difference) : Json(nullptr)}};
  out.json["percent_reduction"] = {{"C1", c1 ? Json(c1->percent_reduction) : Json(nullptr)},
                                   {"control", control.mean()}};
  return clusters;
}

void explain_attention(const Experiments& experiments, const Clusters& clusters, Output& out) {
  for (const auto* cluster : {&clusters.c2, &clusters.c3}) {
    if (!cluster->together) continue;
    const auto changes = experiments.attention_changes_by(*cluster);
    print::attention(*cluster, changes);
    out.json["clusters"][cluster->name]["attention"] = figures::of(changes, experiments.study());
  }
}

void chart(const Experiments& experiments, const Cluster& cluster, Output& out) {
  if (!cluster.together) return;
  for (auto& file : chart_attention(experiments, cluster)) out.files.push_back(std::move(file));
  const auto deletions = delete_layer_by_layer(experiments, cluster);
  print::deletions(cluster, deletions);
  for (const auto& [layer, outcome] : deletions) {
    auto json = figures::of(outcome);
    json["layer"] = layer.value;
    out.json["deletions"].push_back(std::move(json));
  }
  if (!deletions.empty()) out.files.push_back(chart_deletions(experiments, cluster, deletions));
}

/// The same clusters' ablation on another prompts file.
void repeat_on(const Session& session, const Study& study, Output& out) {
  const Experiments experiments{session, study};
  auto clusters = find_clusters(session, study);
  experiments.ablate_all(clusters.c1);
  const auto control = experiments.control_of(clusters.c1, session.options.seed);
  print::title("C1 on " + study.name());
  print::runs(experiments);
  print::cluster(clusters.c1);
  print::control(clusters.c1, control);
  out.json["others"][study.name()] = {{"clean", experiments.clean()},
                                      {"corrupt", experiments.corrupt()},
                                      {"C1", figures::of(clusters.c1)},
                                      {"control", figures::of(control)}};
}

void show_lens(const Experiments& experiments, Output& out) {
  if (!experiments.session().options.lens) return;
  print::title("Lens");
  const auto& session = experiments.session();
  std::vector<std::int64_t> answers;
  for (const auto& prompt : experiments.study().batch.answers) answers.push_back(prompt.front());
  const auto direct = direct_logit_attribution(session.model, session.dictionaries, experiments.linearization());
  const auto rows = logit_lens(session.model, experiments.linearization().run, experiments.study().metric, answers);
  print::lens(direct, rows, session);
  out.json["lens"] = {{"direct_logit_attribution", figures::of(direct)}, {"logit_lens", figures::of(rows)}};
}

void summarize(const Session& session, const Study& study, const Clusters& clusters, Output& out) {
  print::title("Summary");
  const auto& json = out.json;
  std::cout << "edges: " << edge_counts(study.circuit) << "; longest kept path " << json["longest_path"]["length"]
            << '\n'
            << "logit diff: clean " << fixed(json["logit_difference"]["clean"], 2) << ", corrupt "
            << fixed(json["logit_difference"]["corrupt"], 2);
  if (clusters.c1.together) std::cout << ", C1 ablated " << fixed(clusters.c1.together->logit_difference, 2);
  std::cout << '\n';
  if (clusters.c1.together) {
    std::cout << "percent logit diff reduction: C1 " << fixed(json["percent_reduction"]["C1"], 1) << "%, control "
              << fixed(json["percent_reduction"]["control"], 1) << "%\n";
  }
  if (session.options.json) out.files.push_back(*session.options.json);
  for (const auto& file : out.files) {
    std::cout << file.string() << '\n';
    out.json["files"].push_back(file.string());
  }
  if (session.options.json) write_file(*session.options.json, out.json.dump(1) + '\n');
}

void run(const Options& options) {
  Output out;
  const auto session = load(options);
  check(session);
  print::loaded(session);
  auto studies = load_prompts(session);
  for (const auto& study : studies) print::prompts(study);

  search(session, studies, out);
  const auto& study = studies.front();
  write_edges(session, study, out);
  for (const auto& each : studies) out.files.push_back(write_page(session, each));
  compare(studies, out);
  show_paths(study, out);

  const Experiments experiments{session, study};
  const auto clusters = ablate_clusters(experiments, out);
  explain_attention(experiments, clusters, out);
  chart(experiments, clusters.c1, out);
  for (std::size_t i = 1; i < studies.size(); ++i) repeat_on(session, studies[i], out);
  show_lens(experiments, out);
  summarize(session, study, clusters, out);
}

}  // namespace ioi

int main(int argc, char** argv) {
  CLI::App app{"The circuit for indirect object identification, from prompts to a tested graph"};
  ioi::Options options;
  ioi::add_flags(app, options);
  try {
    app.parse(argc, argv);
    ioi::run(options);
  } catch (const CLI::Success& asked) {
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
