// Opens a language model as it comes, SmolLM2 in a GGUF file (`./demo.sh --smollm2` fetches it) or any other of Llama's
// kind, and measures how it completes "When Alice and Bob went to the store, Bob gave a ring to", with and without a
// beginning-of-sequence token. Then searches which of its own neurons and head dimensions do it, and ablates them.
#include <CLI/CLI.hpp>
#include <circuit/core/atomic_file.hpp>
#include <circuit/evaluate/direct_logit_attribution.hpp>
#include <circuit/io/safetensors.hpp>
#include <circuit/model/open.hpp>
#include <circuit/report/graph_page.hpp>
#include <circuit/report/table.hpp>
#include <iostream>
#include <optional>

#include "smollm2/contrast.hpp"
#include "smollm2/ioi_task.hpp"
#include "smollm2/measure.hpp"
#include "smollm2/neuron_search.hpp"

namespace smollm2 {

using namespace circuit;
using Json = nlohmann::json;

struct Options {
  std::filesystem::path model;
  std::size_t prompts = 100;
  std::uint64_t seed = 1;
  std::size_t search_prompts = 8;
  std::size_t faithful_prompts = 48;
  double share = 0.02;
  double threshold = 0.02;
  bool search = true;
  std::filesystem::path out = "out";
  std::optional<std::filesystem::path> json;
  std::optional<std::filesystem::path> logits;
};

/// Means over the prompts.
Json figures_of(const std::vector<IoiOutcome>& outcomes) {
  double over_subject = 0;
  double top = 0;
  double difference = 0;
  for (const auto& outcome : outcomes) {
    over_subject += outcome.over_subject ? 1 : 0;
    top += outcome.top ? 1 : 0;
    difference += outcome.logit_difference;
  }
  const auto n = static_cast<double>(outcomes.size());
  return {{"accuracy", over_subject / n}, {"top_accuracy", top / n}, {"logit_difference", difference / n}};
}

template <class Model>
void describe(const Options& o, const Model& model, double seconds) {
  const auto& c = model.config();
  std::cout << o.model.filename().string() << ": " << c.n_layers << " layers, " << c.n_heads << " heads ("
            << c.n_key_value_heads << " of keys and values), width " << c.d_model << ", vocabulary " << c.d_vocab
            << "; opened in " << fixed(seconds, 2) << " s\n";
}

/// Accuracy and logit difference with and without a BOS; where the figures need one, they are those without.
template <class Model>
void measure_ioi(const Model& model, const std::vector<IoiPrompt>& prompts, Json& json) {
  TextTable table{{"beginning", "over the subject", "over all tokens", "logit difference"}};
  Stopwatch watch;
  const auto row = [&](const char* name, const char* key, Bos bos) {
    const auto figures = figures_of(answer(model, prompts, bos));
    table.add_row(
        {name, percent(figures["accuracy"]), percent(figures["top_accuracy"]), fixed(figures["logit_difference"], 3)});
    json[key] = figures;
    json["seconds"][key] = watch.lap();
    return figures;
  };
  const auto without = row("no BOS", "without_bos", Bos::none);
  json["accuracy"] = without["accuracy"];
  json["logit_difference"] = without["logit_difference"];
  if (model.tokenizer().bos_id()) row("BOS", "with_bos", Bos::prepend);
  std::cout << table;
}

/// Tokens and logits of the last position, batch by batch, for comparisons with other programs.
template <class Model>
void write_logits(const Model& model, const std::vector<IoiPrompt>& prompts, const std::filesystem::path& path) {
  std::vector<TensorView> tensors;
  for (const auto bos : {Bos::none, Bos::prepend}) {
    if (bos == Bos::prepend && !model.tokenizer().bos_id()) continue;
    run_by_length(model, prompts, bos, [&](const auto&, const at::Tensor& tokens, const at::Tensor& logits) {
      const auto number = std::to_string(tensors.size() / 2);
      tensors.push_back(to_view("tokens." + number, tokens));
      tensors.push_back(to_view("logits." + number, logits));
    });
  }
  write_safetensors(path, tensors);
}

/// What a circuit's units, and as many others, do to 50 prompts that the search has not seen.
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

[[nodiscard]] Json figures_of(const Ablation& a, double whole) {
  return {{"ablated_units", a.units},
          {"ablated_logit_difference", a.circuit},
          {"ablated_control_magnitude", a.magnitude},
          {"ablated_control_random", a.random},
          {"kept_fraction", a.kept / whole}};
}

/// Ablates the whole circuit and its strongest parts, and as many units as a gradient alone ranks highest.
template <class Model>
void measure_ablations(const Model& model, const ContrastBatch& tested, const ContrastBatch& others,
                       const std::vector<Node>& circuit, const RankedUnits& ranked, Json& json) {
  const auto corrupt = unit_values(model, PromptPair{tested}.corrupt);
  const auto mean = mean_values(unit_values(model, PromptPair{others}.clean));
  const double whole = logit_difference(model, tested);
  json["tested_logit_difference"] = whole;
  TextTable table{
      {"units", "at corrupt values", "as many of largest change", "as many at random", "all but these at their mean"}};
  table.add_row({"0", fixed(whole, 3), "", "", ""});
  const auto measured = [&](const std::string& name, const std::vector<Node>& nodes) {
    const auto a = ablate(model, tested, corrupt, mean, nodes, ranked);
    table.add_row({name, fixed(a.circuit, 3), fixed(a.magnitude, 3), fixed(a.random, 3), fixed(a.kept, 3)});
    return figures_of(a, whole);
  };
  const auto first = [&](const std::vector<Node>& nodes, std::size_t count) {
    return std::vector<Node>{nodes.begin(), nodes.begin() + static_cast<std::ptrdiff_t>(count)};
  };
  for (const std::size_t part : {16, 4, 1}) {
    const auto strongest = first(circuit, circuit.size() / part);
    json["ablations"].push_back(measured(std::to_string(strongest.size()), strongest));
  }
  json.update(json["ablations"].back());
  json["by_gradient"] = measured("by gradient", first(ranked.by_gradient, circuit.size()));
  std::cout << "logit difference on " << tested.size() << " other prompts, units set\n" << table;
}

/// How much of the model circuits of some sizes are, every other unit behind position 0 at its corrupt value.
template <class Model>
void measure_faithfulness(const Model& model, const ContrastBatch& tested, const std::vector<Node>& found,
                          const RankedUnits& controls, Json& json) {
  const auto corrupt = unit_values(model, PromptPair{tested}.corrupt);
  const auto length = static_cast<std::int64_t>(tested.length());
  const auto with_first = [&](const std::vector<Node>& nodes, std::size_t count) {
    const std::vector<Node> kept{nodes.begin(),
                                 nodes.begin() + static_cast<std::ptrdiff_t>(std::min(count, nodes.size()))};
    return logit_difference(model, tested, patch_units(mask_of(model.config(), length, kept).others(1), corrupt));
  };
  const double full = logit_difference(model, tested);
  const double empty = with_first(found, 0);
  TextTable table{{"units kept", "circuit", "as many of largest change", "as many at random"}};
  for (const double share : {0.005, 0.01, 0.02, 0.049}) {
    const auto count = static_cast<std::size_t>(share * static_cast<double>(controls.shuffled.size()));
    const auto faithfulness = [&](const std::vector<Node>& nodes) {
      return (with_first(nodes, count) - empty) / (full - empty);
    };
    const auto circuit = faithfulness(found);
    const auto change = faithfulness(controls.by_change);
    const auto random = faithfulness(controls.shuffled);
    table.add_row({percent(share), fixed(circuit, 3), fixed(change, 3), fixed(random, 3)});
    json["faithfulness"].push_back(
        {{"share", share}, {"circuit", circuit}, {"largest_change", change}, {"random", random}});
  }
  json["full"] = full;
  json["empty"] = empty;
  std::cout << "faithfulness on the same prompts, every other unit at its corrupt value (" << fixed(full, 3)
            << " for all units, " << fixed(empty, 3) << " for none)\n"
            << table;
}

/// Names the heads that move the name and find the repeated one, and ablates each on the tested prompts.
template <class Model, class Basis>
void name_heads(const Model& model, const Basis& basis, const ContrastBatch& searched, const ContrastBatch& tested,
                Json& json) {
  const auto& config = model.config();
  const auto length = static_cast<std::int64_t>(tested.length());
  const auto lin =
      linearize<final_norm::Frozen>(model, basis, PromptPair{searched}.clean, {}, LogitDifference{searched});
  std::map<std::pair<Layer, Head>, double> direct;
  for (const auto& each : direct_logit_attribution(model, basis, lin).components) {
    if (each.part.kind == ComponentKind::head) direct[{each.part.layer, each.part.head}] = each.value;
  }
  const auto corrupt = unit_values(model, PromptPair{tested}.corrupt);
  const auto report = [&](const char* name, const char* key, HeadEffect head) {
    head.without = logit_difference(model, tested, patch_units(mask_of_head(config, length, head), corrupt));
    const auto label = std::to_string(head.layer.value) + '.' + std::to_string(head.head.value);
    std::cout << name << ": head " << label << "; without it the logit difference is " << fixed(head.without, 3)
              << '\n';
    json[key] = {{"head", label}, {"strength", head.strength}, {"ablated_logit_difference", head.without}};
  };
  report("name mover", "name_mover",
         strongest_head(config, lin.run, searched.role("end"), searched.role("IO"),
                        [&](Layer l, Head h) { return direct[{l, h}]; }));
  report("duplicate token", "duplicate_token",
         strongest_head(config, lin.run, searched.role("S2"), searched.role("S1"), [](Layer, Head) { return 1.0; }));
}

/// Searches the model's own units, and measures what was found.
template <class Model>
void search_neurons(const Model& model, const Options& o, Json& json) {
  constexpr std::size_t tests = 50;
  const auto drawn = draw_contrast(model.tokenizer(), o.search_prompts + 2 * tests + o.faithful_prompts, o.seed);
  const auto searched = drawn.slice(0, o.search_prompts);
  const auto tested = drawn.slice(o.search_prompts, tests);
  const auto others = drawn.slice(o.search_prompts + tests, tests);
  const auto more = drawn.slice(o.search_prompts + 2 * tests, o.faithful_prompts);
  const NeuronBasis basis{model};

  Stopwatch watch;
  const auto ranked = rank_units(model, basis, searched, others);
  json["seconds"]["rank"] = watch.lap();
  const auto circuit = ranked.circuit(o.share);

  constexpr std::size_t most_targets = 48;
  const auto targets = std::min(most_targets, circuit.size());
  auto found = Leap{.keep = keep::Above{o.threshold},
                    .targets = TheseTargets{{circuit.begin(), circuit.begin() + static_cast<std::ptrdiff_t>(targets)}}}(
      model, basis, searched, LogitDifference{searched},
      [&](const StageDone& stage) { json["seconds"]["search"][std::string{stage.stage}] = stage.seconds; });
  json["seconds"]["edges"] = watch.lap();
  json["search_peak_mb"] = peak_mb();
  json["edges"] = found.edge_count();
  for (const auto id : searched.clean.front()) found.info().tokens.push_back(model.tokenizer().token_text(id));
  std::filesystem::create_directories(o.out);
  save_graph_page(o.out / "smollm2.html", found, {.title = "SmolLM2: its own units"});
  std::cout << "\nits own units, searched on " << searched.size() << " prompts: ranked in "
            << fixed(json["seconds"]["rank"], 1) << " s, " << found.edge_count() << " edges into the strongest "
            << targets << " in " << fixed(json["seconds"]["edges"], 1) << " s; page "
            << (o.out / "smollm2.html").string() << '\n';
  measure_ablations(model, tested, others, circuit, ranked, json);
  json["seconds"]["interventions"] = watch.lap();
  const auto against_corrupt = rank_against_corrupt(model, basis, more);
  json["seconds"]["rank_against_corrupt"] = watch.lap();
  measure_faithfulness(model, tested, against_corrupt, ranked, json);
  name_heads(model, basis, searched, tested, json);
  json["seconds"]["faithfulness_and_heads"] = watch.lap();
}

void run(const Options& o) {
  Json json;
  Stopwatch watch;
  const auto model = open_model<Llama>(o.model, [](HookedTransformer<Llama> opened) { return opened; });
  json["seconds"]["open"] = watch.lap();
  describe(o, model, json["seconds"]["open"]);

  const auto prompts = draw_ioi_prompts(model.tokenizer(), o.prompts, o.seed);
  std::cout << prompts.size() << " prompts, such as \"" << prompts.front().text << "\" ->"
            << model.tokenizer().token_text(prompts.front().answer) << '\n';
  json["prompts"] = prompts.size();
  measure_ioi(model, prompts, json);
  if (o.search) search_neurons(model, o, json);
  json["peak_mb"] = peak_mb();
  std::cout << "peak memory " << fixed(json["peak_mb"], 0) << " MB\n";
  if (o.logits) write_logits(model, prompts, *o.logits);
  if (o.json) write_file(*o.json, json.dump(2) + '\n');
}

}  // namespace smollm2

int main(int argc, char** argv) {
  smollm2::Options o;
  CLI::App app{"Opens a Llama, such as SmolLM2 from GGUF, and measures indirect object identification."};
  app.add_option("--model", o.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--prompts", o.prompts, "how many")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--seed", o.seed, "of the prompts")->capture_default_str();
  app.add_option("--search-prompts", o.search_prompts, "how many the search sees")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--faithful-prompts", o.faithful_prompts, "how many the search for a faithful circuit sees")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--share", o.share, "of the units at positions that count as the circuit")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--threshold", o.threshold, "of edges, in logits")->capture_default_str();
  app.add_flag("!--no-search", o.search, "measure accuracy alone");
  app.add_option("--out", o.out, "folder for the page")->capture_default_str();
  app.add_option("--json", o.json, "write every figure to this file");
  app.add_option("--logits", o.logits, "write tokens and last logits to this safetensors file");
  try {
    app.parse(argc, argv);
    smollm2::run(o);
    return 0;
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
