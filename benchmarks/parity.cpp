// Logits and every hook point of a model on one prompt, as a safetensors file under TransformerLens' names, for
// benchmarks/parity to compare: `benchmark_parity MODEL --tokens 1,2,3 --out FILE`.
#include <CLI/CLI.hpp>
#include <concepts>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "circuit/io/safetensors.hpp"
#include "circuit/model/open.hpp"

using namespace circuit;

namespace {

/// Points at which one reader's input is split from the stream, which changes what the others show.
template <class P>
concept ReaderInput = std::same_as<P, hook::q_input> || std::same_as<P, hook::k_input> ||
                      std::same_as<P, hook::v_input> || std::same_as<P, hook::mlp_in>;

/// An attachment that keeps the value at every point that a model shows.
struct EveryPoint {
  std::vector<TensorView> values;

  template <HookPoint P>
    requires(!ReaderInput<P>)
  void visit(P point, Layer layer, at::Tensor& value) {
    values.push_back(to_view(hook_name(point, layer), value));
  }
};

std::vector<TensorView> values_of(const std::filesystem::path& path, const std::vector<std::int32_t>& prompt,
                                  at::ScalarType dtype) {
  const auto tokens = to_tokens(std::span{&prompt, 1});
  const auto run = [&](const auto& model) {
    EveryPoint every;
    const auto logits = model.run(tokens, every).logits;
    every.values.push_back(to_view("logits", logits));
    return std::move(every.values);
  };
  return open_model(path, run, {.processing = weights::unprocessed, .dtype = dtype});
}

}  // namespace

int main(int argc, char** argv) try {
  std::filesystem::path path;
  std::filesystem::path out;
  std::vector<std::int32_t> prompt;
  std::string dtype = "float32";
  CLI::App app{"Writes a model's logits and hook points on one prompt"};
  app.add_option("model", path, "GGUF file or Hugging Face folder")->required();
  app.add_option("--tokens", prompt, "ids of the prompt's tokens, with commas between")->delimiter(',')->required();
  app.add_option("--out", out, "safetensors file to write")->required();
  app.add_option("--dtype", dtype, "to compute in")
      ->check(CLI::IsMember({"float32", "float64"}))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  const c10::AutoGradMode no_gradient{false};
  write_safetensors(out, values_of(path, prompt, dtype == "float64" ? at::kDouble : at::kFloat));
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
