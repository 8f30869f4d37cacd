#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ioi {

/// Every flag of the program; the defaults are the embedded model's.
struct Options {
  std::filesystem::path model = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "model";
  std::filesystem::path attn_saes = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "attn-saes";
  std::filesystem::path transcoders = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "transcoders";
  std::vector<std::filesystem::path> prompts{std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "ioi_BABA.json",
                                             std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "ioi_ABBA.json"};
  std::size_t batch_size = 10;
  std::size_t first_batch = 0;
  bool token_ids = false;
  bool float64 = false;

  double threshold = 0.005;
  bool no_qk = false;
  bool contrast = true;
  bool path_chain = false;
  bool seed_policies = false;
  bool all_edges = false;
  bool per_prompt = false;

  std::size_t cluster_size = 12;
  std::vector<std::string> c1;
  std::uint64_t seed = 1;
  bool lens = false;
  std::optional<std::int32_t> head;

  std::optional<std::filesystem::path> edges;
  std::optional<std::filesystem::path> json;
  std::filesystem::path out = "out";
};

inline void add_flags(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Hugging Face folder of a GPT-2")->capture_default_str();
  app.add_option("--attn-saes", o.attn_saes, "folder of attention SAEs, one per layer")->capture_default_str();
  app.add_option("--transcoders", o.transcoders, "folder of MLP transcoders, one per layer")->capture_default_str();
  app.add_option("--prompts", o.prompts,
                 "prompt files; the first is studied, the others are searched and compared with it")
      ->capture_default_str();
  app.add_option("--batch-size", o.batch_size, "prompts to take; 0: all")->capture_default_str();
  app.add_option("--first-batch", o.first_batch, "number of the first prompt to take")->capture_default_str();
  app.add_flag("--token-ids", o.token_ids, "prompt files hold token ids that count the BOS; no tokenizer is read");
  app.add_option_function<std::string>(
         "--dtype", [&o](const std::string& name) { o.float64 = name == "float64"; }, "float32 or float64")
      ->check(CLI::IsMember({"float32", "float64"}))
      ->default_str("float32");

  app.add_option("--threshold", o.threshold, "keep edges whose |em attribution| is larger, in logits")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--no-qk", o.no_qk, "search no q and k edges");
  auto* contrast = app.add_option_function<std::string>(
                          "--contrast", [&o](const std::string& word) { o.contrast = word == "on"; },
                          "on: activations count as clean minus corrupt")
                       ->check(CLI::IsMember({"on", "off"}))
                       ->default_str("on");
  auto* chain = app.add_option_function<std::string>(
                       "--chain", [&o](const std::string& word) { o.path_chain = word == "path"; },
                       "a target's effect on the metric: one backward pass of the model, or the paths of kept edges")
                    ->check(CLI::IsMember({"model", "path"}))
                    ->default_str("model");
  auto* seed_policies = app.add_flag("--seed-policies", o.seed_policies,
                                     "the Python original's choices: batch averaged first, positive attributions only")
                            ->excludes(contrast)
                            ->excludes(chain);
  app.add_flag("--all-edges", o.all_edges, "every active clean feature is a target and no edge is dropped")
      ->excludes(seed_policies);
  app.add_flag("--per-prompt", o.per_prompt, "also search every prompt alone; --edges then holds each prompt's edges");

  app.add_option("--cluster-size", o.cluster_size, "features per cluster at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--c1", o.c1, "C1's features, such as attn.5.7515,attn.6.17410, in place of those found at S2")
      ->delimiter(',');
  app.add_option("--seed", o.seed, "of the control's draws")->capture_default_str();
  app.add_flag("--lens", o.lens, "direct logit attribution and logit lens");
  app.add_option("--head", o.head, "show this head in the attention charts instead of the mean over heads")
      ->check(CLI::NonNegativeNumber);

  app.add_option("--edges", o.edges, "write every kept edge to this .csv or .tsv");
  app.add_option("--json", o.json, "write every figure to this file");
  app.add_option("--out", o.out, "folder for the graph page and the charts")->capture_default_str();
}

}  // namespace ioi
