// Trains the small language model and the dictionaries that examples/data/ holds, or others of your own sizes.
// Everything is made here: the text, the tokenizer, the GPT-2, an attention SAE and an MLP transcoder per layer.
// The same flags and number of threads on the same machine give the same files.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "circuit/core/error.hpp"
#include "circuit/data/contrast_batch.hpp"
#include "circuit/data/ioi.hpp"
#include "circuit/dictionary/load/sae_lens.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "train/demo_story.hpp"
#include "train/dictionaries.hpp"
#include "train/evaluation.hpp"
#include "train/language_model.hpp"
#include "train/save.hpp"
#include "train/text.hpp"
#include "train/together.hpp"

namespace {

using namespace train;

struct Settings {
  std::filesystem::path out = "embedded";
  std::filesystem::path model_folder{};
  int more_steps = 1600;
  int hard_steps = 1200;
  bool only_measure = false;
  std::uint64_t seed = 1;
  int threads = 1;
  std::int64_t layers = 4;
  std::int64_t heads = 8;
  std::int64_t width = 128;
  std::int64_t mlp_width = 256;
  std::int64_t context = 48;
  std::size_t batch_size = 48;
  std::size_t dictionary_batch = 24;
  double answer_weight = 5.0;
  LanguageModelOptions model{};
  DictionaryOptions dictionary{};
  TogetherOptions together{};
  std::filesystem::path dictionary_folder{};
  std::size_t exam_size = 2000;
  std::size_t demo_prompts = 128;
};

Settings parse(int argc, char** argv, CLI::App& app) {
  Settings s;
  app.add_option("--out", s.out, "folder to write")->capture_default_str();
  app.add_option("--model", s.model_folder, "a GPT-2 folder to make dictionaries for, instead of training one");
  app.add_flag("--measure", s.only_measure,
               "train nothing: read --out and print its figures; exit 2 if a bar is missed");
  app.add_option("--seed", s.seed, "of text, initial weights and sampling")->capture_default_str();
  app.add_option("--threads", s.threads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--layers", s.layers)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--heads", s.heads)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--width", s.width, "d_model")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--mlp-width", s.mlp_width)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--context", s.context, "positions; the text needs 48")
      ->check(CLI::Range(48, 1 << 16))
      ->capture_default_str();
  app.add_option("--batch-size", s.batch_size, "lines per step")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--answer-weight", s.answer_weight, "how much more a token counts that can be known")
      ->capture_default_str();
  app.add_option("--steps", s.model.steps, "of the language model")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--more-steps", s.more_steps, "of a second cycle at 0.6 times the rates")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--hard-steps", s.hard_steps, "of a third cycle, with more hard text")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--hidden-rate", s.model.hidden_rate, "learning rate of the hidden matrices")->capture_default_str();
  app.add_option("--other-rate", s.model.other_rate, "learning rate of everything else")->capture_default_str();
  app.add_option("--far-price", s.model.far_price, "for lower layers that look far back")->capture_default_str();
  app.add_option("--near", s.model.near, "tokens that are not far")->capture_default_str();
  app.add_option("--attn-features", s.dictionary.attn_features, "per attention SAE")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--mlp-features", s.dictionary.mlp_features, "per transcoder")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--dictionary-steps", s.dictionary.steps)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--dictionary-batch", s.dictionary_batch, "lines per step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--dictionary-rate", s.dictionary.rate)->capture_default_str();
  app.add_option("--together-steps", s.together.steps, "in which all dictionaries are trained on together")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--together-rate", s.together.rate, "of each tensor's typical entry")->capture_default_str();
  app.add_option("--together-price", s.together.first_price, "of an active feature at first")->capture_default_str();
  app.add_option("--together-active", s.together.active, "wished active features per token there")
      ->capture_default_str();
  app.add_option("--together-local", s.together.local, "weight of each dictionary's own loss there")
      ->capture_default_str();
  app.add_option("--dictionaries", s.dictionary_folder, "a folder that --out wrote, whose dictionaries are trained on");
  app.add_option("--active", s.dictionary.active, "wished active features per token")->capture_default_str();
  app.add_option("--exam-size", s.exam_size, "prompts per task")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--demo-prompts", s.demo_prompts, "prompts per prompt file")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.parse(argc, argv);
  if (s.width % s.heads != 0) throw CLI::ValidationError("--heads", "must divide --width");
  return s;
}

class Stopwatch {
 public:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

double print_exams(const Model& model, const circuit::Tokenizer& tokenizer, const std::vector<Exam>& exams) {
  double worst = 1.0;
  for (const auto& exam : exams) {
    const double share = accuracy(model, tokenizer, exam.prompts);
    std::cout << "  " << std::setw(24) << std::left << exam.name << std::right << std::setw(8) << share
              << (share > exam.bar ? "" : "   below the bar of ") << (share > exam.bar ? "" : std::to_string(exam.bar))
              << '\n';
    worst = std::min(worst, share - exam.bar);
  }
  std::cout << std::flush;
  return worst;
}

void print_dictionaries(const DictionaryFigures& figures) {
  std::cout << "  site   features  active   dead   explained   PCA rank   PCA explained\n" << std::setprecision(3);
  const auto row = [](const std::string& name, const SiteFigures& f) {
    std::cout << "  " << std::setw(8) << std::left << name << std::right << std::setw(7) << f.features << std::setw(8)
              << f.active << std::setw(9) << f.dead << std::setw(12) << f.explained << std::setw(11) << f.rank
              << std::setw(16) << f.pca_explained << '\n';
  };
  for (std::size_t l = 0; l < figures.attn.size(); ++l) {
    row("attn." + std::to_string(l), figures.attn[l]);
    row("mlp." + std::to_string(l), figures.mlp[l]);
  }
  std::cout << "  cross-entropy: clean " << figures.ce_clean << ", all modules zero " << figures.ce_zero
            << ", all dictionaries " << figures.ce_spliced << ", all PCA " << figures.ce_pca << '\n'
            << "  loss recovered: dictionaries " << figures.recovered(figures.ce_spliced) << ", PCA of the same rank "
            << figures.recovered(figures.ce_pca) << '\n'
            << std::setprecision(6) << std::flush;
}

/// The bars of the dictionaries: what they keep with all of them spliced in, how sparse they are, and how many fire.
bool meets_bars(const DictionaryFigures& figures) {
  bool good = figures.recovered(figures.ce_spliced) > 0.95 && figures.ce_spliced < figures.ce_pca;
  for (const auto* sites : {&figures.attn, &figures.mlp}) {
    for (const auto& site : *sites) good = good && site.active <= 12.0 && site.dead < 0.1;
  }
  return good;
}

/// Prompts of one template, with held-out pairs of names.
std::vector<TaskPrompt> demo_prompts(circuit::data::IoiOrder order, std::size_t count, std::uint64_t seed) {
  circuit::data::Random random{seed};
  auto story = demo_story;
  story.order = order;
  story.pairs = Split::held_out;
  std::vector<TaskPrompt> prompts;
  for (std::size_t i = 0; i < count; ++i) prompts.push_back(circuit::data::make_ioi(random, story));
  return prompts;
}

/// Says how the model solves the demo's prompts, and writes the prompt files unless only measuring.
/// return  true when the corrupt run's patterns in the upper half of the layers cost 30 % of the logit difference
bool print_circuits(const Model& model, const circuit::Tokenizer& tokenizer, const Settings& s) {
  bool good = true;
  for (const auto& [name, order] : {std::pair{"ioi_ABBA.json", circuit::data::IoiOrder::abba},
                                    std::pair{"ioi_BABA.json", circuit::data::IoiOrder::baba}}) {
    const auto prompts = demo_prompts(order, s.demo_prompts, s.seed + 4000);
    if (!s.only_measure) circuit::save_prompts(s.out / name, prompts);
    const auto figures = measure_circuit(model, circuit::make_contrast_batch(prompts, tokenizer));
    std::cout << "  " << name << ": right " << accuracy(model, tokenizer, prompts) << ", logit difference clean "
              << figures.clean << ", corrupt " << figures.corrupt << ", with corrupt patterns in the upper half "
              << figures.corrupt_patterns << ", without attention's writes at S2 " << figures.s2_silenced << '\n';
    good = good && figures.corrupt_patterns < 0.7 * figures.clean;
  }
  std::cout << std::flush;
  return good;
}

circuit::ModelConfig config_of(const Settings& s, std::size_t vocabulary) {
  return {.n_layers = s.layers,
          .d_model = s.width,
          .n_heads = s.heads,
          .n_key_value_heads = s.heads,
          .d_head = s.width / s.heads,
          .d_mlp = s.mlp_width,
          .d_vocab = static_cast<std::int64_t>(vocabulary),
          .n_ctx = s.context,
          .score_scale = std::sqrt(static_cast<double>(s.width / s.heads))};
}

/// Stage 1: tokenizer and language model, written as a Hugging Face folder.
void make_model(const Settings& s, const std::vector<Exam>& exams, at::Generator& random,
                const std::filesystem::path& folder) {
  const auto trained_bpe = make_tokenizer(exams, s.seed + 2000);
  const auto tokenizer = trained_bpe.tokenizer();
  std::filesystem::create_directories(folder);
  circuit::save_tokenizer_json(folder / "tokenizer.json", trained_bpe);
  std::cout << "tokenizer: " << tokenizer.size() << " tokens\n" << std::flush;

  const auto config = config_of(s, tokenizer.size());
  const auto weights = InitialWeights{config, random}.make();
  const Stopwatch time;
  const auto train_on = [&](const LanguageModelOptions& options, std::uint64_t seed) {
    TextStream text{tokenizer, seed, s.batch_size, s.answer_weight};
    train_language_model(config, weights, text, options, [&](int step, double loss) {
      if (step % 100 != 0) return;
      std::cout << "step " << step << "  loss " << loss << "  " << time.seconds() << " s\n" << std::flush;
      if (step % 500 == 0) print_exams(Model{config, weights}, tokenizer, exams);
    });
    round_to_half(weights);
  };
  train_on(s.model, s.seed + 3000);
  // Cooler cycles, for what is rare: one on the same text, one on more of what is hard.
  auto cooler = s.model;
  cooler.lists_first = false;
  cooler.hidden_rate *= 0.6;
  cooler.other_rate *= 0.6;
  cooler.steps = s.more_steps;
  if (cooler.steps > 0) train_on(cooler, s.seed + 3500);
  cooler.steps = s.hard_steps;
  cooler.hard = true;
  if (cooler.steps > 0) train_on(cooler, s.seed + 3700);
  save_gpt2(folder, config, weights, *tokenizer.bos_id());
}

std::filesystem::path attn_folder(const std::filesystem::path& folder, std::size_t layer) {
  return folder / "attn-saes" / ("blocks." + std::to_string(layer) + ".attn.hook_z");
}
std::filesystem::path mlp_folder(const std::filesystem::path& folder, std::size_t layer) {
  return folder / "transcoders" / ("blocks." + std::to_string(layer) + ".ln2.hook_normalized");
}

Dictionaries load_dictionaries(const std::filesystem::path& folder, std::int64_t n_layers) {
  Dictionaries dictionaries;
  for (std::size_t l = 0; l < static_cast<std::size_t>(n_layers); ++l) {
    dictionaries.attn.push_back(circuit::load_sae_lens(attn_folder(folder, l)).dictionary);
    dictionaries.mlp.push_back(circuit::load_sae_lens(mlp_folder(folder, l)).dictionary);
  }
  return dictionaries;
}

/// Stage 2: a dictionary for every module of a model, each by itself.
Dictionaries make_dictionaries(const Settings& s, const Model& model) {
  const Stopwatch time;
  TextStream text{model.tokenizer(), s.seed + 5000, s.dictionary_batch, 1.0};
  return train_dictionaries(model, text, s.dictionary, s.seed + 7000, [&](int step, double active) {
    if (step % 200 != 0) return;
    std::cout << "dictionaries: step " << step << "  active " << active << "  " << time.seconds() << " s\n"
              << std::flush;
  });
}

/// Stage 3: all of them together, each in the company of the others.
void train_together(const Settings& s, const Model& model, Dictionaries& dictionaries) {
  const Stopwatch time;
  TextStream text{model.tokenizer(), s.seed + 5500, s.dictionary_batch, 1.0};
  TogetherTrainer trainer{model, dictionaries, record_modules(model, next_batches(text, 8)), s.together};
  for (int step = 0; step < s.together.steps; ++step) {
    const auto report = trainer.step(text.next());
    if ((step + 1) % 25 != 0) continue;
    std::cout << "together: step " << step + 1 << "  divergence " << report.divergence << "  error " << report.error
              << "  active " << report.active << "  " << time.seconds() << " s\n"
              << std::flush;
  }
  trainer.finish();
}

void save_dictionaries(const Settings& s, const Dictionaries& dictionaries) {
  for (std::size_t l = 0; l < dictionaries.attn.size(); ++l) {
    const auto block = "blocks." + std::to_string(l) + '.';
    const auto z = block + "attn.hook_z";
    save_dictionary(attn_folder(s.out, l), dictionaries.attn[l], {z, z}, s.context);
    save_dictionary(mlp_folder(s.out, l), dictionaries.mlp[l], {block + "ln2.hook_normalized", block + "hook_mlp_out"},
                    s.context);
  }
}

/// Reads everything back as everyone will (float16, processed weights) and prints what it is worth.
/// return  true when every bar is met
bool measure(const Settings& s, const Model& model, const std::vector<Exam>& exams) {
  bool good = print_exams(model, model.tokenizer(), exams) > 0.0;
  good = print_circuits(model, model.tokenizer(), s) && good;
  const auto dictionaries = load_dictionaries(s.out, model.config().n_layers);
  TextStream fresh{model.tokenizer(), s.seed + 6000, 64, 1.0};
  const auto figures = measure_dictionaries(model, dictionaries, next_batches(fresh, 64));
  print_dictionaries(figures);
  std::cout << "tasks with all dictionaries in place of their modules:\n";
  for (const auto& exam : exams) {
    std::cout << "  " << std::setw(24) << std::left << exam.name << std::right << std::setw(8)
              << accuracy(model, model.tokenizer(), exam.prompts, splice_dictionaries(dictionaries)) << '\n';
  }
  return meets_bars(figures) && good;
}

bool run(const Settings& s) {
  const c10::AutoGradMode no_gradient{false};
  at::set_num_threads(s.threads);
  const Stopwatch total;
  auto random = at::detail::createCPUGenerator(s.seed);
  const auto exams = make_exams(s.exam_size, s.seed + 1000);
  const auto folder = s.model_folder.empty() ? s.out / "model" : s.model_folder;
  if (s.model_folder.empty() && !s.only_measure) make_model(s, exams, random, folder);
  const auto model = circuit::load_model<circuit::Gpt2>(folder);
  if (!s.only_measure) {
    auto dictionaries = s.dictionary_folder.empty() ? make_dictionaries(s, model)
                                                    : load_dictionaries(s.dictionary_folder, model.config().n_layers);
    if (s.together.steps > 0) train_together(s, model, dictionaries);
    save_dictionaries(s, dictionaries);
  }
  std::cout << "as read back from " << s.out.string() << ", after " << total.seconds() << " s:\n";
  return measure(s, model, exams);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Trains a small GPT-2 on text of its own making, and sparse dictionaries for all its modules"};
  try {
    return run(parse(argc, argv, app)) ? 0 : 2;
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const circuit::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
