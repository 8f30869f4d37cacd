// What the features of a dictionary seem to be about: where they fire, what they raise, which others are like them.
//
//   feature_cards --model gpt2 --dictionary attn.5.safetensors --text book.txt --features 7515,17410

#include "circuit/evaluate/feature_cards.hpp"

#include <ATen/core/Tensor.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "circuit/core/atomic_file.hpp"
#include "circuit/data/token_rows.hpp"
#include "circuit/dictionary/recognise.hpp"
#include "circuit/model/open.hpp"

namespace {

using namespace circuit;

struct Options {
  std::filesystem::path model = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "model";
  std::filesystem::path dictionary = std::filesystem::path{CIRCUIT_EXAMPLE_DATA} / "attn-saes" / "blocks.2.attn.hook_z";
  std::vector<std::filesystem::path> text{};
  std::size_t length = 48;
  std::int64_t rows = 200;
  std::vector<std::size_t> features{};
  std::size_t show = 3;
  double at_most = 0.05;
  CardOptions cards{.contexts = 3, .effects = 3};
  std::optional<std::filesystem::path> json{};
};

/// The features asked for, or of those that fire at few tokens the most frequent ones.
std::vector<std::size_t> chosen(const Options& o, const std::vector<FeatureCard>& cards) {
  auto out = o.features;
  for (const auto f : out) {
    if (f < cards.size()) continue;
    throw IndexError{
        {.tensor = "--features", .expected = "below " + std::to_string(cards.size()), .got = std::to_string(f)}};
  }
  if (!out.empty()) return out;
  for (std::size_t f = 0; f < cards.size(); ++f) {
    if (cards[f].frequency <= o.at_most) out.push_back(f);
  }
  std::stable_sort(out.begin(), out.end(), [&](auto a, auto b) { return cards[a].fires > cards[b].fires; });
  out.resize(std::min(out.size(), o.show));
  return out;
}

template <Architecture A>
void show_cards(const Options& o, const HookedTransformer<A>& model) {
  const auto loaded = dictionary::load(o.dictionary);
  const data::RowOptions options{.length = o.length};
  const auto rows = o.text.empty() ? data::TaskRows{model.tokenizer(), options}.rows(0, o.rows)
                                   : data::TextRows{model.tokenizer(), o.text, options}.rows(0, o.rows);
  const auto cards = feature_cards(model, {loaded.hooks, loaded.dictionary}, rows, o.cards);
  const auto silent = std::count_if(cards.begin(), cards.end(), [](const auto& card) { return card.fires == 0; });
  std::cout << cards.size() << " features of " << loaded.hooks.out << " on " << rows.size() << " rows; " << silent
            << " never fire\n";
  for (const auto f : chosen(o, cards)) std::cout << '\n' << to_text(cards[f]);
  if (!o.json) return;
  nlohmann::json json;
  for (const auto& card : cards) json.push_back(to_json(card));
  write_file(*o.json, json.dump(1) + '\n');
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app{"Shows what the features of a dictionary seem to be about."};
  app.add_option("--model", o.model, "Hugging Face folder or GGUF file")->capture_default_str();
  app.add_option("--dictionary", o.dictionary, "folder or file of any format")->capture_default_str();
  app.add_option("--text", o.text, "text files; none: lines of the library's own tasks");
  app.add_option("--rows", o.rows, "how many")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--length", o.length, "most tokens of a row")->capture_default_str();
  app.add_option("--skip", o.cards.skip, "first positions of each row to leave alone, such as a BOS")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--features", o.features, "the ones to show; none: the most frequent of --at-most")->delimiter(',');
  app.add_option("--show", o.show, "how many of those")->capture_default_str();
  app.add_option("--at-most", o.at_most, "share of tokens at which those fire")->capture_default_str();
  app.add_option("--contexts", o.cards.contexts, "per feature")->capture_default_str();
  app.add_option("--json", o.json, "write the cards of all features to this file");
  try {
    app.parse(argc, argv);
    open_model(o.model, [&](const auto& model) { show_cards(o, model); });
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
