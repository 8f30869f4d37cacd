#include "circuit/model/load.hpp"

#include <functional>
#include <limits>
#include <map>

#include "golden.hpp"
#include "io/files.hpp"
#include "tensor_files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

/// A copy of the golden model's folder, to be changed.
struct ModelFolder {
  Folder folder;
  nlohmann::json config = read_json(golden::folder() / "model/config.json");
  Tensors tensors = read_tensors(golden::folder() / "model/model.safetensors");

  void write() const {
    write_tensors(folder.path / "model.safetensors", tensors);
    std::ofstream{folder.path / "config.json"} << config.dump();
  }
  [[nodiscard]] HookedTransformer<Gpt2> load(const LoadOptions& options = {.dtype = at::kDouble}) const {
    write();
    return load_model<Gpt2>(folder.path, options);
  }
};

const std::string gain = "transformer.h.1.ln_1.weight";
const std::string readers = "transformer.h.1.attn.c_attn.weight";

template <class E>
std::string folder_refused(const std::function<void(ModelFolder&)>& change) {
  ModelFolder model;
  change(model);
  return said<E>([&] { (void)model.load(); });
}

}  // namespace

TEST_CASE("names stand with or without the prefix, and an untied unembedding is read where there is one") {
  const auto tokens = golden::tokens("clean");
  const auto expected = golden::model(weights::folded_and_centered).run(tokens).logits;
  ModelFolder bare;
  Tensors renamed;
  for (const auto& [name, tensor] : bare.tensors) renamed[name.substr(std::string{"transformer."}.size())] = tensor;
  bare.tensors = renamed;
  REQUIRE_CLOSE(bare.load().run(tokens).logits, expected, 1e-12);
  bare.tensors["lm_head.weight"] = renamed.at("wte.weight").neg();
  REQUIRE_CLOSE(bare.load().run(tokens).logits, expected.neg(), 1e-10);
}

TEST_CASE("half-precision weights are widened") {
  ModelFolder half;
  for (auto& [name, tensor] : half.tensors) tensor = tensor.to(at::kHalf);
  const auto model = half.load({.dtype = at::kFloat});
  REQUIRE(model.dtype() == at::kFloat);
  const auto tokens = golden::tokens("clean");
  REQUIRE_CLOSE(model.run(tokens).logits, golden::fact("folded/clean/logits"), 1e-2);
}

TEST_CASE("a model without a tokenizer says so when one is asked for") {
  REQUIRE_THROWS_AS(golden::model(weights::unprocessed).tokenizer(), ConfigError);
}

TEST_CASE("folders and files that are missing or cut off are refused") {
  const Folder empty;
  REQUIRE_THROWS_AS(load_model<Gpt2>(empty.path / "none"), FileError);
  REQUIRE_THROWS_AS(load_model<Gpt2>(empty.path), FileError);
  ModelFolder model;
  model.write();
  fs::remove(model.folder.path / "model.safetensors");
  REQUIRE_THROWS_AS(load_model<Gpt2>(model.folder.path), FileError);
  model.write();
  const auto whole = bytes_of(model.folder.path / "model.safetensors");
  for (const auto share : {0.0, 0.001, 0.5, 0.999}) {
    (void)model.folder.file("model.safetensors",
                            whole.substr(0, static_cast<std::size_t>(static_cast<double>(whole.size()) * share)));
    REQUIRE_THROWS_AS(load_model<Gpt2>(model.folder.path), FormatError);
  }
  model.write();
  (void)model.folder.file("config.json", "{\"n_layer\": 3");
  REQUIRE_THROWS_AS(load_model<Gpt2>(model.folder.path), FormatError);
}

TEST_CASE("configurations of other models, and keys that are missing, mistyped or contradictory, are refused by name") {
  const auto config = [](const std::string& key, const nlohmann::json& value) {
    return folder_refused<ConfigError>([&](ModelFolder& m) { m.config[key] = value; });
  };
  REQUIRE_THAT(config("model_type", "llama"), ContainsSubstring("got llama"));
  REQUIRE_THAT(config("activation_function", "relu"), ContainsSubstring("got relu"));
  REQUIRE_THAT(config("n_head", 5), ContainsSubstring("a divisor of n_embd = 32"));
  REQUIRE_THAT(config("n_head", 0), ContainsSubstring("n_head"));
  for (const std::int64_t absurd : {std::int64_t{0}, std::numeric_limits<std::int64_t>::max()}) {
    REQUIRE_THAT(config("n_embd", absurd), ContainsSubstring("n_embd"));
  }
  REQUIRE_THAT(config("n_layer", "three"), ContainsSubstring("n_layer"));
  REQUIRE_THAT(config("n_layer", 0), ContainsSubstring("n_layer"));
  REQUIRE_THAT(config("scale_attn_by_inverse_layer_idx", true), ContainsSubstring("scale_attn_by_inverse_layer_idx"));
  for (const std::string key : {"n_layer", "n_embd", "n_head", "vocab_size"}) {
    REQUIRE_THAT(folder_refused<ConfigError>([&](ModelFolder& m) { m.config.erase(key); }), ContainsSubstring(key));
  }
  REQUIRE_THAT(folder_refused<ConfigError>([](ModelFolder& m) { m.config = nlohmann::json::array(); }),
               ContainsSubstring("config.json"));
}

TEST_CASE("tensors that are missing or of a wrong shape, dtype or value are refused by name and file") {
  REQUIRE_THAT(folder_refused<NameError>([](ModelFolder& m) { m.tensors.erase(gain); }), ContainsSubstring(gain));
  REQUIRE_THAT(folder_refused<NameError>([](ModelFolder& m) { m.config["n_layer"] = 4; }), ContainsSubstring("h.3."));
  const auto transposed =
      folder_refused<ShapeError>([](ModelFolder& m) { m.tensors[readers] = m.tensors[readers].t(); });
  REQUIRE_THAT(transposed,
               ContainsSubstring("expected [32, 96], got [96, 32]") && ContainsSubstring("model.safetensors"));
  REQUIRE_THAT(folder_refused<ShapeError>([](ModelFolder& m) { m.config["vocab_size"] = 100; }),
               ContainsSubstring("wte.weight"));
  REQUIRE_THAT(folder_refused<ShapeError>([](ModelFolder& m) { m.config["n_positions"] = 33; }),
               ContainsSubstring("wpe.weight"));
  REQUIRE_THAT(folder_refused<DTypeError>([](ModelFolder& m) { m.tensors[gain] = m.tensors[gain].to(at::kInt); }),
               ContainsSubstring(gain));
  for (const auto bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const auto said_of_value = folder_refused<ValueError>([&](ModelFolder& m) {
      m.tensors[readers] = m.tensors[readers].clone();
      m.tensors[readers][31][95].fill_(bad);
    });
    REQUIRE_THAT(said_of_value, ContainsSubstring(readers));
  }
  ModelFolder model;
  REQUIRE_THROWS_AS(model.load({.dtype = at::kHalf}), DTypeError);
}
