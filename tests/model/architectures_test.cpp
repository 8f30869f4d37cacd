#include <functional>
#include <set>

#include "circuit/model/load/gemma2.hpp"
#include "circuit/model/load/gpt2.hpp"
#include "circuit/model/load/gpt_neox.hpp"
#include "circuit/model/load/llama.hpp"
#include "circuit/model/load/plain.hpp"
#include "circuit/model/record.hpp"
#include "golden.hpp"
#include "io/files.hpp"
#include "tensor_files.hpp"
#include "tensors.hpp"

using namespace circuit;
using namespace circuit_test;
namespace fs = std::filesystem;

namespace {

fs::path folder_of(const std::string& family) { return fs::path{CIRCUIT_TEST_DATA} / "architectures" / family; }

auto every_point() {
  return record<hook::embed, hook::pos_embed, hook::resid_pre, hook::ln1::scale, hook::ln1::normalized, hook::attn::q,
                hook::attn::k, hook::attn::v, hook::attn::q_norm::scale, hook::attn::q_norm::normalized,
                hook::attn::k_norm::scale, hook::attn::k_norm::normalized, hook::attn::rot_q, hook::attn::rot_k,
                hook::attn::attn_scores, hook::attn::pattern, hook::attn::z, hook::ln1_post::scale,
                hook::ln1_post::normalized, hook::attn_out, hook::resid_mid, hook::ln2::scale, hook::ln2::normalized,
                hook::mlp::pre, hook::mlp::pre_linear, hook::mlp::post, hook::ln2_post::scale,
                hook::ln2_post::normalized, hook::mlp_out, hook::resid_post, hook::ln_final::scale,
                hook::ln_final::normalized>();
}

/// What the reference calls a point: "0/z", "embed".
template <class P>
std::string reference_name(P, Layer layer) {
  std::string name{P::name};
  for (const std::string part : {"attn.", "mlp.", "hook_"}) {
    if (const auto at = name.find(part); at != name.npos) name.erase(at, part.size());
  }
  return P::per_layer ? std::to_string(layer.value) + '/' + name : name;
}

/// The gain behind which the reference shows a norm, undefined where TransformerLens' point stands behind it too.
template <class A, class P>
at::Tensor gain_behind(const HookedTransformer<A>& model, P, Layer layer) {
  if (A::Norm::centers) return {};
  const auto& w = model.weights();
  const auto& block = w.blocks[static_cast<std::size_t>(layer.value)];
  if constexpr (std::same_as<P, hook::ln1::normalized>) return block.ln1.gain;
  if constexpr (std::same_as<P, hook::ln1_post::normalized>) return block.ln1_post.gain;
  if constexpr (std::same_as<P, hook::ln2::normalized>) return block.ln2.gain;
  if constexpr (std::same_as<P, hook::ln2_post::normalized>) return block.ln2_post.gain;
  if constexpr (std::same_as<P, hook::attn::q_norm::normalized>) return block.attn.q_gain;
  if constexpr (std::same_as<P, hook::attn::k_norm::normalized>) return block.attn.k_gain;
  if constexpr (std::same_as<P, hook::ln_final::normalized>) return w.ln_final.gain;
  return {};
}

/// Every tensor of the golden file is a point of ours with the same values, and every point of ours is in the file.
template <class A>
void compare(const std::string& family, at::ScalarType dtype) {
  const auto golden = open_safetensors(folder_of(family) / "golden.safetensors");
  const auto fact = [&](const std::string& name) { return to_tensor(golden.get(name)); };
  const auto model = load_model<A>(folder_of(family), {.processing = weights::unprocessed, .dtype = dtype});
  const auto [logits, cache] = model.run(fact("tokens"), every_point());
  REQUIRE_CLOSE(logits, fact("logits"), 1e-5);
  std::set<std::string> compared{"tokens", "logits"};
  const bool whole = golden.find("embed") != nullptr;
  cache.for_each([&]<class P>(P point, Layer layer, at::Tensor value) {
    auto name = reference_name(point, layer);
    if (const auto at = name.find("normalized"); at != name.npos) name.replace(at, 10, "output");
    if (!whole && golden.find(name) == nullptr) return;
    // Points that TransformerLens leaves out where they would say nothing.
    if constexpr (std::same_as<typename A::Norm, norm::None>) {
      if (name.find("ln") != name.npos) return;
    }
    if (!A::Positions::rotates && name.find("rot_") != name.npos) return;
    INFO(family << ' ' << name);
    if (const auto gain = gain_behind(model, point, layer); gain.defined()) value = value.mul(gain);
    REQUIRE_CLOSE(value, fact(name), 1e-5);
    compared.insert(name);
  });
  for (const auto& tensor : golden.tensors()) {
    INFO(family << ' ' << tensor.name);
    REQUIRE(compared.count(tensor.name) == 1);
  }
}

template <class A>
void compare(std::initializer_list<const char*> families) {
  for (const std::string family : families) {
    compare<A>(family, at::kFloat);
    compare<A>(family, at::kDouble);
  }
}

}  // namespace

TEST_CASE("GPT-2 equals transformers at every hook point") { compare<Gpt2>({"gpt2"}); }

TEST_CASE("Llama and its descendants equal transformers at every hook point") {
  compare<Llama>({"llama3", "smollm2", "mistral", "qwen2", "qwen3"});
}

TEST_CASE("every kind of rotary scaling equals transformers'") {
  compare<Llama>({"llama_linear", "llama_dynamic", "llama_yarn"});
}

TEST_CASE("GPT-NeoX with either wiring equals transformers at every hook point") {
  compare<GptNeox>({"pythia"});
  compare<SequentialGptNeox>({"gpt_neox_sequential"});
}

TEST_CASE("Gemma 2 equals transformers at every hook point") { compare<Gemma2>({"gemma2"}); }

TEST_CASE("models without norms, and without MLPs, equal TransformerLens at every hook point") {
  compare<Plain>({"plain"});
  compare<AttentionOnly>({"attention_only"});
}

namespace {

/// A copy of a family's folder, to be changed.
struct Changed {
  Folder folder;
  nlohmann::json config;
  Tensors tensors;

  explicit Changed(const std::string& family)
      : config(read_json(folder_of(family) / "config.json")),
        tensors(read_tensors(folder_of(family) / "model.safetensors")) {}
  template <class A>
  [[nodiscard]] HookedTransformer<A> load() const {
    write_tensors(folder.path / "model.safetensors", tensors);
    std::ofstream{folder.path / "config.json"} << config.dump();
    return load_model<A>(folder.path, {.processing = weights::unprocessed});
  }
};

/// What is said of a family's config with one key changed (removed: null by way of erase).
template <class A, class E = ConfigError>
std::string said_of(const std::string& family, const std::function<void(Changed&)>& change) {
  Changed changed{family};
  change(changed);
  return said<E>([&] { (void)changed.load<A>(); });
}
template <class A>
std::string said_of(const std::string& family, const std::string& key, const nlohmann::json& value) {
  return said_of<A>(family, [&](Changed& c) { c.config[key] = value; });
}
template <class A>
std::string said_of_rotary(const std::string& family, const std::string& key, const nlohmann::json& value) {
  return said_of<A>(family, [&](Changed& c) { c.config["rope_parameters"][key] = value; });
}

}  // namespace

TEST_CASE("the older spelling of rotary positions, rope_theta beside rope_scaling, means the same") {
  for (const std::string family : {"llama3", "llama_linear", "llama_yarn"}) {
    Changed old{family};
    auto scaling = old.config.at("rope_parameters");
    old.config.erase("rope_parameters");
    old.config["rope_theta"] = scaling.at("rope_theta");
    scaling.erase("rope_theta");
    scaling["type"] = scaling.at("rope_type");
    scaling.erase("rope_type");
    old.config["rope_scaling"] = scaling;
    const auto golden = open_safetensors(folder_of(family) / "golden.safetensors");
    REQUIRE_CLOSE(old.load<Llama>().run(to_tensor(golden.get("tokens"))).logits, to_tensor(golden.get("logits")), 1e-5);
  }
  Changed pythia{"pythia"};
  pythia.config.erase("rope_parameters");
  pythia.config["rotary_pct"] = 0.5;
  pythia.config["rotary_emb_base"] = 10000;
  const auto golden = open_safetensors(folder_of("pythia") / "golden.safetensors");
  REQUIRE_CLOSE(pythia.load<GptNeox>().run(to_tensor(golden.get("tokens"))).logits, to_tensor(golden.get("logits")),
                1e-5);
}

TEST_CASE("configurations that mean another model are refused by key") {
  REQUIRE_THAT(said_of<Llama>("llama3", "model_type", "phi3"),
               ContainsSubstring("mistral") && ContainsSubstring("phi3"));
  REQUIRE_THAT(said_of<Llama>("llama3", "hidden_act", "gelu"), ContainsSubstring("expected silu, got gelu"));
  REQUIRE_THAT(said_of<Llama>("llama3", "num_key_value_heads", 3), ContainsSubstring("a divisor of n_heads = 4"));
  REQUIRE_THAT(said_of<Llama>("llama3", "num_attention_heads", 0), ContainsSubstring("n_heads"));
  REQUIRE_THAT(said_of<Llama>("llama3", "num_hidden_layers", 1'000'000'000'000), ContainsSubstring("n_layers"));
  REQUIRE_THAT(said_of<Llama>("smollm2", "head_dim", 5), ContainsSubstring("rotary_dims"));
  REQUIRE_THAT(said_of<Llama>("smollm2", "partial_rotary_factor", 1.5), ContainsSubstring("rotary_dims"));
  REQUIRE_THAT(said_of_rotary<Llama>("llama3", "rope_type", "longrope"), ContainsSubstring("got longrope"));
  REQUIRE_THAT(said_of_rotary<Llama>("llama3", "factor", -1.0), ContainsSubstring("factor"));
  REQUIRE_THAT(said_of_rotary<Llama>("llama3", "factor", "two"), ContainsSubstring("factor"));
  REQUIRE_THAT(said_of_rotary<Llama>("llama3", "high_freq_factor", 1.0), ContainsSubstring("over low_freq_factor"));
  REQUIRE_THAT(said_of_rotary<Llama>("llama3", "rope_theta", 0.0), ContainsSubstring("rope_theta"));
  for (const std::string key : {"beta_fast", "beta_slow", "attention_factor", "original_max_position_embeddings"}) {
    REQUIRE_THAT(said_of_rotary<Llama>("llama_yarn", key, -1), ContainsSubstring(key));
    REQUIRE_THAT(said_of_rotary<Llama>("llama_yarn", key, 0), ContainsSubstring(key));
  }
  REQUIRE_THAT(said_of<Llama>("mistral", "sliding_window", 0), ContainsSubstring("sliding_window"));
  REQUIRE_THAT(said_of<Llama>("qwen2", "layer_types", {"full_attention"}), ContainsSubstring("2 of them, got 1"));
  REQUIRE_THAT(said_of<Llama>("qwen2", "layer_types", {"full_attention", "linear_attention"}),
               ContainsSubstring("got linear_attention"));
  REQUIRE_THAT(said_of<GptNeox>("gpt_neox_sequential", "model_type", "gpt_neox"),
               ContainsSubstring("SequentialGptNeox"));
  REQUIRE_THAT(said_of<SequentialGptNeox>("pythia", "model_type", "gpt_neox"), ContainsSubstring("load it as GptNeox"));
  REQUIRE_THAT(said_of<GptNeox>("pythia", "num_attention_heads", 5),
               ContainsSubstring("a divisor of hidden_size = 16"));
  REQUIRE_THAT(said_of<GptNeox>("pythia", "hidden_act", "gelu_new"), ContainsSubstring("got gelu_new"));
  REQUIRE_THAT(said_of<Plain>("attention_only", "n_ctx", 12), ContainsSubstring("load it as AttentionOnly"));
  REQUIRE_THAT(said_of<AttentionOnly>("plain", "n_ctx", 12), ContainsSubstring("load it as Plain"));
  REQUIRE_THAT(said_of<Plain>("plain", "normalization_type", "LN"), ContainsSubstring("got LN"));
  REQUIRE_THAT(said_of<Plain>("plain", "act_fn", "relu"), ContainsSubstring("expected gelu, got relu"));
  REQUIRE_THAT(said_of<Plain>("plain", "parallel_attn_mlp", true), ContainsSubstring("parallel_attn_mlp"));
  REQUIRE_THAT(said_of<Gemma2>("gemma2", "use_bidirectional_attention", true), ContainsSubstring("got true"));
  REQUIRE_THAT(said_of<Gemma2>("gemma2", "query_pre_attn_scalar", 0), ContainsSubstring("score_scale"));
  REQUIRE_THAT(said_of<Gemma2>("gemma2", "final_logit_softcapping", -1.0), ContainsSubstring("logit_soft_cap"));
}

TEST_CASE("biases, head norms and unembeddings that file and config disagree about are refused by name") {
  REQUIRE_THAT(said_of<Llama>("llama3", "attention_bias", false),
               ContainsSubstring("layers.0.self_attn.q_proj.bias") && ContainsSubstring("model.safetensors"));
  REQUIRE_THAT((said_of<Llama, NameError>("smollm2", [](Changed& c) { c.config["attention_bias"] = true; })),
               ContainsSubstring("q_proj.bias"));
  REQUIRE_THAT((said_of<Llama, NameError>("smollm2", [](Changed& c) { c.config["tie_word_embeddings"] = false; })),
               ContainsSubstring("lm_head.weight"));
  REQUIRE_THAT((said_of<Llama, NameError>("smollm2", [](Changed& c) { c.config["model_type"] = "qwen2"; })),
               ContainsSubstring("q_proj.bias"));
  REQUIRE_THAT(said_of<Llama>("qwen3", "model_type", "llama"), ContainsSubstring("q_norm.weight"));
  REQUIRE_THAT((said_of<Llama, ShapeError>("qwen3", [](Changed& c) { c.config["head_dim"] = 4; })),
               ContainsSubstring("expected [16, 16], got [32, 16]"));
  REQUIRE_THAT((said_of<GptNeox, ShapeError>("pythia", [](Changed& c) { c.config["intermediate_size"] = 25; })),
               ContainsSubstring("dense_h_to_4h"));
  REQUIRE_THAT((said_of<Gemma2, NameError>(
                   "gemma2", [](Changed& c) { c.tensors.erase("model.layers.1.post_feedforward_layernorm.weight"); })),
               ContainsSubstring("post_feedforward_layernorm"));
}

TEST_CASE("GPT-NeoX's unembedding under a state dict's name is the same") {
  Changed pythia{"pythia"};
  const auto original = pythia.load<GptNeox>();
  auto unembedding = pythia.tensors.extract("embed_out.weight");
  unembedding.key() = "lm_head.weight";
  pythia.tensors.insert(std::move(unembedding));
  REQUIRE(pythia.load<GptNeox>().weights().W_U.equal(original.weights().W_U));
}

TEST_CASE("soft caps that are null are off") {
  Changed gemma{"gemma2"};
  gemma.config["attn_logit_softcapping"] = nullptr;
  gemma.config["final_logit_softcapping"] = nullptr;
  const auto config = gemma.load<Gemma2>().config();
  REQUIRE(config.score_soft_cap == 0);
  REQUIRE(config.logit_soft_cap == 0);
}

TEST_CASE("by default a model is processed where that is exact and left as it is where it is not") {
  REQUIRE(load_model<GptNeox>(folder_of("pythia")).processing() == weights::folded_and_centered);
  REQUIRE(load_model<Gemma2>(folder_of("gemma2")).processing() == weights::unprocessed);
  const auto golden = open_safetensors(folder_of("pythia") / "golden.safetensors");
  const auto expected = to_tensor(golden.get("logits"));
  REQUIRE_CLOSE(load_model<GptNeox>(folder_of("pythia")).run(to_tensor(golden.get("tokens"))).logits,
                expected.sub(expected.mean(-1, true)), 1e-5);
  for (const weights::Processing refused : {weights::Processing{.center_writing = true}, {.center_unembed = true}}) {
    REQUIRE_THROWS_AS(load_model<Gemma2>(folder_of("gemma2"), {.processing = refused}), ConfigError);
  }
  const auto gemma = open_safetensors(folder_of("gemma2") / "golden.safetensors");
  const weights::Processing folded{.fold_norms = true, .fold_value_biases = true};
  REQUIRE_CLOSE(
      load_model<Gemma2>(folder_of("gemma2"), {.processing = folded}).run(to_tensor(gemma.get("tokens"))).logits,
      to_tensor(gemma.get("logits")), 1e-5);
}
