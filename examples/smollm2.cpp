// Opens a language model as it comes, SmolLM2 in a GGUF file (`./demo.sh --smollm2` fetches it) or any other of Llama's
// kind, and measures how it completes "When Alice and Bob went to the store, Bob gave a ring to", with and without a
// beginning-of-sequence token.
#include <CLI/CLI.hpp>
#include <circuit/core/atomic_file.hpp>
#include <circuit/io/safetensors.hpp>
#include <circuit/model/open.hpp>
#include <circuit/report/table.hpp>
#include <iostream>
#include <optional>

#include "smollm2/ioi_task.hpp"
#include "smollm2/measure.hpp"

namespace smollm2 {

using namespace circuit;
using Json = nlohmann::json;

struct Options {
  std::filesystem::path model;
  std::size_t prompts = 100;
  std::uint64_t seed = 1;
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
