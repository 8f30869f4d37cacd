#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "circuit/leap.hpp"
#include "circuit/text/load_tokenizer.hpp"
#include "options.hpp"
#include "search.hpp"

namespace ioi {

/// What every step works on.
struct Session {
  Options options;
  Model model;
  DictionarySet dictionaries;
};

/// One prompts file: its batch and what was found in it.
struct Study {
  std::filesystem::path file;
  ContrastBatch batch;
  LogitDifference metric;
  Circuit circuit{};

  [[nodiscard]] std::string name() const { return file.stem().string(); }
  [[nodiscard]] Position last() const { return Position{static_cast<std::int32_t>(batch.length()) - 1}; }
  [[nodiscard]] std::vector<std::string> tokens() const {
    if (!batch.tokens.empty()) return batch.tokens.front();
    std::vector<std::string> texts;
    for (const auto id : batch.clean.front()) texts.push_back(std::to_string(id));
    return texts;
  }
};

[[nodiscard]] inline Session load(Options options) {
  const auto dtype = options.float64 ? at::kDouble : at::kFloat;
  auto model = load_model<Gpt2>(options.model, {.processing = weights::folded_and_centered, .dtype = dtype});
  auto dictionaries = load_dictionaries(options.attn_saes, options.transcoders, {.dtype = dtype});
  dictionaries.check(model.config(), model.processing(), model.dtype());
  return {std::move(options), std::move(model), std::move(dictionaries)};
}

[[nodiscard]] inline ContrastBatch load_batch(const Session& session, const std::filesystem::path& file) {
  const auto& o = session.options;
  const ContrastBatchOptions options{.first = o.first_batch, .size = o.batch_size};
  auto batch = o.token_ids ? load_contrast_batch_ids(file, options)
                           : load_contrast_batch(file, session.model.tokenizer(), options);
  for (const auto* const role : {"S1", "S2", "IO"}) static_cast<void>(batch.role(role));  // what the clusters need
  return batch;
}

/// `attn.5.7515` at a position.
/// throws  NameError  for what is no attention feature, or none of the dictionaries
[[nodiscard]] inline Node named_feature(const Session& session, std::string text, Position position) {
  const auto number = text.rfind('.');
  if (number != std::string::npos) text.insert(number, '.' + std::to_string(position.value));
  const auto node = parse_node(text);
  if (node.kind != NodeKind::attn_feature) {
    throw NameError{{.tensor = "--c1", .problem = "is no attention feature", .got = to_string(node)}};
  }
  static_cast<void>(require_feature(session.dictionaries, attn_feature(node.layer, node.feature)));
  return node;
}

/// Loads every prompts file before anything is searched, so that a bad one costs no time.
[[nodiscard]] inline std::vector<Study> load_prompts(const Session& session) {
  std::vector<Study> studies;
  std::set<std::string> names;
  for (const auto& file : session.options.prompts) {
    if (!names.insert(file.stem().string()).second) {
      throw ValueError{
          {.file = file, .tensor = "--prompts", .problem = "two files of one name would be written over each other"}};
    }
    auto batch = load_batch(session, file);
    LogitDifference metric{batch};
    studies.push_back({.file = file, .batch = std::move(batch), .metric = std::move(metric)});
  }
  return studies;
}

}  // namespace ioi
