#include "circuit/model/open.hpp"

#include <functional>
#include <map>
#include <typeindex>
#include <typeinfo>

#include "io/files.hpp"
#include "tensor_files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

const fs::path data{CIRCUIT_TEST_DATA};

/// What a visitor can say of any model without its forward pass being compiled for each.
struct Seen {
  std::type_index architecture;
  ModelConfig config;
  at::Tensor W_U;
};
constexpr auto look = []<class A>(const HookedTransformer<A>& model) {
  return Seen{typeid(A), model.config(), model.weights().W_U};
};

/// A copy of a folder of the architectures' tests, its weights to be written anew.
struct Copy {
  Folder folder;
  Tensors tensors;

  explicit Copy(const std::string& family)
      : tensors(read_tensors(data / "architectures" / family / "model.safetensors")) {
    fs::copy_file(data / "architectures" / family / "config.json", folder.path / "config.json");
  }
  void write_shards() const {
    const std::array<std::string, 2> names{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"};
    std::array<Tensors, 2> shards;
    nlohmann::json map;
    std::size_t i = 0;
    for (const auto& [name, tensor] : tensors) {
      shards[i % 2][name] = tensor;
      map[name] = names[i++ % 2];
    }
    for (std::size_t s = 0; s < 2; ++s) write_tensors(folder.path / names[s], shards[s]);
    std::ofstream{folder.path / "model.safetensors.index.json"} << nlohmann::json{{"weight_map", map}}.dump();
  }
};

}  // namespace

TEST_CASE("every family is recognised and its visitor called with the compile-time type") {
  const std::map<std::string, std::type_index> families{{"smollm2", typeid(Llama)},
                                                        {"mistral", typeid(Llama)},
                                                        {"qwen3", typeid(Llama)},
                                                        {"pythia", typeid(GptNeox)},
                                                        {"gpt_neox_sequential", typeid(SequentialGptNeox)},
                                                        {"gemma2", typeid(Gemma2)}};
  for (const auto& [family, architecture] : families) {
    INFO(family);
    REQUIRE(open_model(data / "architectures" / family, look).architecture == architecture);
  }
  REQUIRE(open_model(data / "golden/model", look).architecture == typeid(Gpt2));
  REQUIRE(open_model(data / "gguf_models/qwen3_q4_0.gguf", look).architecture == typeid(Llama));
}

TEST_CASE("a folder of shards is the same model") {
  const Copy copy{"qwen2"};
  copy.write_shards();
  const auto whole = open_model(data / "architectures/qwen2", look);
  const auto sharded = open_model(copy.folder.path, look);
  REQUIRE(sharded.W_U.equal(whole.W_U));
}

TEST_CASE("a folder with a state dict of PyTorch in half precision opens as float32") {
  const auto model = open_model(data / "gguf_models/llama_torch", look);
  REQUIRE(model.architecture == typeid(Llama));
  REQUIRE(model.W_U.scalar_type() == at::kFloat);
  REQUIRE(model.W_U.equal(open_model(data / "gguf_models/llama", look).W_U.to(at::kBFloat16).to(at::kFloat)));
}

TEST_CASE("options reach the loader") {
  const auto dtype = [](const auto& model) { return model.dtype(); };
  REQUIRE(open_model(data / "architectures/smollm2", dtype, {.dtype = at::kDouble}) == at::kDouble);
  REQUIRE(open_model(data / "gguf_models/llama_q8_0.gguf", dtype, {.dtype = at::kDouble}) == at::kDouble);
}

TEST_CASE("a model of another architecture is refused with what was found and what is known") {
  Copy copy{"smollm2"};
  copy.write_shards();
  REQUIRE_THAT(said<ConfigError>([&] { (void)open_model<Gpt2, GptNeox>(copy.folder.path, look); }),
               ContainsSubstring("config.json") && ContainsSubstring("expected gpt2 or gpt_neox, got llama"));
  REQUIRE_THAT(said<ConfigError>([] { (void)open_model<GptNeox>(data / "architectures/gpt_neox_sequential", look); }),
               ContainsSubstring("only some models"));
  const auto with_type = [&](const std::string& config) {
    (void)copy.folder.file("config.json", config);
    return said<ConfigError>([&] { (void)open_model(copy.folder.path, look); });
  };
  REQUIRE_THAT(with_type(R"({"model_type": "bert"})"),
               ContainsSubstring("expected llama, mistral, qwen2, qwen3, gpt2, gpt_neox or gemma2, got bert"));
  REQUIRE_THAT(with_type("{}"), ContainsSubstring("model_type"));
}

TEST_CASE("what is no model is refused with what was expected") {
  const Folder folder;
  REQUIRE_THAT(said<FileError>([&] { (void)open_model(folder.path, look); }), ContainsSubstring("config.json"));
  REQUIRE_THAT(said<FileError>([&] { (void)open_model(folder.path / "missing", look); }),
               ContainsSubstring("No such file"));
  const auto other = folder.file("other.gguf", "GGU");
  REQUIRE_THAT(said<FormatError>([&] { (void)open_model(other, look); }),
               ContainsSubstring("folder with a config.json"));
  (void)folder.file("config.json", R"({"model_type": "gpt2", "n_layer": 1, "n_embd": 4, "n_head": 1, "vocab_size": 3,
                                       "n_positions": 8})");
  REQUIRE_THAT(said<FileError>([&] { (void)open_model(folder.path, look); }),
               ContainsSubstring("there are no weights"));
}
