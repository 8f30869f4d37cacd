#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "circuit/dictionary/train/activation_stream.hpp"
#include "circuit/dictionary/train/trainer.hpp"

namespace train_dictionaries {

/// Every flag of the program; the defaults suit the embedded model.
struct Options {
  std::filesystem::path model = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "model";
  std::filesystem::path out = "dictionaries";
  std::vector<std::int32_t> attn{};
  std::vector<std::int32_t> mlp{};
  std::vector<std::string> sites{};
  bool skip_path = false;
  bool cross_layer = false;

  std::vector<std::filesystem::path> text{};
  bool lines = false;
  bool written = false;
  std::int64_t written_rows = 0;
  std::optional<std::int32_t> written_first{};
  bool tasks = false;
  bool bos = true;
  std::size_t length = 48;
  std::int64_t held_out = 128;

  std::string activation = "batch_top_k";
  double active = 12.0;
  double price = 0.01;
  circuit::train::Options training{
      .features = 512, .schedule = {.steps = 1500, .rate = 2e-3}, .start = circuit::train::Start::directions};
  bool bfloat16 = false;
  circuit::train::StreamOptions stream{};
  std::int64_t dead_after = 100'000;

  std::optional<std::filesystem::path> checkpoint{};
  std::int64_t checkpoint_every = 500;
  std::int64_t stop_after = 0;
  bool half = false;
  bool probe = false;
  int threads = 0;
  std::optional<std::filesystem::path> json{};

  [[nodiscard]] bool uses_tasks() const { return tasks || (text.empty() && !written); }

  /// What a run that is resumed must have in common with the one that was stopped.
  [[nodiscard]] std::map<std::string, std::string> settings() const {
    std::map<std::string, std::string> s{{"model", model.string()},
                                         {"activation", activation},
                                         {"active", std::to_string(active)},
                                         {"price", std::to_string(price)},
                                         {"steps", std::to_string(training.schedule.steps)},
                                         {"rate", std::to_string(training.schedule.rate)},
                                         {"batch", std::to_string(stream.batch)},
                                         {"buffer_rows", std::to_string(stream.buffer_rows)},
                                         {"skip", std::to_string(stream.skip)},
                                         {"length", std::to_string(length)},
                                         {"start", training.start == circuit::train::Start::tokens ? "tokens" : ""},
                                         {"seed", std::to_string(training.seed)},
                                         {"bos", bos ? "yes" : "no"},
                                         {"cross_layer", cross_layer ? "yes" : "no"},
                                         {"products", bfloat16 ? "bfloat16" : "float32"}};
    if (written) s["written"] = std::to_string(written_rows) + " from " + std::to_string(written_first.value_or(-1));
    if (uses_tasks()) s["tasks"] = "yes";
    for (const auto& file : text) s["text"] += (lines ? " lines of " : " ") + file.string();
    return s;
  }
};

inline void add_flags(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Hugging Face folder or GGUF file")->capture_default_str();
  app.add_option("--out", o.out, "folder for the dictionaries, the plot and a checkpoint")->capture_default_str();
  auto* attn = app.add_option("--attn", o.attn, "layers whose heads get an SAE on attn.hook_z")->delimiter(',');
  app.add_option("--mlp", o.mlp, "layers whose MLP gets a transcoder")->delimiter(',');
  auto* site = app.add_option(
      "--site", o.sites,
      "other hooks: blocks.3.hook_resid_pre for an SAE, blocks.3.ln2.hook_normalized:blocks.3.hook_mlp_out "
      "for a transcoder; no site at all: every layer's attention and MLP");
  app.add_flag("--skip-path", o.skip_path, "transcoders have a linear path beside their features");

  app.add_option("--text", o.text, "text files; no text of any kind: lines of the library's own tasks");
  app.add_flag("--lines", o.lines, "each line of the text is a row of its own");
  app.add_flag("--written", o.written, "text that the model writes itself");
  app.add_option("--written-rows", o.written_rows, "so many, again and again; 0: new ones always")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--written-first", o.written_first, "the token that they begin with; none: the BOS");
  app.add_flag("--tasks", o.tasks, "lines of the library's own tasks, beside other text");
  app.add_flag("!--no-bos", o.bos, "no BOS before the rows of files and tasks");
  app.add_option("--length", o.length, "most tokens of a row")->check(CLI::Range(2, 1 << 16))->capture_default_str();
  app.add_option("--held-out", o.held_out, "rows on which the dictionaries are measured")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();

  app.add_option("--activation", o.activation, "top_k, batch_top_k, jump_relu or relu")
      ->check(CLI::IsMember({"top_k", "batch_top_k", "jump_relu", "relu"}))
      ->capture_default_str();
  app.add_option("--active", o.active, "wished mean number of active features per token")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--price", o.price, "of an active feature at first, for jump_relu and relu")->capture_default_str();
  app.add_option("--features", o.training.features, "per dictionary")->capture_default_str();
  app.add_flag_callback(
      "--start-at-tokens", [&o] { o.training.start = circuit::train::Start::tokens; },
      "features start as tokens of the first buffer instead of random directions");
  app.add_option("--steps", o.training.schedule.steps)->capture_default_str();
  app.add_option("--rate", o.training.schedule.rate, "learning rate")->capture_default_str();
  app.add_option("--warm-up", o.training.schedule.warm_up, "steps over which it rises")->capture_default_str();
  app.add_option("--decay", o.training.schedule.decay, "share of the steps over which it falls")->capture_default_str();
  app.add_option("--clip", o.training.clip, "largest norm of a gradient; 0: any")->capture_default_str();
  app.add_flag("--bfloat16", o.bfloat16,
               "matrix products of bfloat16 under float32 weights: faster where the processor has them");
  app.add_option("--dead-after", o.dead_after, "tokens without firing that make a feature dead")->capture_default_str();
  app.add_option("--least-fired", o.training.least_fired,
                 "leave out features that fire less often over the last 30 % of the steps")
      ->capture_default_str();
  app.add_option("--batch", o.stream.batch, "tokens per step, about")->capture_default_str();
  app.add_option("--buffer-rows", o.stream.buffer_rows, "rows that are shuffled together")->capture_default_str();
  app.add_option("--rows-per-run", o.stream.rows_per_run, "rows of one forward pass")->capture_default_str();
  app.add_option("--skip", o.stream.skip, "first positions of each row to leave alone, such as a BOS")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seed", o.training.seed)->capture_default_str();

  app.add_option("--checkpoint", o.checkpoint, "file to go on from, if it is there, and to write now and then");
  app.add_option("--checkpoint-every", o.checkpoint_every, "steps")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--stop-after", o.stop_after, "stop at this step with a checkpoint, to go on later");
  app.add_flag("--half", o.half, "save float16");
  auto* probe =
      app.add_flag("--probe", o.probe, "write probe.safetensors beside each: some tokens and what becomes of them");
  app.add_flag("--cross-layer", o.cross_layer,
               "one transcoder of all MLPs named, or of all: features write into later layers too; saved as clt/")
      ->excludes(attn)
      ->excludes(site)
      ->excludes(probe);
  app.add_option("--threads", o.threads, "0: as many as there are cores")->capture_default_str();
  app.add_option("--json", o.json, "write every figure to this file");
}

}  // namespace train_dictionaries
