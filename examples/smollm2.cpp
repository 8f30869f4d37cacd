// Opens a language model as it comes, SmolLM2 in a GGUF file (`./demo.sh --smollm2` fetches it) or any other of Llama's
// kind, and measures how it completes "When Alice and Bob went to the store, Bob gave a ring to", with and without a
// beginning-of-sequence token. Then searches which of its own neurons and head dimensions do it, and ablates them; or
// with --dictionaries which features of dictionaries that were trained for some of its layers.
#include <CLI/CLI.hpp>
#include <circuit/core/atomic_file.hpp>
#include <circuit/io/safetensors.hpp>
#include <circuit/model/open.hpp>
#include <circuit/report/graph_page.hpp>
#include <circuit/report/table.hpp>
#include <iostream>
#include <optional>
#include <system_error>

#include "smollm2/contrast.hpp"
#include "smollm2/experiments.hpp"
#include "smollm2/feature_search.hpp"
#include "smollm2/ioi_task.hpp"
#include "smollm2/measure.hpp"
#include "smollm2/neuron_search.hpp"

namespace smollm2 {

using namespace circuit;
struct Options {
  std::filesystem::path model;
  std::size_t prompts = 100;
  std::uint64_t seed = 1;
  std::size_t search_prompts = 8;
  std::size_t faithful_prompts = 48;
  double share = 0.02;
  double threshold = 0.02;
  std::optional<std::filesystem::path> dictionaries;
  bool search = true;
  std::vector<std::string> orders{"ABBA", "BABA"};
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

/// Those of prompts with one order of the names.
std::vector<IoiOutcome> of_order(const std::vector<IoiPrompt>& prompts, const std::vector<IoiOutcome>& outcomes,
                                 data::IoiOrder order) {
  std::vector<IoiOutcome> chosen;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].order == order) chosen.push_back(outcomes[i]);
  }
  return chosen;
}

/// Accuracy and logit difference with and without a BOS, of all prompts and by the order of the names; where the
/// figures need one, they are those of all without.
template <class Model>
void measure_ioi(const Model& model, const std::vector<IoiPrompt>& prompts, Json& json) {
  TextTable table{{"beginning", "names", "over the subject", "over all tokens", "logit difference"}};
  Stopwatch watch;
  const auto row = [&](const char* name, const char* key, Bos bos) {
    const auto outcomes = answer(model, prompts, bos);
    const auto figures = [&](const char* names, const std::vector<IoiOutcome>& some) {
      const auto means = figures_of(some);
      table.add_row({name, names, percent(means["accuracy"]), percent(means["top_accuracy"]),
                     fixed(means["logit_difference"], 3)});
      return means;
    };
    json[key] = figures("all", outcomes);
    for (const auto& [names, order] : {std::pair{"ABBA", data::IoiOrder::abba}, {"BABA", data::IoiOrder::baba}}) {
      if (prompts.size() > 1) json[key][names] = figures(names, of_order(prompts, outcomes, order));
    }
    json["seconds"][key] = watch.lap();
    return json[key];
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

/// Prompts of one order of the names.
template <class Model>
[[nodiscard]] Study draw_study(const Model& model, const std::string& order, const Options& o) {
  constexpr std::size_t tests = 50;
  const auto drawn = draw_contrast(model.tokenizer(), order == "ABBA" ? data::IoiOrder::abba : data::IoiOrder::baba,
                                   o.search_prompts + 2 * tests + o.faithful_prompts, o.seed);
  return {.name = order,
          .searched = drawn.slice(0, o.search_prompts),
          .tested = drawn.slice(o.search_prompts, tests),
          .others = drawn.slice(o.search_prompts + tests, tests),
          .more = drawn.slice(o.search_prompts + 2 * tests, o.faithful_prompts),
          .out = o.out};
}

/// LEAP's edges into the strongest of a circuit's units, and their page.
template <class Model, class Basis>
void find_edges(const Model& model, const Basis& basis, const std::vector<Node>& circuit, double threshold,
                Study& study) {
  constexpr std::size_t most_targets = 48;
  auto& json = study.figures;
  auto found = Leap{.keep = keep::Above{threshold}, .targets = TheseTargets{first_of(circuit, most_targets)}}(
      model, basis, study.searched, LogitDifference{study.searched},
      [&](const StageDone& stage) { json["seconds"]["search"][std::string{stage.stage}] = stage.seconds; });
  json["search_peak_mb"] = peak_mb();
  json["edges"] = found.edge_count();
  for (const auto id : study.searched.clean.front()) found.info().tokens.push_back(model.tokenizer().token_text(id));
  save_graph_page(study.file("graph", ".html"), found, {.title = "SmolLM2, " + study.name + ": its own units"});
}

/// Searches the model's own units, and measures what was found.
template <class Model, class Basis>
void search_neurons(const Model& model, const Basis& basis, const Options& o, Study& study) {
  auto& json = study.figures;
  auto& seconds = json["seconds"];
  Stopwatch watch;
  const auto ranked = rank_units(model, basis, study.searched, study.others);
  seconds["rank"] = watch.lap();
  const auto circuit = ranked.circuit(o.share);
  find_edges(model, basis, circuit, o.threshold, study);
  seconds["edges"] = watch.lap();
  std::cout << '\n'
            << study.name << ": its own units, searched on " << study.searched.size() << " prompts such as \""
            << model.tokenizer().decode(study.searched.clean.front()) << "\": ranked in " << fixed(seconds["rank"], 1)
            << " s, " << json["edges"] << " edges into the strongest in " << fixed(seconds["edges"], 1) << " s\n";
  measure_ablations(model, circuit, ranked, study);
  seconds["interventions"] = watch.lap();
  const auto against_corrupt = by_worth(worth_of_units(model, basis, study.more));
  seconds["rank_against_corrupt"] = watch.lap();
  measure_faithfulness(model, against_corrupt, ranked, study);
  const auto heads = name_heads(model, basis, study.searched);
  measure_heads(model, heads, study);
  draw_attention(model, heads.name_movers, circuit, study);
  seconds["faithfulness_and_heads"] = watch.lap();
}

/// Both orders of the names; the figures of the first are those of the whole program too.
template <class Model>
void search_orders(const Model& model, const Options& o, Json& json) {
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  if (error) throw FileError{{.file = o.out, .problem = "cannot be made a folder: " + error.message()}};
  const auto search = [&](auto&& use) {
    for (const auto& order : o.orders) {
      auto study = draw_study(model, order, o);
      use(study);
      json["orders"][order] = std::move(study.figures);
    }
  };
  if (o.dictionaries) {
    const auto set = dictionary::load_set(dictionaries_in(*o.dictionaries), model);
    set.check(model.config(), model.processing(), model.dtype());
    search([&](Study& study) { search_features(model, set, o.threshold, study); });
  } else {
    const NeuronBasis basis{model};
    search([&](Study& study) { search_neurons(model, basis, o, study); });
  }
  auto first = json["orders"][o.orders.front()];
  json["order"] = o.orders.front();
  json["seconds"].update(first["seconds"]);
  first.erase("seconds");
  json.update(first);
  std::cout << '\n';
  for (const auto& order : o.orders) {
    for (const auto& file : json["orders"][order]["files"]) std::cout << file.template get<std::string>() << '\n';
  }
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
  if (o.search) search_orders(model, o, json);
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
  app.add_option("--dictionaries", o.dictionaries,
                 "search the features of the dictionaries in this folder instead of the model's own units");
  app.add_option("--threshold", o.threshold, "of edges, in logits")->capture_default_str();
  app.add_flag("!--no-search", o.search, "measure accuracy alone");
  app.add_option("--orders", o.orders, "whose circuits are searched: the order in which the two names come first")
      ->check(CLI::IsMember({"ABBA", "BABA"}))
      ->capture_default_str();
  app.add_option("--out", o.out, "folder for pages and charts")->capture_default_str();
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
