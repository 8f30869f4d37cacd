#include "circuit/model/load/gguf.hpp"

#include <functional>

#include "circuit/model/load/gemma2.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/gpt_neox.hpp"
#include "circuit/model/load/llama.hpp"
#include "io/files.hpp"
#include "io/gguf_builder.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

const fs::path folder{fs::path{CIRCUIT_TEST_DATA} / "gguf_models"};

at::Tensor fact(const std::string& name) {
  return to_tensor(open_safetensors(folder / "golden.safetensors").get(name));
}

HookedTransformer<Llama> open(const std::string& name) { return load_gguf<Llama>(folder / (name + ".gguf")); }

/// Metadata of a Llama without tensors, one entry of them changed.
std::string refused(const std::string& key, const std::string& entry, const std::string& tensors = {}) {
  gguf::File file;
  const auto put = [&](const std::string& name, const std::string& bytes) {
    if (name != key) file.values.push_back(bytes);
  };
  const auto number = [&](const std::string& name, std::uint32_t value) { put(name, gguf::value(name, value)); };
  put("general.architecture", gguf::value("general.architecture", 8, gguf::text("llama")));
  number("llama.block_count", 1);
  number("llama.embedding_length", 4);
  number("llama.attention.head_count", 2);
  number("llama.feed_forward_length", 4);
  number("llama.context_length", 8);
  number("llama.vocab_size", 3);
  put("llama.attention.layer_norm_rms_epsilon", gguf::value("llama.attention.layer_norm_rms_epsilon", 6, raw(1e-5F)));
  if (!entry.empty()) file.values.push_back(entry);
  if (!tensors.empty()) file.tensors.push_back(tensors);
  file.data.assign(4096, '\0');
  const Folder made;
  const auto path = made.file("made.gguf", file.bytes());
  try {
    (void)load_gguf<Llama>(path);
  } catch (const Error& error) {
    REQUIRE(error.details().file == path);
    return error.what();
  }
  FAIL("it loaded");
  return {};
}

/// Logits of a model as it lies in the file.
template <class A>
at::Tensor logits_of(const std::string& name) {
  return load_gguf<A>(folder / (name + ".gguf"), {.processing = weights::unprocessed}).run(fact("tokens")).logits;
}

/// Sizes that every architecture's metadata hold.
const std::vector<std::pair<std::string, std::uint32_t>> sizes{{"block_count", 1},          {"embedding_length", 16},
                                                               {"attention.head_count", 2}, {"feed_forward_length", 4},
                                                               {"context_length", 8},       {"vocab_size", 3}};

/// The config of a file with these metadata and no tensors.
nlohmann::json config_of(const std::string& architecture,
                         const std::vector<std::pair<std::string, std::uint32_t>>& numbers, const std::string& epsilon,
                         const std::vector<std::string>& more = {}) {
  gguf::File file;
  file.values = more;
  file.values.push_back(gguf::value("general.architecture", 8, gguf::text(architecture)));
  for (const auto& [key, number] : numbers) file.values.push_back(gguf::value(architecture + '.' + key, number));
  file.values.push_back(gguf::value(architecture + ".attention." + epsilon, 6, raw(1e-5F)));
  const Folder made;
  return hugging_face_config(open_gguf(made.file("made.gguf", file.bytes())));
}

std::string refused(const std::string& key, std::uint32_t value) { return refused(key, gguf::value(key, value)); }

}  // namespace

TEST_CASE("a model in GGUF computes what transformers computes on the same weights") {
  for (const std::string name : {"llama_f32", "llama_q8_0", "llama3_f16", "qwen2_bf16", "qwen3_q4_0"}) {
    INFO(name);
    // Both float32 results are a rounding away from the exact one, each on another side under some of LibTorch's products.
    const auto exact = load_gguf<Llama>(folder / (name + ".gguf"), {.dtype = at::kDouble}).run(fact("tokens")).logits;
    REQUIRE_CLOSE(exact, fact(name), 2e-6);
    REQUIRE_CLOSE(open(name).run(fact("tokens")).logits, exact, 2e-6);
  }
}

TEST_CASE("Gemma 2, GPT-2 and GPT-NeoX in GGUF compute what transformers computes on the same weights") {
  // transformers' own float32 logits are 4e-6 of the largest away from its float64 ones here.
  REQUIRE_CLOSE(logits_of<Gemma2>("gemma2_f16"), fact("gemma2_f16"), 1e-5);
  REQUIRE_CLOSE(logits_of<Gpt2>("gpt2_q8_0"), fact("gpt2_q8_0"), 2e-6);
  REQUIRE_CLOSE(logits_of<GptNeox>("pythia_q8_0"), fact("pythia_q8_0"), 2e-6);
  REQUIRE_CLOSE(logits_of<SequentialGptNeox>("gpt_neox_q8_0"), fact("gpt_neox_q8_0"), 2e-6);
}

TEST_CASE("a model in GGUF equals the Hugging Face model it was made from") {
  const auto original = load_model<Llama>(folder / "llama");
  const auto model = open("llama_f32");
  REQUIRE_CLOSE(model.run(fact("tokens")).logits, original.run(fact("tokens")).logits, 1e-6);
  REQUIRE(model.weights().blocks[1].attn.W_Q.equal(original.weights().blocks[1].attn.W_Q));
  REQUIRE(model.weights().blocks[1].attn.W_K.equal(original.weights().blocks[1].attn.W_K));
  REQUIRE(model.config().rotary_base == original.config().rotary_base);
}

TEST_CASE("the tokenizer comes from the metadata") {
  const auto model = open("llama_q8_0");
  REQUIRE(model.tokenizer().decode(model.tokenizer().encode("the hat")) == "the hat");
  REQUIRE(model.tokenizer().bos_id() == 258);
}

TEST_CASE("float32 weights stay mapped where rows need no change") {
  const auto file = open_gguf(folder / "llama_f32.gguf");
  const auto* mapped = file.get("blk.0.ffn_up.weight").bytes.data();
  const auto model = load_gguf<Llama>(file);
  REQUIRE(model.weights().blocks[0].mlp.W_in.data_ptr() == mapped);
  REQUIRE(load_gguf<Llama>(file, {.dtype = at::kDouble}).dtype() == at::kDouble);
}

TEST_CASE("Gemma 2's scale of queries, soft caps and windows are the published models' where the metadata are silent") {
  const auto gemma = [](std::uint32_t blocks) {
    return config_of("gemma2",
                     {{"block_count", blocks},
                      {"embedding_length", 8},
                      {"attention.head_count", 4},
                      {"attention.key_length", 6},
                      {"attention.value_length", 6},
                      {"feed_forward_length", 4},
                      {"context_length", 8},
                      {"vocab_size", 3}},
                     "layer_norm_rms_epsilon");
  };
  REQUIRE(gemma(26).at("query_pre_attn_scalar") == 6);
  REQUIRE(gemma(46).at("query_pre_attn_scalar") == 2);
  REQUIRE(gemma(26).at("final_logit_softcapping") == 30.0);
  REQUIRE(gemma(26).at("attn_logit_softcapping") == 50.0);
  REQUIRE(gemma(26).at("sliding_window") == 4096);
}

TEST_CASE("GPT-NeoX turns the part of a head that the metadata name, and needs them to") {
  auto numbers = sizes;
  const auto config = [&] { return config_of("gptneox", numbers, "layer_norm_epsilon"); };
  REQUIRE_THAT(said<ConfigError>([&] { (void)config(); }), ContainsSubstring("gptneox.rope.dimension_count"));
  numbers.emplace_back("rope.dimension_count", 2);
  REQUIRE(config().at("rope_parameters").at("partial_rotary_factor") == 0.25);
  REQUIRE(config().at("use_parallel_residual") == true);
  numbers.front().first = "other";
  REQUIRE_THAT(said<ConfigError>([&] { (void)config(); }), ContainsSubstring("gptneox.block_count"));
}

TEST_CASE("factors of YaRN that programs read differently are refused, unless they change nothing") {
  const auto with = [](const std::string& key, float number) {
    const std::string in = "llama.rope.scaling.";
    return config_of("llama", sizes, "layer_norm_rms_epsilon",
                     {gguf::value(in + "type", 8, gguf::text("yarn")), gguf::value(in + "factor", 6, raw(4.0F)),
                      gguf::value(in + key, 6, raw(number))});
  };
  REQUIRE(with("yarn_attn_factor", 1.0F).at("rope_parameters").at("factor") == 4.0);
  for (const std::string key : {"yarn_attn_factor", "yarn_ext_factor", "yarn_log_multiplier"}) {
    REQUIRE_THAT(said<ConfigError>([&] { (void)with(key, 2.0F); }),
                 ContainsSubstring("llama.rope.scaling." + key) && ContainsSubstring("not supported"));
  }
}

TEST_CASE("GPT-2 needs its norms' epsilon") {
  REQUIRE_THAT(said<ConfigError>([] { (void)config_of("gpt2", sizes, "layer_norm_rms_epsilon"); }),
               ContainsSubstring("gpt2.attention.layer_norm_epsilon"));
}

TEST_CASE("Hugging Face's names become GGUF's") {
  const auto gguf_name = [](std::string_view name) { return detail::gguf::gguf_name(name, detail::gguf::families[0]); };
  REQUIRE(gguf_name("model.layers.12.self_attn.q_proj.bias") == "blk.12.attn_q.bias");
  REQUIRE(gguf_name("model.layers.0.post_attention_layernorm.weight") == "blk.0.ffn_norm.weight");
  REQUIRE(gguf_name("model.embed_tokens.weight") == "token_embd.weight");
  REQUIRE(gguf_name("lm_head.weight") == "output.weight");
  REQUIRE(gguf_name("model.layers.") == "blk.");
  REQUIRE(gguf_name("other") == "other");
}

TEST_CASE("an architecture that is not known, or not the one asked for, is named") {
  REQUIRE_THAT(refused("general.architecture", gguf::value("general.architecture", 8, gguf::text("rwkv6"))),
               ContainsSubstring("expected llama or qwen2 or qwen3 or gemma2 or gpt2 or gptneox, got rwkv6"));
  REQUIRE_THAT(said<ConfigError>([] { (void)load_gguf<Gemma2>(folder / "llama_q8_0.gguf"); }),
               ContainsSubstring("expected gemma2, got llama"));
}

TEST_CASE("metadata that are missing, of a wrong type or out of range are named") {
  REQUIRE_THAT(refused("llama.block_count", ""), ContainsSubstring("llama.block_count"));
  REQUIRE_THAT(refused("llama.context_length", gguf::value("llama.context_length", 8, gguf::text("long"))),
               ContainsSubstring("expected a whole number, got \"long\""));
  REQUIRE_THAT(refused("llama.vocab_size", ""), ContainsSubstring("llama.vocab_size"));
  REQUIRE_THAT(refused("llama.block_count", 0), ContainsSubstring("n_layers") && ContainsSubstring("got 0"));
  REQUIRE_THAT(refused("llama.block_count", 0xFFFFFFFFU), ContainsSubstring("n_layers"));
  REQUIRE_THAT(refused("llama.attention.head_count", 0), ContainsSubstring("n_heads"));
  REQUIRE_THAT(refused("llama.attention.head_count_kv", 3), ContainsSubstring("n_key_value_heads"));
  REQUIRE_THAT(refused("llama.expert_count", 8), ContainsSubstring("llama.expert_count") && ContainsSubstring("got 8"));
  REQUIRE_THAT(refused("llama.attention.value_length", 3), ContainsSubstring("expected 2, got 3"));
  REQUIRE_THAT(refused("llama.rope.dimension_count", 4), ContainsSubstring("expected 2, got 4"));
  REQUIRE_THAT(refused("llama.rope.scaling.type", gguf::value("llama.rope.scaling.type", 8, gguf::text("spiral"))),
               ContainsSubstring("llama.rope.scaling.factor"));
}

TEST_CASE("tensors that are missing, of another shape or not finite are named") {
  REQUIRE_THAT(refused("", ""), ContainsSubstring("token_embd.weight"));
  REQUIRE_THAT(refused("", "", gguf::tensor("token_embd.weight", {4, 5}, 0, 0)),
               ContainsSubstring("expected [3, 4], got [5, 4]"));
  REQUIRE_THAT(refused("", "", gguf::tensor("token_embd.weight", {256, 3}, 16, 0)), ContainsSubstring("IQ2_XXS"));
  REQUIRE_THAT(refused("", "", gguf::tensor("rope_freqs.weight", {3}, 0, 0)), ContainsSubstring("rope_freqs.weight"));
  REQUIRE_THAT(refused("", "", gguf::tensor("rope_freqs.weight", {1}, 0, 0)), ContainsSubstring("expected > 0"));
}
