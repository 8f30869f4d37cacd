// Trains sparse dictionaries, several at once, on the activations of a model, and saves them as SAELens folders, or one
// cross-layer transcoder as Gemma Scope 2 keeps it.
//
//   train_dictionaries --attn 1 --mlp 2 --steps 500
//   train_dictionaries --model SmolLM2.gguf --text book.txt --attn 10,11 --mlp 10,11 --features 4096 --skip 1
//   train_dictionaries --cross-layer --skip-path

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/core/shown_text.hpp"
#include "circuit/dictionary/load/sae_lens.hpp"
#include "circuit/dictionary/save/gemma_scope.hpp"
#include "circuit/dictionary/save/sae_lens.hpp"
#include "circuit/dictionary/train/activation/batch_top_k.hpp"
#include "circuit/dictionary/train/activation/jump_relu.hpp"
#include "circuit/dictionary/train/activation/relu.hpp"
#include "circuit/dictionary/train/activation/top_k.hpp"
#include "circuit/dictionary/train/checkpoint.hpp"
#include "circuit/model/open.hpp"
#include "circuit/report/svg_chart.hpp"
#include "circuit/report/table.hpp"
#include "train_dictionaries/activations.hpp"
#include "train_dictionaries/learners.hpp"
#include "train_dictionaries/options.hpp"

namespace train_dictionaries {

using namespace circuit;

/// What the plot shows: of each site the explained variance, and the mean number of active features.
struct History {
  std::vector<std::string> steps{};
  std::vector<Series> explained{};
  double tokens = 0.0;
  double seconds = 0.0;
};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void report(const Options& o, std::int64_t step, const std::vector<train::StepReport>& sites, History& history) {
  double active = 0.0;
  double error = 0.0;
  std::int64_t dead = 0;
  for (std::size_t i = 0; i < sites.size(); ++i) {
    active += sites[i].active / static_cast<double>(sites.size());
    error += sites[i].error / static_cast<double>(sites.size());
    dead += sites[i].dead;
    if (i < history.explained.size()) history.explained[i].values.push_back(1.0 - sites[i].error);
  }
  history.steps.push_back(std::to_string(step));
  std::cerr << "step " << step << " of " << o.training.schedule.steps << "  explained " << fixed(1.0 - error, 3)
            << "  active " << fixed(active, 1) << "  dead " << dead << "  "
            << fixed(history.tokens / history.seconds, 0) << " tokens/s\n";
}

template <class Trainer>
void write_checkpoint(const Options& o, std::vector<Trainer>& trainers, const Activations& activations,
                      std::int64_t step) {
  const auto place = activations.place();
  train::save_checkpoint(
      *o.checkpoint, trainers,
      {.counts = {{"step", step}, {"buffer", place.buffer}, {"batch", place.batch}}, .settings = o.settings()});
}

/// return  the step to go on from
template <class Trainer>
std::int64_t resume(const Options& o, std::vector<Trainer>& trainers, const Activations& activations) {
  if (!o.checkpoint || !std::filesystem::exists(*o.checkpoint)) return 0;
  const auto progress = train::load_checkpoint(*o.checkpoint, trainers, o.settings());
  activations.seek({progress.counts.at("buffer"), progress.counts.at("batch")});
  std::cerr << "resumed at step " << progress.counts.at("step") << '\n';
  return progress.counts.at("step");
}

/// Trains a dictionary per site and returns them; none when it was stopped before its end.
template <class Learner>
std::vector<PlacedDictionary> learn(const Options& o, const Activations& activations, Learner learner,
                                    History& history) {
  for (const auto& name : learner.names) {
    if (history.explained.size() < 8) history.explained.push_back({name, {}});
  }
  const auto steps = o.training.schedule.steps;
  const auto every = std::max<std::int64_t>(1, steps / 50);
  for (auto step = resume(o, learner.trainers, activations); step < steps; ++step) {
    const auto start = seconds_now();
    const auto batch = activations.next();
    const auto reports = learner.step(batch);
    history.seconds += seconds_now() - start;
    history.tokens += static_cast<double>(batch.front().x.size(0));
    if ((step + 1) % every == 0) report(o, step + 1, reports, history);
    const bool stopped = step + 1 == o.stop_after;
    if (o.checkpoint && (stopped || (step + 1) % o.checkpoint_every == 0)) {
      write_checkpoint(o, learner.trainers, activations, step + 1);
    }
    if (stopped) return {};
  }
  std::vector<PlacedDictionary> out;
  for (auto& dictionary : learner.finish()) out.push_back({activations.sites[out.size()], std::move(dictionary)});
  return out;
}

template <train::TrainableActivation A, train::DeadRule Dead>
std::vector<PlacedDictionary> learn(const Options& o, const Activations& activations, const A& activation,
                                    const Dead& dead, History& history) {
  const auto sample = activations.sample();
  return o.cross_layer
             ? learn(o, activations, AcrossLayers<A, Dead>{o, activations.sites, sample, activation, dead}, history)
             : learn(o, activations, EachAlone<A, Dead>{o, activations.sites, sample, activation, dead}, history);
}

std::vector<PlacedDictionary> learn(const Options& o, const Activations& activations, History& history) {
  const auto k = std::max<std::int64_t>(1, static_cast<std::int64_t>(o.active + 0.5));
  const train::dead::Auxiliary auxiliary{.k = std::max<std::int64_t>(1, o.training.features / 16),
                                         .after = o.dead_after};
  const train::Price price{.price = o.price, .wished = o.active};
  if (o.activation == "top_k") return learn(o, activations, train::TopK{.k = k}, auxiliary, history);
  if (o.activation == "batch_top_k") return learn(o, activations, train::BatchTopK{.k = k}, auxiliary, history);
  if (o.activation == "jump_relu") return learn(o, activations, train::JumpRelu{.price = price}, auxiliary, history);
  auto free = o;
  free.training.decoder = train::DecoderRows::free;
  return learn(free, activations, train::Relu{.price = price}, train::dead::Resampled{}, history);
}

void save_across_layers(const Options& o, const std::vector<PlacedDictionary>& dictionaries) {
  std::vector<SparseDictionary<>> layers;
  for (const auto& placed : dictionaries) layers.push_back(placed.dictionary);
  const auto layer = circuit::detail::split_hook(dictionaries.front().hooks.out)->first;
  save_gemma_scope_cross_layer(o.out / "clt", layers,
                               {.first_layer = layer.value, .dtype = o.half ? at::kHalf : at::kFloat});
}

void save(const Options& o, const Activations& activations, const std::vector<PlacedDictionary>& dictionaries) {
  if (o.cross_layer) return save_across_layers(o, dictionaries);
  for (const auto& [hooks, dictionary] : dictionaries) {
    save_sae_lens(o.out / hooks.in, dictionary,
                  {.hooks = hooks,
                   .model_name = o.model.filename().string(),
                   .context_size = static_cast<std::int64_t>(o.length),
                   .prepend_bos = o.bos,
                   .expects = activations.processing,
                   .dtype = o.half ? at::kHalf : at::kFloat});
  }
}

/// Some tokens of each site, what is described there, and what the dictionary as it is on disk makes of them, for other
/// programs to compare with (tests/data/dictionaries/trained.py).
void write_probes(const Options& o, const Activations& activations) {
  const auto sample = activations.sample();
  for (std::size_t i = 0; i < sample.size(); ++i) {
    const auto folder = o.out / activations.sites[i].in;
    const auto dictionary = load_sae_lens(folder).dictionary;
    const auto few = std::min<std::int64_t>(256, sample[i].x.size(0));
    const auto x = sample[i].x.narrow(0, 0, few);
    const auto acts = dictionary.encode(x);
    write_safetensors(folder / "probe.safetensors",
                      std::vector{to_view("x", x), to_view("y", sample[i].y.narrow(0, 0, few)), to_view("acts", acts),
                                  to_view("out", dictionary.output(dictionary.decode(acts), x))});
  }
}

nlohmann::json to_json(const DictionaryQuality& quality, const History& history) {
  nlohmann::json json{{"tokens", quality.tokens},
                      {"loss",
                       {{"clean", quality.loss.clean},
                        {"spliced", quality.loss.spliced},
                        {"zero", quality.loss.zero},
                        {"recovered", quality.loss.recovered()}}},
                      {"seconds", history.seconds},
                      {"trained_tokens", history.tokens}};
  for (const auto& site : quality.sites) {
    json["sites"].push_back({{"reads", site.hooks.in},
                             {"writes", site.hooks.out},
                             {"features", site.features},
                             {"active", site.active},
                             {"explained", site.explained},
                             {"dead", site.dead},
                             {"frequency", site.frequency}});
  }
  return json;
}

void show(const Options& o, const DictionaryQuality& quality, const History& history) {
  TextTable table{{"site", "features", "active", "explained", "dead"}};
  for (const auto& site : quality.sites) {
    table.add_row({site.hooks.out, std::to_string(site.features), fixed(site.active, 1), fixed(site.explained, 3),
                   fixed(site.dead, 3)});
  }
  std::cout << table << "cross-entropy on " << quality.tokens << " tokens held out: clean "
            << fixed(quality.loss.clean, 3) << ", all sites by their dictionaries " << fixed(quality.loss.spliced, 3)
            << ", by zeros " << fixed(quality.loss.zero, 3) << "; loss recovered " << fixed(quality.loss.recovered(), 3)
            << '\n';
  if (history.steps.size() > 1) {
    write_file(o.out / "training.svg", line_chart(history.steps, history.explained,
                                                  {.title = "Explained variance while training",
                                                   .x_title = "step",
                                                   .y_title = "of each step's batch"}));
  }
  if (o.json) write_file(*o.json, to_json(quality, history).dump(2) + '\n');
}

/// What cannot be saved is found before the work. throws  ConfigError
void check(const Options& o, const Sites& sites) {
  const auto transcoder = std::find_if_not(sites.begin(), sites.end(), [](const auto& s) { return train::is_sae(s); });
  if (o.activation == "top_k" && transcoder != sites.end()) {
    throw ConfigError{{.tensor = transcoder->out,
                       .problem = "no layout has a place for a TopK transcoder",
                       .hint = "batch_top_k becomes a JumpReLU"}};
  }
  for (std::size_t i = 1; o.cross_layer && i < sites.size(); ++i) {
    const auto layer = [&](std::size_t site) { return circuit::detail::split_hook(sites[site].out)->first.value; };
    if (layer(i) == layer(i - 1) + 1) continue;
    throw ConfigError{{.tensor = sites[i].out, .problem = "a cross-layer transcoder's layers follow each other"}};
  }
}

void run(const Options& o) {
  const c10::AutoGradMode no_gradient{false};
  if (o.threads > 0) at::set_num_threads(o.threads);
  std::filesystem::create_directories(o.out);
  open_model(o.model, [&](const auto& model) {
    with_activations(o, model, [&](const Activations& activations) {
      check(o, activations.sites);
      History history;
      const auto dictionaries = learn(o, activations, history);
      if (dictionaries.empty()) return;
      save(o, activations, dictionaries);
      if (o.probe) write_probes(o, activations);
      show(o, activations.measure(dictionaries), history);
    });
  });
}

}  // namespace train_dictionaries

int main(int argc, char** argv) {
  train_dictionaries::Options o;
  CLI::App app{"Trains sparse dictionaries on the activations of a model and saves them as SAELens folders."};
  train_dictionaries::add_flags(app, o);
  try {
    app.parse(argc, argv);
    o.stream.seed = o.training.seed;
    train_dictionaries::run(o);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const circuit::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
