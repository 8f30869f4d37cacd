// Runs the library's searches on one task and judges all of them alike: faithfulness against size, the areas over that
// curve, how well the true edges are told from the rest where they are known, time and memory.
//
//   compare_searches --task induction                              a model whose circuit is known by construction
//   compare_searches --task ioi --model MODEL --prompts FILE       edges between heads and MLPs
//   compare_searches --task ioi --features                         nodes: sparse features, errors, embeddings
//   compare_searches --task ioi --units --model MODEL --judged 50  nodes: a model's own neurons and head dimensions
//
// MODEL is a Hugging Face folder or a GGUF file, such as SmolLM2's (`./demo.sh --smollm2` fetches it).
#include <CLI/CLI.hpp>
#include <chrono>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "circuit/dictionary/load.hpp"
#include "circuit/dictionary/neuron_basis.hpp"
#include "circuit/evaluate/cpr_cmd.hpp"
#include "circuit/evaluate/known_truth.hpp"
#include "circuit/evaluate/node_faithfulness.hpp"
#include "circuit/metric/logit_difference.hpp"
#include "circuit/model/known/duplicate_token.hpp"
#include "circuit/model/known/induction.hpp"
#include "circuit/model/known/repeated_pair.hpp"
#include "circuit/model/open.hpp"
#include "circuit/report/svg_chart.hpp"
#include "circuit/search/acdc.hpp"
#include "circuit/search/edge_attribution_patching.hpp"
#include "circuit/search/edge_pruning.hpp"
#include "circuit/search/information_flow_routes.hpp"
#include "circuit/search/leap.hpp"
#include "circuit/search/mask_attributions.hpp"
#include "circuit/search/node_patching.hpp"
#include "circuit/search/node_pruning.hpp"
#include "circuit/search/sparse_feature_circuit.hpp"
#include "compare_searches/units.hpp"
#include "smollm2/contrast.hpp"

using namespace circuit;
using Json = nlohmann::json;

struct Options {
  std::string task = "induction";
  std::vector<std::string> searches{};
  std::string model{};
  std::string prompts{};
  std::string order = "ABBA";
  std::size_t size = 10;
  std::size_t judged = 0;
  std::int64_t steps = 10;
  double threshold = 0.01;
  KnownCircuitOptions known{};
  bool features = false;
  bool units = false;
  NodePruning pruning{.steps = 100};
  std::string pruned_from = "masks_for";
  double pruned_share = 1;
  std::string attn_saes = CIRCUIT_EXAMPLE_DATA "/attn-saes";
  std::string transcoders = CIRCUIT_EXAMPLE_DATA "/transcoders";
  double leap_threshold = 0.001;
  bool gross = false;
  bool json = false;
  std::string chart{};
};

/// What a search says of edges between heads and MLPs, of these as nodes, or of both.
struct Found {
  at::Tensor edges{};  ///< [senders, receivers]
  at::Tensor nodes{};  ///< [senders]

  Found(at::Tensor of_edges) : edges{std::move(of_edges)} {}                    // NOLINT(google-explicit-constructor)
  Found(const ComponentScores& both) : edges{both.edges}, nodes{both.nodes} {}  // NOLINT(google-explicit-constructor)
};
struct Search {
  std::string name;
  std::function<Found()> scores;
  bool slow = false;  ///< a pass or more per edge, or hundreds to train: on large models only if it is named
};
struct NodeSearch {
  std::string name;
  std::function<std::vector<Node>()> ranked;
};

/// Prompts to search and to judge, by default the same.
struct Prompts {
  ContrastBatch searched;
  ContrastBatch judged;

  /// The searched ones, as many at a time as memory allows.
  [[nodiscard]] std::vector<ContrastBatch> batches() const {
    constexpr std::size_t most = 8;
    std::vector<ContrastBatch> out;
    for (std::size_t i = 0; i < searched.size(); i += most) {
      out.push_back(searched.slice(i, std::min(most, searched.size() - i)));
    }
    return out;
  }
};

/// Starts the process' peak of memory anew, where the system lets it.
void reset_peak_memory() { std::ofstream{"/proc/self/clear_refs"} << "5"; }
double peak_memory_mb() {
  std::ifstream status{"/proc/self/status"};
  for (std::string word; status >> word;) {
    double kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes / 1024;
  }
  return 0;
}

template <Architecture A>
std::vector<Search> all_searches(const HookedTransformer<A>& model, const PromptPair& prompts,
                                 const LogitDifference& metric, const Options& options) {
  const auto c = Components::of(model);
  const auto attribution = [&](auto path) {
    return [&model, &prompts, &metric, path] { return EdgeAttributionPatching{path}.scores(model, prompts, metric); };
  };
  return {{"eap", attribution(path::Clean{})},
          {"eap_ig_inputs", attribution(path::Inputs{.steps = options.steps})},
          {"eap_ig_activations", attribution(path::Activations{.steps = options.steps})},
          {"clean_corrupt", attribution(path::CleanCorrupt{})},
          {"eap_relp",
           [&model, &prompts, &metric] {
             return EdgeAttributionPatching{.rule = gradient_rule::Relp{}}.scores(model, prompts, metric);
           }},
          {"edge_pruning",
           [&model, &prompts, c] {
             const auto open = EdgePruning{}.scores(model, prompts).sigmoid();  // the likeliest to stay first
             return open.mul(c.edge_mask());
           },
           true},
          {"acdc",
           [&model, &prompts, &options] { return Acdc<>{.threshold = options.threshold}.decide(model, prompts).rise; },
           true},
          {"flow_routes", [&model, &prompts] { return InformationFlowRoutes<>{}.scores(model, prompts.clean); }},
          {"largest_change",
           [&model, &prompts, c] {
             const auto change = sender_writes(model, prompts.clean).sub(sender_writes(model, prompts.corrupt));
             return change.flatten(1).norm(2, at::IntArrayRef{1}).to(at::kDouble).unsqueeze(1).mul(c.edge_mask());
           }},
          {"random", [c, seed = options.known.seed] {
             std::mt19937_64 bits{seed};
             auto scores = make::zeros({c.senders(), c.receivers()}, at::kDouble);
             for (std::int64_t i = 0; i < scores.numel(); ++i) {
               scores.template data_ptr<double>()[i] = static_cast<double>(bits() >> 11U) + 1;
             }
             return scores.mul(c.edge_mask());
           }}};
}

/// Those of heads and MLPs as nodes, and those that find units.
template <Architecture A>
std::vector<Search> known_searches(const KnownCircuit<A>& task, const PromptPair& prompts,
                                   const LogitDifference& metric, const compare_searches::UnitOptions& options) {
  const auto patching = [&](auto search) {
    return [&task, &prompts, &metric, search] {
      return ComponentScores{.nodes = search.scores(task.model, prompts, metric), .edges = {}};
    };
  };
  std::vector<Search> out{{"activation_patching", patching(ActivationPatching{})},
                          {"attribution_patching", patching(AttributionPatching{})}};
  for (auto& [name, scores] : compare_searches::unit_searches(task, options)) out.push_back({name, scores});
  return out;
}

/// What one search did, without its curve.
template <class Run>
auto timed(const std::string& name, const Run& run) {
  reset_peak_memory();
  const auto start = std::chrono::steady_clock::now();
  auto result = run();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return std::pair{std::move(result), Json{{"name", name},
                                           {"seconds", took.count()},
                                           {"peak_mb", peak_memory_mb()},
                                           {"sizes", Json::array()},
                                           {"faithfulness", Json::array()},
                                           {"cpr", nullptr},
                                           {"cmd", nullptr},
                                           {"auroc", nullptr},
                                           {"auroc_nodes", nullptr}}};
}

/// On a large model a table takes minutes: each search is told when it is judged.
void add_row(Json& rows, const Json& row) {
  std::cerr << row["name"].get<std::string>() << ": cpr " << row["cpr"] << ", " << row["faithfulness"] << std::endl;
  rows.push_back(row);
}

/// throws  NameError  for a search asked for that is not among these
template <class Searches>
void check_names(const Options& options, const Searches& searches) {
  std::string known;
  for (const auto& search : searches) known += (known.empty() ? "" : ", ") + search.name;
  for (const auto& name : options.searches) {
    if (std::ranges::any_of(searches, [&](const auto& search) { return search.name == name; })) continue;
    throw NameError{{.tensor = "--searches", .problem = "no such search here", .expected = known, .got = name}};
  }
}

bool wanted(const Options& options, const std::string& name) {
  return options.searches.empty() || std::ranges::find(options.searches, name) != options.searches.end();
}

void add_areas(Json& row, const std::vector<SizePoint>& curve) {
  const auto areas = curve_areas(curve);
  row["cpr"] = areas.cpr;
  row["cmd"] = areas.cmd;
  for (const auto& point : curve) {
    row["sizes"].push_back(point.share_of_edges);
    row["faithfulness"].push_back(point.faithfulness);
  }
}

double auroc(const Components& c, const at::Tensor& scores, const at::Tensor& truth) {
  std::vector<Judged> judged;
  for (std::int64_t r = 0; r < c.receivers(); ++r) {
    for (std::int64_t s = 0; s < c.before(r); ++s) {
      judged.push_back({std::abs(scores[s][r].item<double>()), truth[s][r].item<bool>()});
    }
  }
  return separation(judged).auroc;
}

/// Of heads and MLPs: the input is true of every circuit. Nothing where all of them are.
Json auroc_of_nodes(const at::Tensor& scores, const at::Tensor& truth) {
  std::vector<Judged> judged;
  for (std::int64_t s = 1; s < scores.size(0); ++s) {
    judged.push_back({std::abs(scores[s].item<double>()), truth[s].any().item<bool>()});
  }
  return std::ranges::all_of(judged, &Judged::is_true) ? Json{} : Json(separation(judged).auroc);
}

/// truth  [senders, receivers], undefined where it is not known
template <Architecture A>
Json compare_all(const std::vector<Search>& searches, const EdgeEvaluation<A, LogitDifference>& judge,
                 const at::Tensor& truth, const Options& options) {
  constexpr std::int64_t many_edges = 10000;
  const auto c = judge.components();
  check_names(options, searches);
  Json rows = Json::array();
  for (const auto& search : searches) {
    if (!wanted(options, search.name)) continue;
    if (search.slow && options.searches.empty() && c.edges() > many_edges) continue;
    auto [found, row] = timed(search.name, search.scores);
    if (found.edges.defined()) {
      // Flow routes rank only the edges of one reader.
      add_areas(row, search.name == "flow_routes" ? judge.curve(found.edges, mib_shares, selection::Greedy{})
                                                  : judge.curve(found.edges, mib_shares));
      if (truth.defined()) row["auroc"] = auroc(c, found.edges, truth);
    }
    if (found.nodes.defined()) row["auroc_nodes"] = auroc_of_nodes(found.nodes, truth);
    add_row(rows, row);
  }
  return {{"task", options.task},
          {"edges", c.edges()},
          {"full", judge.range().full},
          {"empty", judge.range().empty},
          {"searches", rows}};
}

/// Mean over batches of what a search gives nodes, largest first by `order`.
template <class Order, class Search>
std::vector<Node> ranked_over(const std::vector<ContrastBatch>& batches, Order order, const Search& search) {
  std::map<Node, double> sums;
  for (const auto& batch : batches) {
    for (const auto& [node, value] : search(batch)) sums[node] += value * static_cast<double>(batch.size());
  }
  std::vector<NodeAttribution> all;
  for (const auto& [node, sum] : sums) all.push_back({node, sum});
  return in_order(std::move(all), order);
}

LogitDifference metric_of(const ContrastBatch& batch) { return LogitDifference{batch}; }

/// Searches of edges between sparse features, whose nodes are ranked.
template <Architecture A, Dictionaries Set>
std::vector<NodeSearch> edge_searches(const HookedTransformer<A>& model, const Set& dictionaries,
                                      const ContrastBatch& prompts, const Options& options) {
  const auto sparse = [&](const auto& search) {
    return [&, search] { return ranked_by_attribution(search(model, dictionaries, prompts, metric_of(prompts))); };
  };
  const keep::Above above{options.leap_threshold};
  return {{"leap", sparse(Leap{.keep = above})},
          {"leap_all_paths", sparse(Leap{.keep = above, .chain = chain::AllPaths{}})},
          {"leap_relp", sparse(Leap{.keep = above, .final_norm = gradient_rule::Relp{}})},
          {"sparse_feature_circuit",
           sparse(SparseFeatureCircuit<>{.node_threshold = 0, .keep = above, .steps = options.steps})}};
}

/// A model has too many units for all edges between them: LEAP's own numbers of nodes rank them.
template <Architecture A, Dictionaries Set>
std::vector<NodeSearch> unit_searches(const HookedTransformer<A>& model, const Set& basis,
                                      const std::vector<ContrastBatch>& batches) {
  const auto by = [&]<FinalNorm Rule>(Rule, auto order) {
    return [&, order] {
      const auto units = ranked_over(batches, order, [&](const ContrastBatch& batch) {
        const PromptPair pair{batch};
        return node_attributions<Rule>(model, basis, pair.clean, pair.corrupt, metric_of(batch));
      });
      std::vector<Node> ranked;  // embeddings first: no units, and few
      for (auto p = static_cast<std::int32_t>(batches.front().length()); p-- > 0;) {
        ranked.push_back(Node::embedding(Position{p}));
      }
      ranked.insert(ranked.end(), units.begin(), units.end());
      return ranked;
    };
  };
  return {{"leap", by(final_norm::Frozen{}, ByMagnitude{})},
          {"leap_for", by(final_norm::Frozen{}, ByValue{})},
          {"leap_relp", by(gradient_rule::Relp{}, ByMagnitude{})},
          {"leap_relp_for", by(gradient_rule::Relp{}, ByValue{})}};
}

/// Searches that rank nodes; what lies outside holds the corrupt prompt's values, errors too.
template <Architecture A, Dictionaries Set>
Json compare_nodes(const HookedTransformer<A>& model, const Set& dictionaries, const Prompts& prompts,
                   const Options& options) {
  const auto batches = prompts.batches();
  const NodeEvaluation judge{model, dictionaries, prompts.judged, metric_of(prompts.judged)};
  const auto by_mask = [&](auto order) {
    return [&, order] {
      return in_order(mask_attributions(model, dictionaries, batches, metric_of, {.steps = options.steps}), order);
    };
  };
  auto searches = [&] {
    if constexpr (describes_exactly<Set>) {
      return unit_searches(model, dictionaries, batches);
    } else {
      return edge_searches(model, dictionaries, prompts.searched, options);
    }
  }();
  searches.push_back({"masks", by_mask(ByMagnitude{})});
  searches.push_back({"masks_for", by_mask(ByValue{})});
  const auto from = std::ranges::find(searches, options.pruned_from, &NodeSearch::name);
  if (from == searches.end()) throw NameError{{.tensor = options.pruned_from, .problem = "ranks no nodes here"}};
  searches.push_back({"pruning", [&, ranked = from->ranked] {
                        auto start = ranked();
                        const auto share = options.pruned_share * static_cast<double>(start.size());
                        start.resize(static_cast<std::size_t>(share));
                        auto gates = options.pruning.from(start, model, dictionaries, batches, metric_of);
                        std::erase_if(gates, [](const NodeAttribution& gate) { return gate.attribution <= 0; });
                        return in_order(std::move(gates), ByValue{});  // what stays open
                      }});
  searches.push_back(
      {"largest_change", [&] {
         const auto& searched = prompts.searched;
         return ranked_by_change(NodeEvaluation{model, dictionaries, searched, metric_of(searched)}.changes());
       }});
  searches.push_back({"random", [&] { return drawn_at_random(judge.changes(), options.known.seed); }});
  check_names(options, searches);
  Json rows = Json::array();
  for (const auto& [name, search] : searches) {
    if (!wanted(options, name)) continue;
    auto [ranked, row] = timed(name, search);
    row["ranked"] = ranked.size();
    std::vector<std::int64_t> sizes;
    for (const auto share : mib_shares) {
      sizes.push_back(std::llround(share * static_cast<double>(judge.changes().size())));
    }
    std::vector<SizePoint> curve;
    for (const auto& point : judge.curve(ranked, sizes)) {
      curve.push_back({point.nodes, mib_shares[curve.size()], point.faithfulness});
    }
    add_areas(row, curve);
    add_row(rows, row);
  }
  return {{"task", options.task},
          {"nodes", judge.changes().size()},
          {"full", judge.range().full},
          {"empty", judge.range().empty},
          {"searches", rows}};
}

/// Of a file, or drawn: of "When Alice and Bob got to the store, Bob gave a ring to", no two alike.
Prompts prompts_for(const Tokenizer& tokenizer, const Options& options) {
  const auto count = options.size + options.judged;
  const auto file =
      options.model.empty() && options.prompts.empty() ? CIRCUIT_EXAMPLE_DATA "/ioi_BABA.json" : options.prompts;
  const auto all = file.empty() ? smollm2::draw_contrast(
                                      tokenizer, options.order == "ABBA" ? data::IoiOrder::abba : data::IoiOrder::baba,
                                      count, options.known.seed)
                                : load_contrast_batch(file, tokenizer, {.size = count});
  const auto searched = all.slice(0, options.size);
  return {searched, options.judged == 0 ? searched : all.slice(options.size, options.judged)};
}

template <Architecture A>
Json compare_model(const HookedTransformer<A>& model, const Options& options) {
  const auto prompts = prompts_for(model.tokenizer(), options);
  // Each is compiled for one kind of model, which is minutes less.
  if constexpr (std::same_as<A, Gpt2>) {
    if (options.units) throw ConfigError{{.tensor = "--units", .problem = "is for Llamas, such as SmolLM2, alone"}};
    if (options.features) {
      return compare_nodes(model, load_dictionaries(options.attn_saes, options.transcoders), prompts, options);
    }
  } else {
    if (options.features) throw ConfigError{{.tensor = "--features", .problem = "is for GPT-2 alone"}};
    if (options.units) return compare_nodes(model, NeuronBasis{model}, prompts, options);
  }
  const PromptPair searched{prompts.searched};
  const auto metric = metric_of(prompts.searched);
  return compare_all(all_searches(model, searched, metric, options),
                     EdgeEvaluation{model, prompts.judged, metric_of(prompts.judged)}, {}, options);
}

Json compare_task(const Options& options) {
  const auto known = [&](const auto& task) {
    const PromptPair prompts{task.clean, task.corrupt};
    const LogitDifference metric{task.answers, task.wrong_answers};
    auto searches = all_searches(task.model, prompts, metric, options);
    const compare_searches::UnitOptions units{.threshold = options.leap_threshold,
                                              .steps = options.steps,
                                              .totals = options.gross ? Totals::gross : Totals::net,
                                              .pruning = options.pruning};
    std::ranges::move(known_searches(task, prompts, metric, units), std::inserter(searches, searches.end() - 2));
    return compare_all(searches, EdgeEvaluation{task.model, prompts, metric}, task.edges, options);
  };
  if (options.task != "ioi" && (options.features || options.units)) {
    throw ConfigError{{.tensor = options.features ? "--features" : "--units", .problem = "is for --task ioi alone"}};
  }
  if (options.task == "induction") return known(induction_circuit(options.known));
  if (options.task == "duplicate_token") return known(duplicate_token_circuit(options.known));
  if (options.task == "repeated_pair") return known(repeated_pair_circuit(options.known));
  return open_model<Gpt2, Llama>(options.model.empty() ? CIRCUIT_EXAMPLE_DATA "/model" : options.model,
                                 [&](const auto& model) { return compare_model(model, options); });
}

std::string two_digits(double value) {
  std::ostringstream out;
  out << std::fixed << std::setprecision(2) << value + 0.0;
  return out.str();
}

void print(const Json& result) {
  std::cout << std::fixed << std::setprecision(2) << result["task"].get<std::string>() << ": "
            << (result.contains("edges") ? result["edges"] : result["nodes"])
            << (result.contains("edges") ? " edges" : " nodes") << ", metric " << result["full"].get<double>()
            << ", without a circuit " << result["empty"].get<double>()
            << "\n\n| search | nodes ranked | AUROC | of nodes | CPR | CMD | ";
  for (const auto share : mib_shares) std::cout << "f at " << std::setprecision(1) << 100 * share << "% | ";
  std::string columns;
  for (std::size_t i = 0; i < 8 + mib_shares.size(); ++i) columns += "---|";
  std::cout << "seconds | peak MB |\n|" << columns << "\n";
  for (const auto& row : result["searches"]) {
    std::cout << "| " << row["name"].get<std::string>() << " | "
              << (row.contains("ranked") ? std::to_string(row["ranked"].get<std::size_t>()) : "-") << " | ";
    for (const auto* number : {"auroc", "auroc_nodes", "cpr", "cmd"}) {
      std::cout << (row[number].is_null() ? "-" : two_digits(row[number].get<double>())) << " | ";
    }
    for (std::size_t i = 0; i < mib_shares.size(); ++i) {
      const auto judged = i < row["faithfulness"].size();
      const auto f = judged ? row["faithfulness"][i].get<double>() : 0.0;
      std::cout << (judged ? two_digits(std::abs(f) < 0.005 ? 0 : f) : "-") << " | ";
    }
    std::cout << two_digits(row["seconds"].get<double>()) << " | " << std::setprecision(0)
              << row["peak_mb"].get<double>() << " |\n";
  }
}

std::string chart_of(const Json& result) {
  std::vector<std::string> labels;
  for (const auto share : mib_shares) {
    std::ostringstream label;
    label << 100 * share << '%';
    labels.push_back(label.str());
  }
  std::vector<Series> series;
  for (const auto& row : result["searches"]) {
    if (!row["cpr"].is_null())
      series.push_back({row["name"].get<std::string>(), row["faithfulness"].get<std::vector<double>>()});
  }
  return line_chart(labels, series,
                    {.title = "Faithfulness by size",
                     .x_title = result.contains("edges") ? "share of edges" : "share of nodes",
                     .y_title = "faithfulness",
                     .guides = {{"whole model", 1.0}}});
}

int main(int argc, char** argv) try {
  Options options;
  CLI::App app{"Compares searches"};
  app.add_option("--task", options.task)
      ->check(CLI::IsMember({"induction", "duplicate_token", "repeated_pair", "ioi"}));
  app.add_option("--searches", options.searches, "names; all if none is given");
  app.add_option("--model", options.model,
                 "folder or GGUF file of a GPT-2 or Llama, for ioi; the embedded one if none");
  app.add_option("--prompts", options.prompts, "contrast prompts, for ioi; drawn if none and a model is given");
  app.add_option("--order", options.order, "of the names in drawn prompts")->check(CLI::IsMember({"ABBA", "BABA"}));
  app.add_option("--size", options.size, "how many of them")->check(CLI::PositiveNumber);
  app.add_option("--judged", options.judged, "how many of those behind them circuits are judged on; 0: the same");
  app.add_option("--steps", options.steps, "of integrated gradients")->check(CLI::PositiveNumber);
  app.add_option("--threshold", options.threshold, "ACDC's, nats");
  app.add_option("--noise", options.known.noise, "how much distractors write in a known circuit");
  app.add_option("--distractors", options.known.distractors,
                 "heads in each layer of a known circuit that have no part in it");
  app.add_option("--seed", options.known.seed, "of a known circuit, drawn prompts and random circuits");
  app.add_flag("--features", options.features, "ioi over sparse features instead of heads and MLPs");
  app.add_flag("--units", options.units, "ioi over a model's own neurons and head dimensions");
  app.add_option("--pruning-steps", options.pruning.steps, "of node pruning")->check(CLI::PositiveNumber);
  app.add_option("--pruning-nodes", options.pruning.nodes, "how many are free; 0: none");
  app.add_option("--pruning-from", options.pruned_from, "the search in whose order gates start")->capture_default_str();
  app.add_option("--pruning-share", options.pruned_share, "of its nodes, the first, that have a gate")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--pruning-price", options.pruning.price, "of all nodes");
  app.add_option("--attn-saes", options.attn_saes, "folder, with --features");
  app.add_option("--transcoders", options.transcoders, "folder, with --features");
  app.add_option("--leap-threshold", options.leap_threshold, "on edges between features or units");
  app.add_flag("--gross", options.gross, "sum what a known circuit's units have without their signs");
  app.add_flag("--json", options.json);
  app.add_option("--chart", options.chart, "an SVG file to write");
  CLI11_PARSE(app, argc, argv);
  const auto result = compare_task(options);
  if (!options.chart.empty()) write_file(options.chart, chart_of(result));
  if (options.json) {
    std::cout << result.dump(2) << '\n';
  } else {
    print(result);
  }
} catch (const Error& e) {
  std::cerr << e.what() << '\n';
  return 1;
}
